"""Numbers for nodes that depend on the graph alone: what breaks ties the same way whatever the node numbers.

Colour refinement (Weisfeiler, Leman 1968) with 64-bit hashes in place of names of colours. Sums of hashes
wrap around, so they are exact and do not depend on the order of edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

_STEP = 0x9E3779B97F4A7C15
_IN, _OUT = np.uint64(0xD1B54A32D192ED03), np.uint64(0x8CB92BA72F3D8DD7)


def mix(x: Hashes) -> Hashes:
    """A bijection of uint64 that spreads every bit (the finaliser of SplitMix64; Steele et al. 2014)."""
    x = x + np.uint64(_STEP)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_hashes(x: NDArray[np.float32]) -> Hashes:
    """One number per row of features, float32 (N, F); equal rows have equal numbers."""
    places = (np.arange(1, x.shape[1] + 1, dtype=np.uint64) * np.uint64(_STEP)).astype(np.uint64)
    found = np.empty(len(x), dtype=np.uint64)
    rows = max(1, (1 << 22) // max(1, x.shape[1]))
    for start in range(0, len(x), rows):
        part = np.ascontiguousarray(x[start : start + rows] + np.float32(0))  # -0 becomes 0
        found[start : start + rows] = mix(part.view(np.uint32).astype(np.uint64) + places).sum(
            1, dtype=np.uint64
        )
    return mix(found)


def sum_hashes(values: Hashes, index: Integers, size: int) -> Hashes:
    """Sums of the mixed values per index, (size,)."""
    total = np.zeros(size, dtype=np.uint64)
    np.add.at(total, index, mix(values))
    return total


def node_colours(x: NDArray[np.float32], source: Integers, target: Integers, rounds: int) -> Hashes:
    """Colours of nodes, (N,): equal where ``rounds`` rounds of message passing cannot tell two nodes apart.

    Directions, loops and repeated edges count, as they do for convolutions.

    Args:
        x: (N, F).
        source, target: Edges, (E,).
        rounds: 0 looks at the features alone.
    """
    colours = row_hashes(x)
    for _ in range(rounds):
        arriving = sum_hashes(colours[source] ^ _IN, target, len(x))
        leaving = sum_hashes(colours[target] ^ _OUT, source, len(x))
        colours = mix(mix(mix(colours) + arriving) + leaving)
    return colours
