"""Synthetic EEG that the tests of EEG networks share, and a classifier that is fitted to it in a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch

from graphrec.graph.eeg import EEGClassifier
from graphrec.pipelines.eeg import EPOC, EEGSet, Recording

RATE = 64.0
BACK = [EPOC.channels.index(c) for c in ("O1", "O2", "P7", "P8")]


def signal(samples: int, level: float, rng: np.random.Generator) -> torch.Tensor:
    """Noise, and at the back of the head a rhythm of 10 Hz as strong as ``level``."""
    found = rng.normal(size=(samples, 14))
    phase = rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * 10 * np.arange(samples) / RATE + phase)
    found[:, BACK] += level * wave[:, None]
    return torch.from_numpy(found.astype(np.float32))


def rests(runs: int = 12, seconds: float = 8.0, seed: int = 0, subject: str = "a") -> Recording:
    """One recording in which a strong rhythm comes and goes; its label tells when it is there."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    parts = [signal(count, 2.5 * (i % 2), rng) for i in range(runs)]
    label = torch.arange(runs).remainder(2).repeat_interleave(count)
    return Recording(torch.cat(parts), RATE, EPOC.channels, label, subject, f"rest of {subject}")


def trials(people: int = 3, clips: int = 5, seconds: float = 12.0, classes: int = 5, seed: int = 0) -> EEGSet:
    """A recording for each subject and clip; the rhythm is the stronger the higher the rating."""
    rng = np.random.default_rng(seed)
    listed = []
    for person in range(people):
        for clip in range(clips):
            rating = (clip + person) % classes
            one = signal(int(seconds * RATE), 1.2 * rating, rng)
            extra = {"scores": {"valence": rating + 1.0}, "stimulus": f"clip {clip + 1}"}
            name = f"subject {person + 1}, clip {clip + 1}"
            listed.append(
                Recording(one, RATE, EPOC.channels, torch.tensor(rating), str(person + 1), name, **extra)
            )
    return EEGSet(tuple(listed), tuple(str(i + 1) for i in range(classes)), "trials")


QUICK: dict[str, Any] = {
    "epochs": 6,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "validation": 0.25,
    "stride": 0.5,
    "model_options": {"kernel_length": 16, "momentum": 0.1, "label_smoothing": 0.0},
    "random_state": 0,
}


def quick(**change: Any) -> EEGClassifier:
    return EEGClassifier(**{**QUICK, **change})


def frame(signal: torch.Tensor, label: torch.Tensor | None = None) -> pl.DataFrame:
    columns = dict(zip(EPOC.channels, signal.T.double().numpy(), strict=True))
    return pl.DataFrame(columns if label is None else {**columns, "eye": label.numpy()})
