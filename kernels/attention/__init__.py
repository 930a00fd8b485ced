"""Softmax attention under a pattern."""

from .bias import RelativeBias
from .operator import attention, merge

__all__ = ["RelativeBias", "attention", "merge"]
