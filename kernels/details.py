"""How operators compute, for :func:`graphrec.kernels.explain`: one function per operator with more to tell.

Each takes the backend and the operator's arguments by name, and gives facts by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .attention.torch import route
from .backends import interpreting
from .configs import attention_config, origin, padded
from .patterns import Pattern


def attention(chosen: str, /, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, **_: Any) -> dict[str, Any]:
    """Density of the pattern; tiles of the kernels, or the groups that torch gathers."""
    lengths = q.shape[2], k.shape[2]
    facts: dict[str, Any] = {"pattern": pattern, "density": round(pattern.density(*lengths), 6)}
    if chosen == "triton":
        dim = max(q.shape[3], v.shape[3])
        config = attention_config(dim, q.dtype, interpreting())
        plan = pattern.tiles(*lengths, config.bm, config.bn)
        facts |= {"tiles": f"{config.bm} x {config.bn}", "tiles computed": round(plan.tile_density, 6)}
        facts |= {"warps": config.warps, "stages": config.stages}
        facts["settings from"] = origin("attention", padded(dim), q.dtype, interpreting())
    elif chosen == "torch":
        found = route(pattern, *lengths, q.device, q.dtype)
        facts["route"] = "all pairs, masked" if found is None else _groups(found.q_index, found.k_index)
    return facts


def _groups(q_index: Tensor, k_index: Tensor) -> str:
    return f"{q_index.shape[0]} groups of {q_index.shape[1]} queries by {k_index.shape[-1]} keys"


DETAILS: dict[str, Callable[..., dict[str, Any]]] = {"attention": attention}
"""Operator to what tells more about it."""
