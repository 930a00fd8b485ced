"""From recordings, files, tables or arrays to the windows that a network reads, always the same way."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ConfigError, DataError

from ..array_labels import label_codes
from .arrays import windows_of
from .artefacts import treat_outliers
from .container import EEGSet, channel_index
from .filtering import average_reference, band_pass, band_pass_windows
from .opening import open_eeg
from .scaling import max_abs
from .windows import Windows, make_windows

SCALINGS = ("standard", "max_abs", None)


@dataclass(frozen=True)
class Preparation:
    """What happens to recordings before a network sees them, the same when fitting and predicting.

    Attributes:
        channels: Electrodes to take, in this order.
        window: Seconds of a window.
        stride: Seconds from one window to the next; None for ``window``.
        outliers: See `treat_outliers`; None leaves them.
        reference: ``"average"`` or None.
        band: Hertz (low, high), either may be None; None for no filter.
        scaling: One of `SCALINGS`.
        centre: Whether each window's mean is taken off.
        mixed: See `make_windows`.

    Raises:
        ConfigError: A choice that does not exist.
    """

    channels: tuple[str, ...]
    window: float
    stride: float | None
    outliers: str | None
    reference: str | None
    band: Sequence[float | None] | None
    scaling: str | None
    centre: bool
    mixed: str

    def __post_init__(self) -> None:
        if self.reference not in ("average", None):
            raise ConfigError(f"reference={self.reference!r}: must be 'average' or None")
        if self.scaling not in SCALINGS:
            raise ConfigError(f"scaling={self.scaling!r}: must be 'standard', 'max_abs' or None")
        if self.band is not None and not (_is_list(self.band, 2) and all(map(_is_edge, self.band))):
            raise ConfigError(f"band={self.band!r}: must be (low, high) in hertz")
        if not _is_seconds(self.window) or not (self.stride is None or _is_seconds(self.stride)):
            raise ConfigError(f"window={self.window!r}, stride={self.stride!r}: must be seconds above 0")

    def of_recordings(self, recordings: EEGSet) -> Windows:
        """Treated, filtered, cut.

        Raises:
            DataError: A channel is missing, there are outliers to be refused, or no window fits.
        """
        recordings = recordings.map(lambda one: one.pick(self.channels))
        if self.outliers is not None:
            recordings, _ = treat_outliers(recordings, self.outliers)  # type: ignore[arg-type]
        if self.reference is not None:
            recordings = average_reference(recordings)
        if self.band is not None:
            recordings = band_pass(recordings, *self.band)
        if self.scaling == "max_abs":
            recordings = max_abs(recordings)
        length = max(round(self.window * recordings.rate), 1)
        stride = length if self.stride is None else max(round(self.stride * recordings.rate), 1)
        found = make_windows(recordings, length, stride, mixed=self.mixed)  # type: ignore[arg-type]
        return replace(found, centred=self.centre)

    def of_windows(self, windows: Windows) -> Windows:
        """Windows cut before, channels in order; those of whole recordings are filtered.

        Raises:
            ConfigError: The preparation needs whole recordings.
            DataError: A channel is missing.
        """
        if self.outliers is not None:
            raise ConfigError(
                f"outliers: needs whole recordings, and {windows.name} is windows; treat before cutting"
            )
        if self.scaling == "max_abs":
            raise ConfigError(
                f"scaling='max_abs': needs whole recordings, and {windows.name} is windows; scale before "
                "cutting and give scaling=None"
            )
        signal = windows.signal[:, channel_index(windows.channels, self.channels, windows.name)]
        if self.reference is not None:
            signal = signal - signal.mean(1, keepdim=True)
        found = replace(
            windows, signal=signal, channels=self.channels, centred=windows.centred or self.centre
        )
        return found if self.band is None else band_pass_windows(found, *self.band)

    def __call__(
        self,
        source: Any,
        y: Any = None,
        *,
        classes: Sequence[Any] | NDArray[Any] | None = None,
        groups: Any = None,
        channels: Sequence[str] | None = None,
        rate: float | None = None,
        **read: Any,
    ) -> tuple[Windows, NDArray[Any]]:
        """Windows of anything, and the classes that their labels count.

        Args:
            source: `Windows`; an array (windows, channels, samples); or anything `open_eeg` takes.
            y: Classes in place of the source's own, one for each window or recording.
            classes: Known classes, into which labels are counted; None takes those found.
            groups: Of an array; see `windows_of`.
            channels: Of an array; None takes those of the montage. Of a file or table, see its reader.
            rate: Samples per second of an array, a file or a table.
            read: Further arguments of the reader.

        Raises:
            ConfigError: Something does not apply to this source.
            DataError: Labels or channels do not fit.
        """
        if isinstance(source, Windows) or _is_array(source):
            self._refuse(read)
            if not isinstance(source, Windows):
                rate = 1.0 if rate is None else rate
                source = windows_of(source, channels=channels or self.channels, groups=groups, rate=rate)
            windows = self.of_windows(source)
            return self._labelled(windows, y, classes)
        if groups is not None:
            raise ConfigError("groups: is for arrays; recordings tell their own")
        windows = self.of_recordings(open_labelled(source, y, channels=channels, rate=rate, **read))
        return self._labelled(windows, None, classes)

    def _refuse(self, read: dict[str, Any]) -> None:
        if read:
            raise ConfigError(f"{next(iter(read))}: is for files and tables, not for windows or arrays")

    def _labelled(
        self, windows: Windows, y: Any, classes: Sequence[Any] | NDArray[Any] | None
    ) -> tuple[Windows, NDArray[Any]]:
        if y is not None:
            found, codes = label_codes(y, len(windows))
            windows = replace(windows, y=codes, classes=tuple(map(str, found)))
        else:
            found = np.asarray(windows.classes)
        if classes is None or windows.y is None:
            return windows, found
        return replace(windows, y=_recoded(windows.y, found, classes, windows.name)), np.asarray(classes)


def open_labelled(
    source: Any,
    y: Any = None,
    *,
    channels: Sequence[str] | None = None,
    rate: float | None = None,
    **read: Any,
) -> EEGSet:
    """What `open_eeg` opens, with classes of the recordings in place of their own if ``y`` is given.

    Raises:
        DataError: The labels do not fit, or see the reader.
    """
    options = {**read, **{k: v for k, v in (("channels", channels), ("rate", rate)) if v is not None}}
    return _with_labels(open_eeg(source, **options), y)


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == length


def _is_edge(value: Any) -> bool:
    return value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def _is_seconds(value: Any) -> bool:
    return _is_edge(value) and value is not None and 0 < value < math.inf


def _is_array(source: Any) -> bool:
    return isinstance(source, np.ndarray | Tensor)


def _with_labels(recordings: EEGSet, y: Any) -> EEGSet:
    """Recordings with one class each in place of their own labels."""
    if y is None:
        return recordings
    found, codes = label_codes(y, len(recordings))
    listed = [replace(one, label=code) for one, code in zip(recordings, codes, strict=True)]
    return replace(recordings, recordings=tuple(listed), classes=tuple(map(str, found)))


def _recoded(codes: Tensor, found: NDArray[Any], classes: Sequence[Any] | NDArray[Any], name: str) -> Tensor:
    """Codes that count ``classes`` in place of ``found``; the text of a class decides."""
    known = {str(c): i for i, c in enumerate(classes)}
    unknown = [str(found[i]) for i in codes.unique().tolist() if str(found[i]) not in known]
    if unknown:
        raise DataError(f"{name}: class {unknown[0]} was not fitted; fitted were {', '.join(known)}")
    return torch.tensor([known.get(str(c), -1) for c in found])[codes]
