"""Recordings: signals with their channels, rate, subject and labels."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, overload

import torch
from torch import Tensor

from graphrec.errors import DataError

from ..item_index import item_index, many


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """One uninterrupted recording, or one trial of a session.

    Attributes:
        signal: float32 (samples, channels), in the unit of the file.
        rate: Samples per second.
        channels: Names, in the order of the columns.
        label: int64, one class for all samples ``()`` or one each ``(samples,)``; None without labels.
        subject: Who was recorded; splits by subject go by it.
        name: What messages call it: the file, the trial.
        bad: Samples that no window may hold, bool (samples,); None when all are good.
        baseline: Signal at rest before the trial, float32 (n, channels), where the data set has one.
        scores: Further numbers of the recording, such as its other ratings.
        stimulus: What was shown or asked, the same text for all who were; "" when there is none.

    Raises:
        DataError: The signal is empty or not finite, or the sizes do not match.
    """

    signal: Tensor
    rate: float
    channels: tuple[str, ...]
    label: Tensor | None = None
    subject: str = ""
    name: str = "recording"
    bad: Tensor | None = None
    baseline: Tensor | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    stimulus: str = ""

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.signal.dim() != 2 or self.signal.shape[1] != len(self.channels) or not len(self.signal):
            raise DataError(
                f"{self.name}: a signal of shape {tuple(self.signal.shape)} for {len(self.channels)} "
                "channels; it must be (samples, channels) and not empty"
            )
        if len(set(self.channels)) != len(self.channels):
            raise DataError(f"{self.name}: two channels have one name ({', '.join(self.channels)})")
        finite = torch.isfinite(self.signal)
        if not bool(finite.all()):
            row, column = (~finite).nonzero()[0].tolist()
            raise DataError(
                f"{self.name}: row {row + 1}: channel {self.channels[column]} is not finite; fill it or "
                "cut the recording there"
            )
        for what, values in (("labels", self.label), ("bad samples", self.bad)):
            if values is not None and values.dim() and values.shape != (len(self.signal),):
                raise DataError(f"{self.name}: {len(values)} {what} for {len(self.signal)} samples")

    def _check_kinds(self) -> None:
        """Refuse what is no signal, no rate or no classes."""
        if not isinstance(self.signal, Tensor) or self.signal.is_complex():
            found = getattr(self.signal, "dtype", type(self.signal).__name__)
            raise DataError(f"{self.name}: the signal must be a tensor of real numbers, found {found}")
        number = isinstance(self.rate, Real) and not isinstance(self.rate, bool)
        if not number or not 0 < self.rate < math.inf:
            raise DataError(f"{self.name}: rate {self.rate!r}; it must be the samples per second")
        if self.label is None:
            return
        if not isinstance(self.label, Tensor) or self.label.is_floating_point() or self.label.is_complex():
            found = getattr(self.label, "dtype", type(self.label).__name__)
            raise DataError(f"{self.name}: labels must be a tensor of whole numbers, found {found}")
        if self.label.numel() and int(self.label.min()) < 0:
            raise DataError(
                f"{self.name}: label {int(self.label.min())}; classes are numbered from 0, mark samples "
                "without a label as bad"
            )

    def __len__(self) -> int:
        return len(self.signal)

    def __repr__(self) -> str:
        who = f", subject {self.subject}" if self.subject else ""
        return (
            f"Recording({self.name!r}{who}, {len(self)} samples x {len(self.channels)} at {self.rate:g} Hz)"
        )

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self) / self.rate

    def pick(self, channels: Sequence[str]) -> Recording:
        """These channels, in this order; see `channel_index` for which names match.

        Raises:
            DataError: A channel is missing.
        """
        index = channel_index(self.channels, channels, self.name)
        base = None if self.baseline is None else self.baseline[:, index]
        return replace(self, signal=self.signal[:, index], channels=tuple(channels), baseline=base)


def channel_index(known: Sequence[str], wanted: Sequence[str], name: str) -> list[int]:
    """Where each wanted channel is.

    Names match whatever their case, and without what files put around them: ``EEG Fc5-REF`` and ``Fc5.`` are
    ``FC5``.

    Raises:
        DataError: A channel is missing, or two match.
    """
    places: dict[str, list[int]] = {}
    for i, channel in enumerate(known):
        places.setdefault(_bare(channel), []).append(i)
    found = []
    for channel in wanted:
        at = [known.index(channel)] if channel in known else places.get(_bare(channel), [])
        if len(at) != 1:
            what = "is missing" if not at else f"could be {' or '.join(known[i] for i in at)}"
            raise DataError(f"{name}: channel {channel} {what}; it has {', '.join(known)}")
        found += at
    return found


def _bare(channel: str) -> str:
    found = channel.casefold().strip().removeprefix("eeg ").rstrip(".").strip()
    for ending in ("-ref", "-le", "-avg"):
        found = found.removesuffix(ending)
    return found


@dataclass(frozen=True, eq=False, repr=False)
class EEGSet(Sequence[Recording]):
    """Recordings with the same channels and rate.

    Attributes:
        recordings: The recordings.
        classes: The classes, text or numbers as the data have them.
        name: What messages call it.

    Raises:
        DataError: There are none, or they differ in channels or rate.
    """

    recordings: tuple[Recording, ...]
    classes: tuple[str | int, ...] = ()
    name: str = "recordings"

    def __post_init__(self) -> None:
        object.__setattr__(self, "recordings", tuple(self.recordings))
        if not self.recordings:
            raise DataError(f"{self.name}: holds no recordings")
        first = self.recordings[0]
        for one in self.recordings:
            if (one.channels, one.rate) != (first.channels, first.rate):
                raise DataError(
                    f"{one.name}: {len(one.channels)} channels at {one.rate:g} Hz "
                    f"({', '.join(one.channels[:4])} ...), {first.name} has {len(first.channels)} at "
                    f"{first.rate:g} Hz; pick common channels and resample"
                )
            largest = -1 if one.label is None or not one.label.numel() else int(one.label.max())
            if largest >= len(self.classes):
                raise DataError(f"{one.name}: class {largest}, and classes names {len(self.classes)}")

    def __len__(self) -> int:
        return len(self.recordings)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> EEGSet: ...
    def __getitem__(self, index: Any) -> Any:
        """A recording by its number, of numpy or torch too, or those of a slice, list or mask as a set."""
        if isinstance(index, slice):
            return replace(self, recordings=self.recordings[index])
        if many(index):
            chosen = item_index(index, len(self), "recording").tolist()
            return replace(self, recordings=tuple(self.recordings[i] for i in chosen))
        return self.recordings[operator.index(index)]

    @property
    def shape(self) -> tuple[int]:
        """(recordings,); scikit-learn's cross-validation takes what has one."""
        return (len(self),)

    def __repr__(self) -> str:
        people = len({r.subject for r in self.recordings})
        seconds = sum(r.seconds for r in self.recordings)
        return (
            f"EEGSet({self.name!r}, {len(self)} recordings of {people} subjects, {len(self.channels)} "
            f"channels at {self.rate:g} Hz, {seconds:.0f} s, {len(self.classes)} classes)"
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self.recordings[0].channels

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.recordings[0].rate

    def map(self, change: Callable[[Recording], Recording]) -> EEGSet:
        """Each recording changed by a function."""
        return replace(self, recordings=tuple(change(r) for r in self.recordings))

    def pick(self, channels: Sequence[str]) -> EEGSet:
        """These channels, in this order, of every recording."""
        return self.map(lambda r: r.pick(channels))
