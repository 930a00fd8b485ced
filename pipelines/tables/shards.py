"""Encoded rows on disk: one fixed-width ``.npy`` file per array, read through short-lived memory maps.

A map is dropped as soon as its rows are copied out, so resident memory does not grow with what was read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphrec.errors import DataError

from .features import Batch, Features, FeatureSpec

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = 128
_META = "meta.json"


class Block(NamedTuple):
    """Encoded rows as arrays; `Batch` is the same as tensors.

    Attributes:
        categorical: (n, C) int32.
        numeric: (n, N) float32.
        lists: One (n, L) int32 array per list field.
        labels: (n, T) float32, NaN where missing.
        weights: (n,) float32, or None.
        groups: (n,) int64, or None.
    """

    categorical: np.ndarray
    numeric: np.ndarray
    lists: tuple[np.ndarray, ...]
    labels: np.ndarray
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the names of their files."""
        out = {"categorical": self.categorical, "numeric": self.numeric, "labels": self.labels}
        out |= {f"list_{i:03d}": a for i, a in enumerate(self.lists)}
        optional = {"weights": self.weights, "groups": self.groups}
        return out | {k: a for k, a in optional.items() if a is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Block:
        """The inverse of `arrays`."""
        lists = tuple(arrays[k] for k in sorted(arrays) if k.startswith("list_"))
        one = (arrays["categorical"], arrays["numeric"], lists, arrays["labels"])
        return cls(*one, arrays.get("weights"), arrays.get("groups"))

    def rows(self, start: int, stop: int) -> Block:
        """Rows start to stop, as views."""
        return self.map(lambda a: a[start:stop])

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Block:
        """A block of ``change(array)`` for every array."""
        return Block.from_arrays({k: change(a) for k, a in self.arrays().items()})

    def to_batch(self) -> Batch:
        """The rows as tensors that share the arrays' memory."""
        import torch

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array))

        features = Features(
            tensor(self.categorical), tensor(self.numeric), tuple(tensor(a) for a in self.lists)
        )
        weights = None if self.weights is None else tensor(self.weights)
        groups = None if self.groups is None else tensor(self.groups)
        return Batch(features, tensor(self.labels), weights, groups)


def concatenate(blocks: Sequence[Block]) -> Block:
    """Rows of several blocks one after the other."""
    if len(blocks) == 1:
        return blocks[0]
    parts = [b.arrays() for b in blocks]
    return Block.from_arrays({k: np.concatenate([p[k] for p in parts]) for k in parts[0]})


class ArrayWriter:
    """Appends rows to a ``.npy`` file whose length is known only at the end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(b"\0" * _HEADER)
        self._dtype, self._shape, self._rows = np.dtype(np.float32), (), 0
        self._digest = hashlib.sha256()

    def append(self, rows: np.ndarray) -> None:
        """Write rows; all calls take the same dtype and width."""
        self._dtype, self._shape = rows.dtype, rows.shape[1:]
        self._rows += len(rows)
        data = np.ascontiguousarray(rows).data.cast("B") if rows.size else b""
        self._digest.update(data)
        self._file.write(data)

    def close(self) -> str:
        """Write the header; returns the digest of the rows."""
        shape = (self._rows, *self._shape)
        entry = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        text = repr(entry).encode().ljust(_HEADER - 11) + b"\n"
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text)
        self._file.close()
        self._digest.update(text)
        return self._digest.hexdigest()


class ShardWriter:
    """Writes blocks of one part into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.rows = folder, 0
        self._writers: dict[str, ArrayWriter] = {}

    def append(self, block: Block) -> None:
        """Write the rows of a block."""
        for name, array in block.arrays().items():
            if name not in self._writers:
                self._writers[name] = ArrayWriter(self.folder / f"{name}.npy")
            self._writers[name].append(array)
        self.rows += len(block)

    def close(self) -> None:
        """Complete the files."""
        digests = {name: self._writers[name].close() for name in sorted(self._writers)}
        meta = {"rows": self.rows, "arrays": digests}
        (self.folder / _META).write_text(json.dumps(meta), encoding="utf-8")


