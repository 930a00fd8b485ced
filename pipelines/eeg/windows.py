"""Windows: equally long pieces of recordings, kept as positions in one signal until a batch needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from graphrec.errors import ConfigError, DataError

from ..item_index import item_index, many
from .container import EEGSet, Recording

Mixed = Literal["majority", "drop", "last"]


@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """W windows of ``length`` samples over S samples of C channels.

    Attributes:
        signal: All recordings, one after another, float32 (S, C).
        start: First sample of each window in ``signal``, int64 (W,).
        length: Samples in a window.
        y: Class of each window, int64 (W,), or None.
        recording: Number of each window's recording, int64 (W,).
        subject: Number of each window's subject, int64 (W,).
        offset: First sample of each window in its recording, int64 (W,).
        recording_length: Samples of each recording, int64.
        subjects: Names of the subjects, by number.
        channels: Names of the channels.
        rate: Samples per second.
        classes: The classes, text or numbers as the data have them.
        name: What messages call them.
        centred: Whether `x` takes each window's mean off every channel.
        whole: Whether ``signal`` is of whole recordings, so that it can still be filtered.
    """

    signal: Tensor
    start: Tensor
    length: int
    y: Tensor | None
    recording: Tensor
    subject: Tensor
    offset: Tensor
    recording_length: Tensor
    subjects: tuple[str, ...]
    channels: tuple[str, ...]
    rate: float
    classes: tuple[str | int, ...]
    name: str
    centred: bool = False
    whole: bool = False

    def __len__(self) -> int:
        return len(self.start)

    def __repr__(self) -> str:
        return (
            f"Windows({self.name!r}, {len(self)} of {self.length} samples x {len(self.channels)} channels, "
            f"{len(self.recording_length)} recordings, {len(self.subjects)} subjects, {len(self.classes)} "
            "classes)"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(W, length, C); scikit-learn's cross-validation takes what has one."""
        return len(self), self.length, len(self.channels)

    def __getitem__(self, index: Any) -> Windows:
        """One window, or those of a slice, list or mask; as folds of scikit-learn's they must not leak.

        Raises:
            DataError: A list or a mask takes windows of a recording that share samples with windows which it
                leaves, or more than one stretch of it with others around; `select` does not ask.
        """
        chosen = item_index(index, len(self), "window")
        if many(index):
            _refuse_leak(self, chosen)
        return self.select(chosen)

    def x(self, index: Any = None) -> Tensor:
        """The signal of these windows (all without an index), float32 (n, length, C)."""
        start = self.start if index is None else self.start[index]
        found = self.signal[start[:, None] + torch.arange(self.length)]
        return found - found.mean(dim=1, keepdim=True) if self.centred else found

    def select(self, index: Tensor) -> Windows:
        """Some of them, int64 (n,), over the same signal."""
        parts = {name: getattr(self, name)[index] for name in ("start", "recording", "subject", "offset")}
        return replace(self, y=None if self.y is None else self.y[index], **parts)

    def batch(self, index: Any = None) -> tuple[Tensor, Tensor]:
        """Signals, float32 (n, length, C), and classes, int64 (n,).

        Raises:
            ConfigError: The recordings have no labels.
        """
        if self.y is None:
            raise ConfigError(f"{self.name}: has no labels; take x() instead")
        return self.x(index), self.y if index is None else self.y[index]

    def loader(
        self, index: Tensor, batch_size: int, *, shuffle: bool = False, balanced: bool = False, seed: int = 0
    ) -> WindowLoader:
        """Batches of these windows; see `WindowLoader`."""
        return WindowLoader(self, index, batch_size, shuffle=shuffle, balanced=balanced, seed=seed)


