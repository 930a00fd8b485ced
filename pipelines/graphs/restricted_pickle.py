"""Read arrays out of old pickles without running what a pickle may run.

A pickle is a program; loading one can start any command. This reader knows a few harmless things and refuses
the rest: lists and dicts, bytes, numpy arrays and their types, and the fields of a SciPy CSR matrix.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphrec.errors import DataError


class CSRFields:
    """What a pickled CSR matrix holds; an inert stand-in for SciPy's class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.fields = state

    def dense(self, name: str) -> np.ndarray:
        """The matrix, float32 (rows, columns).

        Raises:
            DataError: Its fields do not belong together.
        """
        try:
            rows, columns = (int(n) for n in self.fields["_shape"])
            data, indices, indptr = (np.asarray(self.fields[k]) for k in ("data", "indices", "indptr"))
            return csr_to_dense(data, indices, indptr, (rows, columns), name)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{name}: its matrix lacks a field ({error}); fetch the file again") from error


def csr_to_dense(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int], name: str
) -> np.ndarray:
    """A matrix from compressed rows, float32 (rows, columns).

    Raises:
        DataError: The parts contradict each other.
    """
    rows, columns = shape
    fits = (
        len(indptr) == rows + 1 and len(indptr) and indptr[0] == 0 and indptr[-1] == len(indices) == len(data)
    )
    if not fits or bool((np.diff(indptr) < 0).any()):
        raise DataError(f"{name}: its row pointers do not fit {rows} rows; fetch the file again")
    if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
        raise DataError(f"{name}: a column is outside 0 to {columns - 1}; fetch the file again")
    dense = np.zeros(shape, np.float32)
    np.add.at(dense, (np.repeat(np.arange(rows), np.diff(indptr)), indices), data)
    return dense


def _latin1(text: Any, encoding: Any = None) -> bytes:
    """How Python 3 writes bytes into pickles for Python 2; every other use of the codecs is refused."""
    if not isinstance(text, str) or encoding != "latin1":
        raise DataError("holds a codec's call that makes no bytes; it is refused")
    return text.encode("latin1")


_RECONSTRUCT: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    ("collections", "defaultdict"): defaultdict,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("scipy.sparse.csr", "csr_matrix"): CSRFields,
    ("scipy.sparse._csr", "csr_matrix"): CSRFields,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(f"holds {module}.{name}, which is not an array; it is refused unread")
        return _ALLOWED[module, name]


def load_arrays(path: str | Path) -> Any:
    """Lists, dicts, numpy arrays and `CSRFields` from a pickle of Python 2 or 3.

    Raises:
        DataError: The file is missing, cut short, or holds anything else; nothing of it has then been run.
    """
    try:
        with open(path, "rb") as file:
            return _Reader(file, encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a broken pickle can fail in any way
        raise DataError(
            f"{path}: broken or cut short ({type(error).__name__}: {error}); fetch it again"
        ) from error
