"""A short text that tells whether data are the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphrec.pipelines.recipes import TableSource

_BLOCK = 1 << 20
_NAMES = ("name", "notes")
"""Fields that hold paths, which differ between machines."""


def fingerprint(data: Any) -> str:
    """SHA-256 of what a source gave: every tensor, number and text in it, or the bytes of a table's file.

    A table that is no single local file is told by its address alone.
    """
    digest = hashlib.sha256()
    _feed(digest, data)
    return digest.hexdigest()[:32]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, TableSource):
        _feed_file(digest, Path(value.path))
        _feed(digest, value.arguments)
    elif isinstance(value, torch.Tensor):
        _feed(digest, value.detach().cpu().numpy())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(
            np.ascontiguousarray(value).tobytes() if value.dtype != object else repr(value).encode()
        )
    elif callable(getattr(value, "fingerprint", None)):
        digest.update(value.fingerprint().encode())
    elif hasattr(value, "to_dict") and not dataclasses.is_dataclass(value):
        _feed(digest, value.to_dict())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [one.name for one in dataclasses.fields(value) if one.name not in _NAMES]
        _feed(digest, {name: getattr(value, name) for name in fields})
    elif isinstance(value, Mapping):
        for key in sorted(map(str, value)):
            digest.update(key.encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}]".encode())
        for one in value:
            _feed(digest, one)
    else:
        digest.update(repr(value).encode())


def _feed_file(digest: Any, path: Path) -> None:
    if not path.is_file():
        digest.update(str(path).encode())
        return
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
