"""Decoded pictures, each decoded and scaled once: in memory, or in a memory-mapped array that stays."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from graphrec.errors import DataError

from ..folder_cache import publish, scratch, touch, user_cache, writable
from .container import ImageSet
from .preprocess import Preprocess
from .stores import DecodedStore, MappedStore

VERSION = 1
"""Part of every key: raise it when decoding the same file gives something else."""

ROOM = 1 << 30
"""Bytes that decoded pictures may take in memory."""

_CHUNK = 256


def decode_images(images: ImageSet, prep: Preprocess, room: int = ROOM) -> ImageSet:
    """The same set with its pictures decoded in memory, at the size of a model's input.

    What evaluation sees is the same to the bit where ``prep`` cuts no margin off (``crop_pct`` of 1). Sets
    that lie in an array already are returned as they are, and so are those that take more than ``room``.

    Args:
        images: The set.
        prep: Says the size.
        room: Bytes that the pictures may take.

    Raises:
        DataError: A file is broken.
    """
    shape = (len(images), prep.channels, *prep.size)
    if images.fixed or math.prod(shape) > room:
        return images
    pixels = torch.empty(shape, dtype=torch.uint8)
    for start, part in _decoded(images, prep):
        pixels[start : start + len(part)] = part
    store = DecodedStore(pixels, images.names, f"{images.store.digest()} decoded {prep}")
    return replace(images, store=store, rows=torch.arange(len(images)), facts={})


def cache_images(images: ImageSet, prep: Preprocess, cache_dir: str | Path | None = None) -> ImageSet:
    """The same set with its pictures decoded in a memory-mapped file; made once, found again after.

    They are kept at the size from which evaluation cuts its crop (``prep.size`` over ``prep.crop_pct``), so
    evaluation sees the same pixels with and without a cache (where an odd number of pixels is cut off, those
    of a crop one pixel aside). Training with random crops sees the same part of a picture that evaluation
    would cut from: what is outside the square in the middle is gone, unless ``crop_mode`` is "squash".

    Args:
        images: The set.
        prep: Says the size.
        cache_dir: A folder for caches; the user's by default.

    Raises:
        DataError: A file is broken, or the folder has no room or cannot be written.
    """
    store = Path(cache_dir).expanduser() if cache_dir is not None else user_cache("images")
    kept = prep.replace(size=prep.scale_size, crop_pct=1.0)
    target = store / _key(images, kept)
    path = target / "pixels.npy"
    if path.is_file():
        touch(target)
    else:
        _write(images, kept, store, target, bounded=cache_dir is None)
    mapped = MappedStore(path, images.names, target.name)
    return replace(images, store=mapped, rows=torch.arange(len(images)), facts={})


def _key(images: ImageSet, kept: Preprocess) -> str:
    blank = (1.0,) * kept.channels  # the mean fills up a border; without one it comes after the cache
    content = {
        "version": VERSION,
        "store": images.store.digest(),
        "rows": hashlib.sha256(images.rows.numpy().tobytes()).hexdigest(),
        "kept": kept.to_dict()
        if kept.crop_mode == "border"
        else kept.replace(mean=blank, std=blank).to_dict(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _write(images: ImageSet, kept: Preprocess, store: Path, target: Path, bounded: bool) -> None:
    shape = (len(images), kept.channels, *kept.size)
    _check_room(store, math.prod(shape))
    work = scratch(store)
    try:
        pixels = open_memmap(work / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
        for start, part in _decoded(images, kept):
            pixels[start : start + len(part)] = part.numpy()
        pixels.flush()
        del pixels
        publish(work, target, bounded)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _decoded(images: ImageSet, kept: Preprocess) -> Iterator[tuple[int, Tensor]]:
    """First index and pixels of one chunk after the other; threads decode, outside of Python's lock."""
    starts = range(0, len(images), _CHUNK)
    if images.fixed:
        for start in starts:
            index = torch.arange(start, min(start + _CHUNK, len(images)))
            yield start, kept.pixels(images, index)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in starts:
            indices = range(start, min(start + _CHUNK, len(images)))
            done = pool.map(lambda i: kept.geometry(images.pil(i, kept.channels)), indices)
            yield start, torch.stack(list(done))


def _check_room(store: Path, size: int) -> None:
    if not writable(store):
        raise DataError(f"{store}: cannot be written; give another cache_dir")
    free = shutil.disk_usage(store).free
    if size > free:
        raise DataError(
            f"{store}: the decoded images take {size / 2**30:.1f} GiB and {free / 2**30:.1f} are free; "
            "give another cache_dir, or train without a cache"
        )
