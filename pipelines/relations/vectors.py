"""Vectors of words from a text file in the manner of GloVe and word2vec, or from a numpy file and a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import DataError

from .text_files import read_lines


def read_vectors(
    path: str | Path, words: Sequence[str], *, names: str | Path | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors of the words of a vocabulary.

    A text file, plain or gzipped, holds a word and its numbers in each line, parted by single spaces; a first
    line of two whole numbers, as word2vec writes, is passed over. A ``.npy`` file holds a matrix (W, D), and
    ``names`` its words, one in each line.

    Args:
        path: The file.
        words: The vocabulary, V words.
        names: Words of the rows of a ``.npy`` file.

    Returns:
        Vectors (V, D), zeros for words that the file lacks, and which it has (V,).

    Raises:
        DataError: The file is broken, names the line, or has none of the words.
    """
    place = {word: i for i, word in enumerate(words)}
    found = _from_numpy(path, place, names) if Path(path).suffix == ".npy" else _from_text(path, place)
    if not found:
        raise DataError(f"{path}: has a vector for none of the {len(words)} words")
    width = len(next(iter(found.values())))
    vectors, known = np.zeros((len(words), width), np.float32), np.zeros(len(words), bool)
    for i, vector in found.items():
        vectors[i], known[i] = vector, True
    return vectors, known


def _from_text(path: str | Path, place: dict[str, int]) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    width = 0
    for number, line in enumerate(read_lines(path), 1):
        parts = line.rstrip().split(" ")
        if (number == 1 and len(parts) == 2 and all(map(str.isdecimal, parts))) or not line.strip():
            continue
        width = width or len(parts) - 1
        if len(parts) - 1 != width or not width:
            raise DataError(
                f"{path}: line {number}: has {len(parts) - 1} numbers, the first line has {width}; a word "
                "and its numbers must be parted by single spaces"
            )
        if parts[0] not in place:
            continue
        try:
            found[place[parts[0]]] = np.array(parts[1:], np.float32)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: holds something that is no number ({error})") from error
        if not np.isfinite(found[place[parts[0]]]).all():
            raise DataError(f"{path}: line {number}: the vector of {parts[0]!r} is not finite")
    return found


def _from_numpy(
    path: str | Path, place: dict[str, int], names: str | Path | None
) -> dict[int, NDArray[np.float32]]:
    if names is None:
        raise DataError(f"{path}: a .npy file needs names=, a text file with the word of each row")
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a numpy array ({error})") from error
    lines = read_lines(names)
    if matrix.ndim != 2 or len(matrix) != len(lines) or not np.issubdtype(matrix.dtype, np.floating):
        raise DataError(
            f"{path}: holds {matrix.dtype} of shape {matrix.shape}; must be numbers of shape ({len(lines)}, "
            f"width), a row for each line of {names}"
        )
    wrong = ~np.isfinite(matrix).all(1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{path}: row {row + 1}: the vector of {lines[row]!r} is not finite")
    return {
        place[word]: row.astype(np.float32) for word, row in zip(lines, matrix, strict=True) if word in place
    }
