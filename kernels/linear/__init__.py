"""Attention without softmax, linear in the length, and recurrences of matrices."""

from .delta import delta_rule
from .gated import gated_linear_attention
from .operator import linear_attention

__all__ = ["delta_rule", "gated_linear_attention", "linear_attention"]
