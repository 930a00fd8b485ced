"""Where pictures lie: in files, encoded in memory, as PIL images, or decoded in one array."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from graphrec.errors import DataError

from .decoding import decode, normalise_mode, reason


class Store(Protocol):
    """Pictures by number."""

    def __len__(self) -> int:
        """How many."""

    def name(self, row: int) -> str:
        """What messages call a picture."""

    def image(self, row: int, channels: int) -> Image.Image:
        """A picture, decoded, as ``RGB`` or ``L``."""

    def digest(self) -> str:
        """Hexadecimal digest that changes when the pictures do."""


class FileStore:
    """Pictures in files.

    Args:
        paths: Of the files.
        names: What messages call them; the paths by default.
    """

    def __init__(self, paths: Sequence[str], names: Sequence[str] | None = None) -> None:
        self.paths, self.names = list(paths), list(paths if names is None else names)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        """The path."""
        return self.names[row]

    def file(self, row: int) -> BinaryIO:
        """The encoded picture, opened."""
        return open(self.paths[row], "rb")

    def image(self, row: int, channels: int) -> Image.Image:
        """See `Store`."""
        return _decoded(self, row, channels)

    def digest(self) -> str:
        """By path, size and time of modification."""
        digest = hashlib.sha256()
        for path in self.paths:
            try:
                stat = os.stat(path)
                digest.update(f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
            except OSError:
                digest.update(f"{path}\0-\0".encode())
        return digest.hexdigest()


class BytesStore:
    """Encoded pictures in memory.

    Args:
        data: A pyarrow ChunkedArray of type large_binary, without nulls.
        names: One a picture.
    """

    def __init__(self, data: Any, names: Sequence[str]) -> None:
        self.data, self.names = data, list(names)

    @classmethod
    def of(cls, data: Sequence[bytes], names: Sequence[str]) -> BytesStore:
        """Of encoded pictures in a list."""
        import pyarrow as pa

        return cls(pa.chunked_array([pa.array(data, pa.large_binary())]), names)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """See `Store`."""
        return self.names[row]

    def file(self, row: int) -> BinaryIO:
        """The encoded picture, opened."""
        return io.BytesIO(self.data[row].as_buffer())

    def image(self, row: int, channels: int) -> Image.Image:
        """See `Store`."""
        return _decoded(self, row, channels)

    def digest(self) -> str:
        """By content."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for chunk in self.data.chunks:
            for value in chunk:
                digest.update(value.as_buffer())
        return digest.hexdigest()


Encoded = FileStore | BytesStore


def _decoded(store: Encoded, row: int, channels: int) -> Image.Image:
    try:
        file = store.file(row)
    except OSError as error:
        raise DataError(f"{store.name(row)}: {reason(error)}") from error
    with file:
        return decode(file, store.name(row), channels)


class PilStore:
    """PIL images in memory."""

    def __init__(self, images: Sequence[Image.Image], names: Sequence[str]) -> None:
        self.images, self.names = list(images), list(names)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, row: int) -> str:
        """See `Store`."""
        return self.names[row]

    def image(self, row: int, channels: int) -> Image.Image:
        """See `Store`."""
        return normalise_mode(self.images[row], channels)

    def digest(self) -> str:
        """By pixels."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.mode}{image.size}".encode() + image.tobytes())
        return digest.hexdigest()


class ArrayStore:
    """Decoded pictures of one size.

    Args:
        pixels: uint8 (N, C, H, W), C 1 or 3.
        names: One a picture; "image 7" and so on by default.
    """

    def __init__(self, pixels: Tensor, names: Sequence[str] | None = None) -> None:
        self._pixels, self.names = pixels, None if names is None else list(names)

    @property
    def pixels(self) -> Tensor:
        """uint8 (N, C, H, W)."""
        return self._pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, row: int) -> str:
        """See `Store`."""
        return f"image {row}" if self.names is None else self.names[row]

    def image(self, row: int, channels: int) -> Image.Image:
        """See `Store`."""
        pixels = self.pixels[row]
        array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
        return normalise_mode(Image.fromarray(array.contiguous().numpy()), channels)

    def rows(self, rows: Tensor, channels: int) -> Tensor:
        """Some pictures, uint8 (B, channels, H, W); rows int64 (B,)."""
        return with_channels(self.pixels[rows], channels)

    def digest(self) -> str:
        """By pixels."""
        pixels = self.pixels.contiguous()
        return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).hexdigest()


class DecodedStore(ArrayStore):
    """An `ArrayStore` that knows what was decoded, so that its pixels need not be read to tell it apart.

    Args:
        pixels: uint8 (N, C, H, W).
        names: One a picture.
        key: What they were decoded from, and how.
    """

    def __init__(self, pixels: Tensor, names: Sequence[str], key: str) -> None:
        super().__init__(pixels, names)
        self.key = hashlib.sha256(key.encode()).hexdigest()

    def digest(self) -> str:
        """Of the key."""
        return self.key


class MappedStore(ArrayStore):
    """An `ArrayStore` in a memory-mapped ``.npy`` file; other processes get the path, not the pixels.

    Args:
        path: Of the file.
        names: One a picture.
        key: Digest of what is in it.
    """

    def __init__(self, path: Path, names: Sequence[str], key: str) -> None:
        self.path, self.names, self.key = path, list(names), key
        self._mapped: Tensor | None = None

    @property
    def pixels(self) -> Tensor:
        """uint8 (N, C, H, W), read as it is used."""
        if self._mapped is None:  # mode "c" is writable, which torch asks for, and never writes to the file
            self._mapped = torch.from_numpy(np.load(self.path, mmap_mode="c", allow_pickle=False))
        return self._mapped

    def digest(self) -> str:
        """The key."""
        return self.key

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}


def with_channels(pixels: Tensor, channels: int) -> Tensor:
    """uint8 pictures (B, C, H, W) with one or three channels."""
    if pixels.shape[1] == channels:
        return pixels
    from torchvision.transforms.v2 import functional as transforms

    if channels == 3:
        return transforms.grayscale_to_rgb(pixels)
    return transforms.rgb_to_grayscale(pixels)
