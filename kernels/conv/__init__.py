"""Convolutions along a sequence, and filters made from the data."""

from .causal import causal_conv1d
from .dynamic import dynamic_conv2d
from .long import long_conv
from .volo import outlook

__all__ = ["causal_conv1d", "dynamic_conv2d", "long_conv", "outlook"]
