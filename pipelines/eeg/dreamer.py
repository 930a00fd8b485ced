"""DREAMER (Katsigiannis and Ramzan, 2018): 23 subjects, 18 film clips, 14 channels at 128 Hz, ratings from 1
to 5.

The file is under a licence that its authors grant on request; this reads its structure:
``DREAMER.Data{subject}.EEG.stimuli{clip}`` and ``.baseline{clip}`` (samples, channels), and
``.ScoreValence``, ``.ScoreArousal``, ``.ScoreDominance`` (clips,).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from graphrec.errors import ConfigError, DataError, SchemaError

from .container import EEGSet, Recording
from .headsets import EPOC
from .mat import load_mat, variable

RATINGS = ("valence", "arousal", "dominance")
CHANNELS = EPOC.channels


def read_dreamer(
    path: str | Path,
    target: Literal["valence", "arousal", "dominance"] = "valence",
    *,
    rate: float | None = None,
) -> EEGSet:
    """One recording for each subject and clip.

    Args:
        path: ``DREAMER.mat``, or a file of the same structure.
        target: The rating that becomes the class: rating r is class r - 1 of five.
        rate: Samples per second; None takes the file's ``EEG_SamplingRate``, or 128.

    Returns:
        Recordings with the subject's number from 1, the signal at rest as ``baseline``, all ratings in
        ``scores``, and the clip as ``stimulus``.

    Raises:
        ConfigError: Unknown target.
        SchemaError: A part of the structure is missing.
        DataError: The file is broken, a rating is not 1 to 5, or sizes do not match.
    """
    if target not in RATINGS:
        raise ConfigError(f"target={target!r}: must be one of {', '.join(RATINGS)}")
    root = variable(load_mat(path), "DREAMER", path)
    people = np.atleast_1d(_part(root, "Data", f"{path}: DREAMER"))
    if rate is None:
        rate = float(getattr(root, "EEG_SamplingRate", 128))
    names = getattr(root, "EEG_Electrodes", None)
    channels = CHANNELS if names is None else tuple(str(n) for n in np.atleast_1d(names))
    listed = [
        r
        for i, person in enumerate(people)
        for r in _trials(person, i + 1, target, rate, channels, str(path))
    ]
    return EEGSet(tuple(listed), ("1", "2", "3", "4", "5"), str(path))


def _trials(
    person: Any, number: int, target: str, rate: float, channels: tuple[str, ...], path: str
) -> list[Recording]:
    where = f"{path}: subject {number}"
    eeg = _part(person, "EEG", where)
    stimuli = _cells(_part(eeg, "stimuli", where), len(channels))
    baseline = _cells(getattr(eeg, "baseline", None), len(channels))
    ratings = {r: np.atleast_1d(_part(person, f"Score{r.title()}", where)) for r in RATINGS}
    listed = []
    for clip, signal in enumerate(stimuli):
        name = f"{where}, clip {clip + 1}"
        for rating, values in ratings.items():
            if len(values) != len(stimuli) or values[clip] not in (1, 2, 3, 4, 5):
                found = values[clip] if clip < len(values) else "missing"
                raise DataError(f"{name}: rating of {rating} is {found}; it must be 1, 2, 3, 4 or 5")
        scores = {r: float(v[clip]) for r, v in ratings.items()}
        rest = _signal(baseline[clip]) if clip < len(baseline) else None
        label = torch.tensor(int(scores[target]) - 1)
        extra: dict[str, Any] = {"baseline": rest, "scores": scores, "stimulus": f"clip {clip + 1}"}
        listed.append(Recording(_signal(signal), rate, channels, label, str(number), name, **extra))
    return listed


def _part(holder: Any, name: str, where: str) -> Any:
    if not hasattr(holder, name):
        fields = ", ".join(getattr(holder, "_fieldnames", [])) or "nothing"
        raise SchemaError(f"{where}: has no {name}; it has {fields}")
    return getattr(holder, name)


def _cells(values: Any, channels: int) -> list[np.ndarray]:
    """The matrices of a cell array; SciPy unwraps a cell of one, and joins cells of one size."""
    if values is None:
        return []
    array = np.asarray(values)
    if array.dtype == object:
        return [np.asarray(v) for v in array.ravel()]
    return [array] if array.ndim == 2 and array.shape[1] == channels else list(array)


def _signal(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
