"""Who sees whom: one vocabulary for sequences, images, selected keys and packed batches.

>>> from graphrec.kernels.patterns import Causal, Neighborhood, Packed, Window, Global
>>> Window(1, 0).mask(3, 3).int().tolist()
[[1, 0, 0], [1, 1, 0], [0, 1, 1]]
>>> Packed((0, 3, 5)) & Causal()
Segments((3, 2)) & Causal()
"""

from .base import Pattern
from .combine import And, Or, PerHead
from .grid import Halo, Neighborhood, Windows, stripes
from .lists import BlockLists, Blocks, KeyPadding, Tokens
from .parse import decode, encode
from .plan import BlockPlan, TilePlan
from .regions import Regions
from .sequence import Causal, Full, Global, Packed, Segments, Streaming, Strided, Window
from .start import FromStart, PooledCausal

__all__ = [
    "And",
    "BlockLists",
    "BlockPlan",
    "Blocks",
    "Causal",
    "FromStart",
    "Full",
    "Global",
    "Halo",
    "KeyPadding",
    "Neighborhood",
    "Or",
    "Packed",
    "Pattern",
    "PerHead",
    "PooledCausal",
    "Regions",
    "Segments",
    "Streaming",
    "Strided",
    "TilePlan",
    "Tokens",
    "Window",
    "Windows",
    "decode",
    "encode",
    "stripes",
]
