"""Policies: functions that look at queries and keys, or at a learned gate, and return a pattern.

A policy never runs attention and passes no gradient: what it returns says who sees whom, and
:func:`graphrec.kernels.attention` computes it.

>>> import torch
>>> from graphrec.kernels.policies import biformer_routing
>>> q = k = torch.randn(1, 2, 64, 16)
>>> biformer_routing(q, k, (8, 8), 2, topk=4).density(64, 64)
0.25
"""

from .biformer import biformer_region, biformer_routing
from .duo import duo_gates, duo_heads, duo_pattern
from .importance import block_importance
from .psa import Pyramid, psa_levels, psa_pyramid, similar_levels
from .vmoba import vmoba_region, vmoba_selection

__all__ = [
    "Pyramid",
    "biformer_region",
    "biformer_routing",
    "block_importance",
    "duo_gates",
    "duo_heads",
    "duo_pattern",
    "psa_levels",
    "psa_pyramid",
    "similar_levels",
    "vmoba_region",
    "vmoba_selection",
]
