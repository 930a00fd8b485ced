"""Windows from arrays that somebody else has cut."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch

from graphrec.errors import DataError

from .windows import Windows


def windows_of(
    x: Any,
    y: Any = None,
    *,
    channels: Sequence[str],
    classes: Sequence[Any] = (),
    groups: Any = None,
    rate: float = 1.0,
    name: str = "X",
) -> Windows:
    """Windows of an array; splits along time need them in the order of time.

    Args:
        x: (windows, channels, samples), as MNE's ``epochs.get_data()`` gives them.
        y: Position of each window's class in ``classes``, (windows,).
        channels: Names of the channels.
        classes: Names of the classes.
        groups: Whose each window is, (windows,): the recording or subject, whole in `split_by_recording` and
            `split_by_subject`. None takes all windows as pieces of one recording, one after another.
        rate: Samples per second.
        name: What messages call the array.

    Raises:
        DataError: The sizes do not match, or a value is not finite; names window, channel and sample.
    """
    array = np.asarray(x) if not isinstance(x, torch.Tensor) else None
    if array is not None and array.dtype.kind not in "fiub":
        raise DataError(f"{name}: holds {array.dtype}; must be numbers (windows, channels, samples)")
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < rate < float("inf"):
        raise DataError(f"rate={rate!r}: must be samples per second, a number above 0")
    values = x.detach() if array is None else torch.from_numpy(np.ascontiguousarray(array))
    if values.dim() != 3 or not len(values) or not values.shape[2] or values.is_complex():
        raise DataError(f"{name}: has shape {tuple(values.shape)}; must be (windows, channels, samples)")
    count, width, length = values.shape
    if width != len(channels):
        raise DataError(
            f"{name}: has {width} channels, {len(channels)} are expected ({', '.join(channels)}); "
            "name its own with channels="
        )
    values = values.float()
    finite = values.isfinite()
    if not bool(finite.all()):
        window, channel, sample = (~finite).nonzero()[0].tolist()
        raise DataError(
            f"{name}: window {window}, channel {channels[channel]}, sample {sample} is not finite"
        )
    labels = None if y is None else torch.as_tensor(np.asarray(y), dtype=torch.int64)
    for what, given in (("y", labels), ("groups", groups)):
        if given is not None and np.shape(given) != (count,):
            raise DataError(f"{what}: has shape {tuple(np.shape(given))}, {name} has {count} windows")
    names, owner = _owners(groups, count)
    of = torch.from_numpy(owner.astype(np.int64))
    sizes = torch.bincount(of, minlength=len(names))
    order = of.argsort(stable=True)
    rank = torch.empty_like(of)
    rank[order] = torch.arange(count) - (sizes.cumsum(0) - sizes)[of[order]]
    return Windows(
        values.transpose(1, 2).reshape(count * length, width).contiguous(),
        torch.arange(count) * length,
        length,
        labels,
        of,
        of,
        rank * length,
        sizes * length,
        tuple(map(str, names.tolist())) if groups is not None else ("",),
        tuple(channels),
        float(rate),
        tuple(one if isinstance(one, int) else str(one) for one in classes),
        name,
    )


def _owners(groups: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The groups, sorted, and the number of each window's."""
    if groups is None:
        return np.zeros(1, np.int64), np.zeros(count, np.int64)
    listed = np.asarray(groups)
    missing = np.array([one is None or one != one for one in listed.tolist()], dtype=bool)
    if missing.any():
        raise DataError(f"groups: window {int(missing.argmax())} has none ({listed[missing.argmax()]})")
    try:
        return np.unique(listed, return_inverse=True)
    except TypeError:
        kinds = sorted({type(one).__name__ for one in listed.tolist()})
        raise DataError(f"groups: are of several kinds ({', '.join(kinds)}); take one") from None
