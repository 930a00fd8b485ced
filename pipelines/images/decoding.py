"""Decoding: one picture in whatever form it is stored, to 8 bits and one or three channels.

What pictures that are not plain RGB become: grey and palettes are expanded; 16 bits keep their upper eight;
what is transparent lies on white; CMYK is converted; a rotation noted in EXIF is applied; of an animation or
a file of several pages the first picture is taken. Floating pixels have no known range and are refused.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from graphrec.errors import DataError

_WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_TAIL = 64
"""Bytes at the end of a file that are looked at; some programs pad with zeros."""


def decode(file: BinaryIO, name: str, channels: int = 3) -> Image.Image:
    """Decode a file as mode ``RGB`` for three channels or ``L`` for one.

    Args:
        file: Opened for reading.
        name: What messages call it.
        channels: 3 or 1.

    Raises:
        DataError: It is not an image, or a broken one; the message names it.
    """
    try:
        with Image.open(file) as image:
            return normalise_mode(image, channels)
    except Exception as error:  # decoders raise whatever they like on broken bytes
        raise DataError(f"{name}: {reason(error, file)}") from error


def normalise_mode(image: Image.Image, channels: int = 3) -> Image.Image:
    """An opened picture upright, in mode ``RGB`` or ``L``; see the module's docstring.

    Raises:
        ValueError: Its mode cannot be converted.
    """
    target = "RGB" if channels == 3 else "L"
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _WIDE:
        image = _upper_bits(image)
    if image.mode == "F":
        raise ValueError("has floating pixels, whose range is not known; store it with 8 or 16 bits")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return image if image.mode == target else image.convert(target)


def _upper_bits(image: Image.Image) -> Image.Image:
    """Mode ``L`` with the upper eight of 16 bits."""
    values = np.asarray(image)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 1 << 16:
        raise ValueError(
            f"has pixels from {values.min()} to {values.max()}, more than 16 bits; store it with 8 or 16 bits"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))


def inspect(file: BinaryIO, full: bool = False) -> tuple[int, int, str]:
    """Width, height and mode from the header; the pixels are decoded only where the end looks odd.

    Args:
        file: Opened for reading.
        full: Decode the pixels in any case.

    Raises:
        Exception: Whatever PIL raises; `reason` puts it in words.
    """
    with Image.open(file) as image:
        width, height, mode = *image.size, image.mode
        if full or mode in ("F", *_WIDE) or not _looks_complete(file, image.format or ""):
            normalise_mode(image)
    return width, height, mode


def _looks_complete(file: BinaryIO, kind: str) -> bool:
    """Whether a file ends as its format ends; False where that is not known."""
    position = file.tell()
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    tail = file.read().rstrip(b"\0")
    file.seek(0)
    head = file.read(8)
    file.seek(position)
    if kind == "JPEG":
        return tail.endswith(b"\xff\xd9")
    if kind == "PNG":
        return b"IEND" in tail
    if kind == "GIF":
        return tail.endswith(b";")
    return kind == "WEBP" and int.from_bytes(head[4:8], "little") + 8 <= size


def reason(error: Exception, file: BinaryIO | None = None) -> str:
    """Why a picture cannot be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    if isinstance(error, PermissionError):
        return "cannot be opened (check its permissions)"
    if isinstance(error, UnidentifiedImageError) and file is not None:
        return _what_it_is(file)
    if isinstance(error, Image.DecompressionBombError):
        return "has more pixels than PIL takes (see PIL.Image.MAX_IMAGE_PIXELS)"
    text = str(error).splitlines()[0].strip() if str(error) else type(error).__name__
    if isinstance(error, ValueError) and text.startswith("has "):
        return text
    return f"is broken ({text[:120]})"


def _what_it_is(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(64)
    if not head:
        return "is empty (0 bytes)"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "is text, not an image"
    return f"is not an image (it begins with {head[:4]!r})"
