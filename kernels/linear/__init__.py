"""Attention without softmax, linear in the length."""

from .operator import linear_attention

__all__ = ["linear_attention"]
