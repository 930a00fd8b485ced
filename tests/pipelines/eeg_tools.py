"""Recordings and files that the tests of EEG share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from graphrec.pipelines.eeg import EEGSet, Recording


def recording(
    samples: int, label: object = 0, subject: str = "s", name: str = "r", channels: int = 2
) -> Recording:
    """Channel c holds ``sample + 1000 c``, so that every value tells where it was."""
    signal = torch.arange(samples, dtype=torch.float32)[:, None] + 1000.0 * torch.arange(channels)
    codes = None if label is None else torch.as_tensor(label)
    return Recording(signal, 10.0, tuple("ABCDEFGH"[:channels]), codes, subject, name)


def several(people: int = 5, trials: int = 2, samples: int = 100) -> EEGSet:
    """So many recordings of each subject, their class the trial's number."""
    found = [recording(samples, t % 2, f"s{p}", f"s{p} t{t}") for p in range(people) for t in range(trials)]
    return EEGSet(tuple(found), ("0", "1"), "several")


def edf(path: Path, signal: np.ndarray, names: list[str], rate: int) -> Path:
    """A file in the European Data Format, in microvolts from -1000 to 1000; whole seconds only."""
    count, seconds = len(names), len(signal) // rate
    fields = [
        *[f"EEG {n}".ljust(16) for n in names],
        *["".ljust(80)] * count,
        *["uV".ljust(8)] * count,
        *["-1000".ljust(8)] * count,
        *["1000".ljust(8)] * count,
        *["-32768".ljust(8)] * count,
        *["32767".ljust(8)] * count,
        *["".ljust(80)] * count,
        *[str(rate).ljust(8)] * count,
        *["".ljust(32)] * count,
    ]
    start = "0".ljust(8) + "X".ljust(80) + "X".ljust(80) + "01.01.2001.00.00"
    sizes = (
        str(256 * (count + 1)).ljust(8)
        + "".ljust(44)
        + str(seconds).ljust(8)
        + "1".ljust(8)
        + str(count).ljust(4)
    )
    digital = np.round((signal + 1000) / 2000 * 65535 - 32768).astype("<i2")
    blocks = digital.reshape(seconds, rate, count).transpose(0, 2, 1)
    path.write_bytes((start + sizes + "".join(fields)).encode("ascii") + blocks.tobytes())
    return path