class WindowLoader:
    """Goes over windows in batches ``(x, y)``; each pass shuffles anew, pass k of a seed always alike.

    Args:
        windows: All windows.
        index: Those to go over, int64 (n,).
        batch_size: Windows in a batch.
        shuffle: Another order in every pass.
        balanced: Instead of going over them, draw n windows with replacement, every class as likely as the
            others and every window as likely as the others of its class.
        seed: Of orders and draws.

    Raises:
        ConfigError: Batches of nothing, or balanced windows without labels.
    """

    def __init__(
        self,
        windows: Windows,
        index: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        balanced: bool = False,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: must be at least 1")
        if balanced and windows.y is None:
            raise ConfigError(f"{windows.name}: has no labels, so no classes to balance")
        self.windows, self.index, self.batch_size = windows, index, int(batch_size)
        self.shuffle, self.balanced, self.seed, self.passes = shuffle, balanced, seed, 0

    def __len__(self) -> int:
        return -(-len(self.index) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        for chosen in self.cuts(self.passes - 1):
            yield self.windows.batch(chosen)

    def cuts(self, number: int) -> tuple[Tensor, ...]:
        """Windows of each batch of pass ``number``, int64 each."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = self.index
        if self.balanced:
            order = self._draw(generator)
        elif self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        return order.split(self.batch_size)

    def _draw(self, generator: torch.Generator) -> Tensor:
        assert self.windows.y is not None
        _, code, counts = self.windows.y[self.index].unique(return_inverse=True, return_counts=True)
        by_class, first = code.argsort(stable=True), counts.cumsum(0) - counts
        drawn = torch.randint(len(counts), (len(code),), generator=generator)
        share = torch.rand(len(code), generator=generator, dtype=torch.float64)
        return self.index[by_class[first[drawn] + (share * counts[drawn]).long()]]


def make_windows(
    recordings: EEGSet, length: int, stride: int | None = None, *, mixed: Mixed = "majority"
) -> Windows:
    """Cut recordings into windows; none reaches over the end of its recording or holds a bad sample.

    Args:
        recordings: The recordings. One shorter than a window gives none.
        length: Samples in a window.
        stride: Samples from one window's begin to the next one's; None takes ``length``: no overlap.
        mixed: Class of a window whose samples have several: that of the ``"majority"`` (of a tie, the smaller
            code), that of the ``"last"`` sample, or ``"drop"`` the window.

    Raises:
        ConfigError: Sizes that are not positive, or an unknown choice.
        DataError: Some recordings have labels and some have none, or no window fits.
    """
    stride = length if stride is None else stride
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in (length, stride))
    if not whole or length < 1 or stride < 1:
        raise ConfigError(f"length={length!r}, stride={stride!r}: must be whole numbers of at least 1")
    if mixed not in ("majority", "drop", "last"):
        raise ConfigError(f"mixed={mixed!r}: must be majority, drop or last")
    unlabelled = [r.name for r in recordings if r.label is None]
    if unlabelled and len(unlabelled) < len(recordings):
        raise DataError(f"{unlabelled[0]}: has no labels, other recordings have; label it or leave it out")
    people = {name: i for i, name in enumerate(dict.fromkeys(r.subject for r in recordings))}
    parts = [_cut(r, length, stride, mixed, len(recordings.classes)) for r in recordings]
    counts = torch.tensor([len(offset) for offset, _ in parts])
    lengths = torch.tensor([len(r) for r in recordings])
    if int(counts.sum()) == 0:
        raise DataError(
            f"{recordings.name}: no window of {length} samples fits; the longest recording has "
            f"{int(lengths.max())}"
        )
    recording = torch.repeat_interleave(torch.arange(len(recordings)), counts)
    offset = torch.cat([o for o, _ in parts])
    begins = lengths.cumsum(0) - lengths
    return Windows(
        torch.cat([r.signal for r in recordings]),
        offset + begins[recording],
        length,
        None if unlabelled else torch.cat([y for _, y in parts if y is not None]),
        recording,
        torch.tensor([people[r.subject] for r in recordings])[recording],
        offset,
        lengths,
        tuple(people),
        recordings.channels,
        recordings.rate,
        recordings.classes,
        recordings.name,
        whole=True,
    )


def _refuse_leak(windows: Windows, chosen: Tensor) -> None:
    """See `Windows.__getitem__`; one stretch along time may be taken or left."""
    taken = torch.zeros(len(windows), dtype=torch.bool)
    taken[chosen] = True
    order = windows.offset.argsort(stable=True)
    order = order[windows.recording[order].argsort(stable=True)]
    taken, start, recording = taken[order], windows.start[order], windows.recording[order]
    border = (taken[1:] != taken[:-1]) & (recording[1:] == recording[:-1])
    near = border & (start[1:] - start[:-1] < windows.length)
    borders = torch.bincount(recording[1:][border], minlength=len(windows.recording_length))
    if not bool(near.any()) and not bool((borders > 2).any()):
        return
    if bool(near.any()):
        at = int(near.nonzero()[0])
        what = f"windows {int(order[at])} and {int(order[at + 1])} share samples and fall on both sides"
    else:
        stretches = int(borders.max()) + 1
        what = f"recording {int(borders.argmax())} falls in {stretches} stretches on both sides"
    raise DataError(
        f"{windows.name}: {what} of a split, so one side gives the other away; give groups=windows.recording "
        "(or windows.subject) and GroupKFold, or fit(split=) one of time_folds"
    )


def _cut(one: Recording, length: int, stride: int, mixed: str, classes: int) -> tuple[Tensor, Tensor | None]:
    """Offsets of a recording's windows, and their classes."""
    offset = torch.arange(0, max(len(one) - length + 1, 0), stride)
    if one.bad is not None:
        bad = _sums(one.bad.long(), offset, length)
        offset = offset[bad == 0]
    if one.label is None or one.label.dim() == 0:
        return offset, None if one.label is None else one.label.expand(len(offset)).long()
    if mixed == "last":
        return offset, one.label[offset + length - 1]
    counts = torch.stack([_sums((one.label == c).long(), offset, length) for c in range(classes)], dim=1)
    best, y = counts.max(dim=1) if len(offset) else (offset, offset)
    return (offset[best == length], y[best == length]) if mixed == "drop" else (offset, y)


def _sums(values: Tensor, offset: Tensor, length: int) -> Tensor:
    total = torch.nn.functional.pad(values.cumsum(0), (1, 0))
    return total[offset + length] - total[offset]
