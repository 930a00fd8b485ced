"""Launch settings of the scan kernels, from static limits; not yet measured on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from ..configs import tabled

PROGRAMS = 512
"""How many programs keep a GPU busy: some four for each of its multiprocessors."""


@dataclass(frozen=True)
class ScanConfig:
    """Steps and channels of a tile, and warps."""

    bt: int
    bd: int
    warps: int

    def blocks(self, width: int) -> int:
        """Blocks of channels."""
        return -(-width // self.bd)


@tabled("scan", by="width")
def scan_config(width: int, interpreted: bool = False) -> ScanConfig:
    """Settings of :func:`graphrec.kernels.scan`: 64 channels of bfloat16 are one line of memory.

    The interpreter combines element by element, so its tiles are small.
    """
    if interpreted:
        return ScanConfig(8, 4, 1)
    return ScanConfig(32, 64 if width > 32 else 32, 4)


@tabled("selective_scan", by="width")
def selective_config(width: int, interpreted: bool = False) -> ScanConfig:
    """Settings of :func:`graphrec.kernels.selective_scan`; states are kept at every ``bt`` positions."""
    if interpreted:
        return ScanConfig(8, 4, 1)
    return ScanConfig(64, 32 if width > 16 else 16, 8)


def splits(programs: int, tiles: int) -> int:
    """Into how many parts to cut a sequence of so many tiles, with so many programs without a cut."""
    return max(1, min(tiles, PROGRAMS // max(programs, 1)))
