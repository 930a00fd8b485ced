"""Keys and values with all that is said about them: one source of a joint softmax."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from torch import Tensor

from ..patterns import Pattern
from .bias import RelativeBias

Weights: TypeAlias = Tensor | RelativeBias
"""A number per pair: a tensor broadcastable to (B, H, Lq, Lk), or numbers by distance."""


class Source(NamedTuple):
    """Keys and values that share a softmax with others; see :func:`graphrec.kernels.joint_attention`.

    Attributes:
        k: (B, Hkv, Lk, D).
        v: (B, Hkv, Lk, Dv).
        pattern: which of these keys a query sees; None is all.
        bias: added to the logits.
        times: multiplied with the probabilities after the softmax.
        plus: added to the probabilities after the softmax.
    """

    k: Tensor
    v: Tensor
    pattern: Pattern | None = None
    bias: Weights | None = None
    times: Weights | None = None
    plus: Weights | None = None
