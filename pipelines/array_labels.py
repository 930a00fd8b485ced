"""Labels given as a list or an array, one for each thing that is classified."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import DataError


def label_codes(y: Any, count: int) -> tuple[NDArray[Any], Tensor]:
    """Sorted names of the classes of so many labels, and the number of each label's, int64 (count,).

    Raises:
        DataError: There are more or fewer, they are no list, one is missing, or they are of several kinds.
    """
    values = np.asarray(y)
    if values.shape != (count,):
        raise DataError(f"y has shape {values.shape}, must be ({count},)")
    if values.dtype.kind not in "biufUOT":
        raise DataError(f"y: holds {values.dtype}; labels should be whole numbers or texts")
    missing = np.array([one is None or one != one for one in values.tolist()], dtype=bool)
    if missing.any():
        row = int(missing.argmax())
        raise DataError(f"y: row {row} has no label ({values[row]}); label it or leave it out")
    try:
        names, codes = np.unique(values, return_inverse=True)
    except TypeError:
        kinds = sorted({type(one).__name__ for one in values.tolist()})
        raise DataError(f"y: labels are of several kinds ({', '.join(kinds)}); take one") from None
    return names, torch.from_numpy(codes.astype(np.int64))
