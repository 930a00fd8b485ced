"""EEG files that tests of several folders make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from graphrec.pipelines.eeg import EPOC


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


def dreamer(path: Path, people: int = 3, clips: int = 4, samples: int = 512, **change: Any) -> Path:
    rng = np.random.default_rng(0)

    def cells() -> np.ndarray:
        made = np.empty((clips, 1), object)
        for clip in range(clips):
            made[clip, 0] = rng.normal(size=(samples + 16 * clip, 14))
        return made

    data = np.empty((1, people), object)
    for person in range(people):
        data[0, person] = {
            "Age": "30",
            "EEG": {"baseline": cells(), "stimuli": cells()},
            "ScoreValence": (np.arange(clips) + person)[:, None] % 5 + 1,
            "ScoreArousal": np.full((clips, 1), 3),
            "ScoreDominance": np.full((clips, 1), 5),
        } | change
    names = np.array(EPOC.channels, dtype=object)[None]
    savemat(path, {"DREAMER": {"Data": data, "EEG_SamplingRate": 128, "EEG_Electrodes": names}})
    return path


def eye_state(path: Path, seconds: int = 60, run: int = 4, seed: int = 0) -> Path:
    """An ARFF like UCI's EEG Eye State: 128 Hz, runs of open and closed eyes, slow drifts, one spike."""
    rng = np.random.default_rng(seed)
    rate, total = 128, 128 * seconds
    label = (np.arange(total) // (run * rate)) % 2
    drift = np.cumsum(rng.normal(size=(total, 14)), 0) * 2
    fast = np.sin(2 * np.pi * 20 * np.arange(total) / rate) * 6 * label
    values = 4300 + drift + rng.normal(size=(total, 14)) + fast[:, None] * rng.uniform(0.5, 1.5, 14)
    values[777, 3] = 300_000
    lines = ["@RELATION eyes", *(f"@ATTRIBUTE {c} NUMERIC" for c in EPOC.channels)]
    lines += ["@ATTRIBUTE eyeDetection {0,1}", "@DATA"]
    lines += [",".join(f"{v:.2f}" for v in row) + f",{y}" for row, y in zip(values, label, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path
