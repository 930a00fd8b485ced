"""Checkpoints: one safetensors file each, with everything that is not a tensor as JSON in its header.

A file gets its name by one rename after it is on the disk, so a file of that name is whole. No pickle.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graphrec.errors import RunError

_FORMAT = "graphrec-checkpoint-1"
_KEEP = 2


def encode(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """A JSON form of nested dicts, lists, tuples, numbers, strings and arrays; tensors go to ``tensors``.

    Raises:
        RunError: A value is of another type.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return {"$": "tensor", "key": _add_tensor(value, tensors, path)}
    if isinstance(value, np.ndarray):
        return {"$": "array", "dtype": value.dtype.str, "items": value.tolist()}
    if isinstance(value, dict):
        return {"$": "dict", "items": [[k, encode(v, tensors, f"{path}/{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [encode(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"$": "tuple", "items": items}
    raise RunError(
        f"checkpoint: cannot save {path}, a {type(value).__name__}; use tensors, numbers or strings"
    )


def _add_tensor(value: Tensor, tensors: dict[str, Tensor], path: str) -> str:
    value = value.detach().cpu().contiguous()
    for key, other in tensors.items():
        if other.data_ptr() == value.data_ptr() and other.shape == value.shape and other.dtype == value.dtype:
            return key
    if value.untyped_storage().nbytes() != value.numel() * value.element_size():
        value = value.clone()
    tensors[path] = value
    return path


def decode(value: Any, get: Callable[[str], Tensor]) -> Any:
    """The inverse of `encode`; ``get`` fetches a tensor by its key."""
    if isinstance(value, list):
        return [decode(v, get) for v in value]
    if not isinstance(value, dict):
        return value
    if value["$"] == "tensor":
        return get(value["key"])
    if value["$"] == "array":
        return np.array(value["items"], dtype=value["dtype"])
    if value["$"] == "tuple":
        return tuple(decode(v, get) for v in value["items"])
    return {k: decode(v, get) for k, v in value["items"]}


def write_tree(path: Path, tree: dict[str, Any]) -> None:
    """Write a tree so that ``path`` is either the whole new file or what it was before.

    Raises:
        RunError: It cannot be written, or holds values that a checkpoint cannot.
    """
    tensors: dict[str, Tensor] = {}
    state = json.dumps(encode(tree, tensors))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={"format": _FORMAT, "state": state})
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the disk may be full; a later save removes what is left
            temporary.unlink()
        raise RunError(f"{path}: the checkpoint cannot be written: {' '.join(str(error).split())}") from None


def read_tree(path: Path) -> dict[str, Any]:
    """Read what `write_tree` wrote.

    Raises:
        RunError: The file is damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise RunError(f"{path}: not a checkpoint that this version reads ({header.get('format')!r})")
            # A tensor of the file lies where the file has it; a copy is aligned, as freshly made ones are,
            # without which vectorised sums need not be the same to the last bit.
            return decode(json.loads(header["state"]), lambda key: file.get_tensor(key).clone())
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"{path}: the checkpoint cannot be read: {' '.join(str(error).split())}") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class CheckpointFolder:
    """The checkpoints of one run, newest last; two are kept.

    Args:
        folder: Made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cost = 0.0
        """Seconds that the last `save` took."""

    def files(self) -> list[Path]:
        """Checkpoint files in the order of their steps."""
        return sorted(self.folder.glob("epoch*-step*.safetensors"))

    def save(self, tree: dict[str, Any], epoch: int, step: int) -> Path:
        """Write a checkpoint and remove what it replaces.

        Raises:
            RunError: It cannot be written; those before it are left.
        """
        start = time.perf_counter()
        path = self.folder / f"epoch{epoch:05d}-step{step:09d}.safetensors"
        try:
            write_tree(path, tree)
        except RunError as error:
            before = [file.name for file in self.files()]
            if not before:
                raise
            raise RunError(f"{error}; mend that, and --resume goes on from {before[-1]}") from None
        self.prune(_KEEP)
        self.cost = time.perf_counter() - start
        return path

    def prune(self, keep: int) -> None:
        """Remove all but the newest, and what a killed process left half written."""
        for old in [*self.files()[:-keep], *self.folder.glob(".epoch*.tmp")]:
            old.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, or None when there is none.

        Raises:
            RunError: There are some and none can be read.
        """
        problem: RunError | None = None
        for path in reversed(self.files()):
            if problem is not None:
                warnings.warn(f"{problem}; trying the one before it", stacklevel=2)
            try:
                return read_tree(path)
            except RunError as error:
                problem = error
        if problem is not None:
            raise RunError(f"{problem}; there is none before it, so the run must be started afresh")
        return None


def copy_tensors(tree: dict[str, Any]) -> dict[str, Any]:
    """A state dict whose tensors are copies."""
    return {key: v.detach().clone() if isinstance(v, Tensor) else v for key, v in tree.items()}


@torch.no_grad()
def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """In words, the keys whose values differ."""
    return [
        f"{key} is {here.get(key)!r} here and {there.get(key)!r} in the checkpoint"
        for key in dict.fromkeys([*here, *there])
        if here.get(key) != there.get(key)
    ]
