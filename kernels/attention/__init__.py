"""Softmax attention under a pattern."""

from .bias import RelativeBias
from .blocks import select_blocks
from .heads import split_heads
from .keylists import gather_attention
from .merging import merge
from .operator import attention, joint_attention
from .source import Source

__all__ = [
    "RelativeBias",
    "Source",
    "attention",
    "gather_attention",
    "joint_attention",
    "merge",
    "select_blocks",
    "split_heads",
]
