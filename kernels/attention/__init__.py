"""Softmax attention under a pattern."""

from .bias import RelativeBias
from .merging import merge
from .operator import attention, joint_attention
from .source import Source

__all__ = ["RelativeBias", "Source", "attention", "joint_attention", "merge"]