class _MappedArray:
    """A ``.npy`` file, held open, of which slices are copied out.

    Raises:
        DataError: The file is missing, damaged, or was cut short.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
                self._start = file.tell()
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: is no file of encoded rows ({error})") from error
        self._row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if path.stat().st_size != self._start + self.shape[0] * self._row:
            raise DataError(f"{path}: was cut short; encode the rows again")
        self._file = path.open("rb")
        self.closer = weakref.finalize(self, self._file.close)

    @property
    def row_bytes(self) -> int:
        return self._row

    def _map(self, start: int, stop: int) -> tuple[mmap.mmap, np.ndarray]:
        begin = self._start + start * self._row
        aligned = begin - begin % mmap.ALLOCATIONGRANULARITY
        length = begin - aligned + (stop - start) * self._row
        mapped = mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_READ, offset=aligned)
        shape = (stop - start, *self.shape[1:])
        count = int(np.prod(shape, dtype=np.int64))
        return mapped, np.frombuffer(mapped, self.dtype, count, begin - aligned).reshape(shape)

    def read(self, start: int, stop: int) -> np.ndarray:
        """A copy of rows start to stop."""
        out = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        self.read_into(out, start)
        return out

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Copy rows from ``start`` on into ``out``, as many as it has."""
        if not len(out) or not self._row:
            return
        mapped, view = self._map(start, start + len(out))
        out[:] = view
        del view
        mapped.close()

    def gather(self, spans: Sequence[tuple[int, int]], rows: int) -> np.ndarray:
        """A copy of the rows of spans, ``rows`` in all."""
        out, at = np.empty((rows, *self.shape[1:]), self.dtype), 0
        for start, stop in spans:
            self.read_into(out[at : at + stop - start], start)
            at += stop - start
        return out

    def take(self, index: np.ndarray) -> np.ndarray:
        """A copy of the rows at the indices."""
        if not len(index) or not self._row:
            return np.zeros((len(index), *self.shape[1:]), self.dtype)
        low = int(index.min())
        mapped, view = self._map(low, int(index.max()) + 1)
        out = view[index - low]
        del view
        mapped.close()
        return out


class EncodedTable:
    """Encoded rows of one part.

    Args:
        folder: Where `ShardWriter` put them.
        spec: Their fields and labels.
        counts: Training rows by id, for each vocabulary.
        temporary: Folder to remove when this table is no longer used.

    Raises:
        DataError: A file in the folder is missing or damaged.
    """

    def __init__(
        self, folder: Path, spec: FeatureSpec, counts: Mapping[str, np.ndarray], temporary: Path | None = None
    ) -> None:
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
            rows, self._digests = int(meta["rows"]), dict(meta["arrays"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder / _META}: says nothing of the encoded rows ({error})") from error
        self.folder, self.spec, self._counts, self._rows = folder, spec, dict(counts), rows
        self._arrays = {name: _MappedArray(folder / f"{name}.npy") for name in self._digests}
        if temporary is not None:
            _TEMPORARY.setdefault(temporary, 0)
            _TEMPORARY[temporary] += 1
            weakref.finalize(self, _release, temporary)

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"EncodedTable({self._rows:,} rows, {len(self.spec.fields)} fields, {self.folder})"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return sum(a.row_bytes for a in self._arrays.values())

    def block(self, start: int, stop: int) -> Block:
        """Rows start to stop as arrays."""
        start, stop, _ = slice(start, stop).indices(self._rows)
        return Block.from_arrays({k: a.read(start, stop) for k, a in self._arrays.items()})

    def gather(self, spans: Sequence[tuple[int, int]]) -> Block:
        """Rows of several spans one after the other as arrays, without a second copy."""
        spans = [slice(*span).indices(self._rows)[:2] for span in spans]
        rows = sum(stop - start for start, stop in spans)
        return Block.from_arrays({k: a.gather(spans, rows) for k, a in self._arrays.items()})

    def read(self, start: int, stop: int) -> Batch:
        """Rows start to stop as tensors."""
        return self.block(start, stop).to_batch()

    def take(self, index: Any) -> Batch:
        """The rows at integer indices as tensors.

        Raises:
            IndexError: An index is outside the table.
        """
        index = np.asarray(index, np.int64)
        if len(index) and (index.min() < -self._rows or index.max() >= self._rows):
            raise IndexError(f"row {int(index.max())} of a table with {self._rows} rows")
        index = np.where(index < 0, index + self._rows, index)
        return Block.from_arrays({k: a.take(index) for k, a in self._arrays.items()}).to_batch()

    def labels(self) -> np.ndarray:
        """(N, T) float32 labels, NaN where missing."""
        return self._arrays["labels"].read(0, self._rows)

    def weights(self) -> np.ndarray | None:
        """(N,) float32 weights, or None."""
        return self._arrays["weights"].read(0, self._rows) if "weights" in self._arrays else None

    def groups(self) -> np.ndarray | None:
        """(N,) int64 group ids, or None."""
        return self._arrays["groups"].read(0, self._rows) if "groups" in self._arrays else None

    def counts(self) -> dict[str, np.ndarray]:
        """Training rows by id, (size,) int64, for each vocabulary."""
        return dict(self._counts)

    def fingerprint(self) -> str:
        """Hexadecimal digest of the fields and of all rows in their order, wherever they were read from."""
        about = {"spec": self.spec.to_dict(), "rows": self._rows, "arrays": self._digests}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


_TEMPORARY: dict[Path, int] = {}
"""Temporary folders with the number of tables that use them."""


def _release(folder: Path) -> None:
    _TEMPORARY[folder] -= 1
    if _TEMPORARY[folder] <= 0:
        del _TEMPORARY[folder]
        shutil.rmtree(folder, ignore_errors=True)
