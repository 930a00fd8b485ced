"""Arrays of pictures in any usual layout, to uint8 (N, C, H, W); anything else is refused with the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import DataError


def as_pixels(data: Any, name: str) -> Tensor:
    """Pictures as uint8 (N, C, H, W), C 1 or 3, sharing memory with the array where they can.

    Args:
        data: Array or tensor, uint8, (N, H, W, C), (N, C, H, W) or (N, H, W).
        name: Of the array.

    Raises:
        DataError: Another type or shape, or no picture.
    """
    _check_type(data, name)
    pixels = data.detach().cpu() if isinstance(data, Tensor) else torch.from_numpy(_writable(data))
    if pixels.dim() == 3 and pixels.shape[-1] not in (3, 4):
        pixels = pixels[:, None]
    if pixels.dim() != 4:
        hint = "; for one image give array[None]" if pixels.dim() in (2, 3) else ""
        raise _wrong_shape(name, tuple(pixels.shape), hint)
    last, second = pixels.shape[3] in (1, 3), pixels.shape[1] in (1, 3)
    if last and not (
        second and isinstance(data, Tensor)
    ):  # either could be the channels: each library's habit
        pixels = pixels.permute(0, 3, 1, 2)
    elif not second:
        raise _wrong_shape(name, tuple(pixels.shape), "")
    if 0 in pixels.shape:
        raise DataError(f"{name}: an array of shape {tuple(data.shape)} holds no image")
    return pixels


def _check_type(data: Any, name: str) -> None:
    if data.dtype in (np.uint8, torch.uint8):
        return
    kind = str(data.dtype).removeprefix("torch.")
    if isinstance(data, Tensor):
        data = data.detach().cpu()
        data = (data.float() if data.is_floating_point() else data).numpy()  # numpy has no bfloat16
    values = data
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(f"{name}: {kind} pixels; images are uint8, 0 to 255: {_to_bytes(values)}")
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))[0]
        raise DataError(f"{name}: image {bad[0]} holds NaN or infinite pixels; images are uint8, 0 to 255")
    span = f"from {values.min():g} to {values.max():g}" if values.size else "none at all"
    raise DataError(
        f"{name}: {kind} pixels ({span}); images are uint8, 0 to 255: for pixels from 0 to 1 convert with "
        "(255 * array).round().astype('uint8')"
    )


def _to_bytes(values: np.ndarray) -> str:
    """How to make uint8 of pixels that are no floating numbers, without wrapping or losing them."""
    if values.dtype == bool:
        return "convert with 255 * array.astype('uint8')"
    if not np.issubdtype(values.dtype, np.integer):
        return "give one array of numbers, or a list of paths or PIL images"
    if values.size and (values.min() < 0 or values.max() > 255):
        shift = "; (array >> 8).astype('uint8') keeps the upper half of 16 bits"
        return f"these go from {values.min()} to {values.max()}, scale them first{shift}"
    return "convert with .astype('uint8')"


def _writable(array: np.ndarray) -> np.ndarray:
    """The array itself, or a copy where torch could not share it."""
    plain = array if all(stride >= 0 for stride in array.strides) else np.ascontiguousarray(array)
    return plain if plain.flags.writeable else plain.copy()


def _wrong_shape(name: str, shape: tuple[int, ...], hint: str) -> DataError:
    return DataError(
        f"{name}: an array of shape {shape}; images are (N, H, W, 3), (N, 3, H, W) or, grey, (N, H, W){hint}"
    )
