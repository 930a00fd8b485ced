"""Freed memory stays with a process that trains on a CPU.

Every step allocates and frees the same tensors. When the end of its heap falls free, glibc's malloc gives it
back to the system, and the next step takes it again, page by page, each of them a fault and a page to clear.
Whether that happens depends on what happens to lie at the end of the heap, so the same training takes longer
in some runs than in others; `benchmarks/graph_training.py` runs with and without.

With fixed thresholds (``man 3 mallopt``) the process keeps up to `KEPT` free bytes at the end of a heap, and
takes blocks below `MAPPED`, the most that glibc allows and where its own moving threshold ends as well, from
the heap. Larger ones go back to the system at once, as ever.
"""

from __future__ import annotations

import ctypes
import os

from .c_library import c_function

KEPT = 256 << 20
"""Bytes."""
MAPPED = 32 << 20
"""Bytes."""
VARIABLE = "GRAPHREC_KEEP_FREED"
"""Environment variable; ``0`` leaves malloc alone."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Set the thresholds for the whole process, as the trainer does before it trains on a CPU.

    Left alone: other libraries than glibc, a process whose environment sets thresholds of its own
    (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``), and one with
    ``GRAPHREC_KEEP_FREED=0``.

    Returns:
        Whether they are set.
    """
    own = any(os.environ.get(f"MALLOC_{name}_THRESHOLD_") for name in ("TRIM", "MMAP"))
    own = own or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    mallopt = c_function("mallopt", ctypes.c_int, ctypes.c_int)
    if own or os.environ.get(VARIABLE) == "0" or mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED) and mallopt(_TRIM_THRESHOLD, KEPT))
