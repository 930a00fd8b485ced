"""Recordings and files that the tests of EEG share."""

from __future__ import annotations

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
