"""Functions of the C library that torch has no call for."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


@cache
def c_function(name: str, *arguments: Any) -> Any:
    """A function that returns an int, or None where the system is not Linux or its library lacks it.

    Args:
        name: of the function.
        arguments: types of `ctypes`.
    """
    if not sys.platform.startswith("linux"):
        return None
    found = getattr(ctypes.CDLL(None), name, None)
    if found is not None:
        found.argtypes, found.restype = arguments, ctypes.c_int
    return found
