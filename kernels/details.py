"""How operators compute, for :func:`graphrec.kernels.explain`: one function per operator with more to tell.

Each takes the backend and the operator's arguments by name, and gives facts by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from math import prod
from typing import Any

import torch
from torch import Tensor

from .attention.dense import FEW
from .attention.regions import routes_of
from .attention.settings import list_config
from .attention.torch import route
from .backends import interpreting
from .configs import attention_config, field_config, origin, padded
from .graph import CSR
from .linear.settings import NONE, SCALAR, VECTOR, linear_config
from .patterns import Pattern
from .scan.settings import scan_config, selective_config


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
        facts["route"] = _route(pattern, q, lengths)
    return facts


def _route(pattern: Pattern, q: Tensor, lengths: tuple[int, int]) -> str:
    """How torch computes attention under a pattern that stands alone, without bias."""
    many = q.shape[0] * q.shape[1]
    if many * lengths[0] * lengths[1] > FEW and (routes := routes_of(pattern, q.device)) is not None:
        regions, size = routes.groups
        return f"{regions} groups of {size} queries by {routes.seen.shape[3] * size} keys"
    found = route(pattern, *lengths, q.device, q.dtype, many)
    return "all pairs, masked" if found is None else _groups(found.q_index, found.k_index)


def _groups(q_index: Tensor, k_index: Tensor) -> str:
    return f"{q_index.shape[0]} groups of {q_index.shape[1]} queries by {k_index.shape[-1]} keys"


def _settings(operator: str, config: Any, dim: int, dtype: torch.dtype | None) -> dict[str, Any]:
    """Launch settings, and where they come from."""
    told = ", ".join(f"{name} {value}" for name, value in asdict(config).items())
    return {"settings": told, "settings from": origin(operator, padded(dim), dtype, interpreting())}


def gather_attention(chosen: str, /, q: Tensor, v: Tensor, index: Tensor, **_: Any) -> dict[str, Any]:
    """How many keys each query lists."""
    facts: dict[str, Any] = {"keys per query": index.shape[3]}
    if chosen == "triton":
        dim = max(q.shape[3], v.shape[3])
        facts |= _settings("gather_attention", list_config(dim, interpreting()), dim, None)
    return facts


def field_attention(chosen: str, /, q: Tensor, v: Tensor, **_: Any) -> dict[str, Any]:
    """How many problems of what size."""
    batch, heads, fields, dim = q.shape
    facts: dict[str, Any] = {"problems": f"{batch * heads} of {fields} fields"}
    if chosen == "triton":
        config = field_config(fields, max(dim, v.shape[3]), q.dtype, interpreting())
        facts |= _settings("field_attention", config, fields, q.dtype)
    return facts


def _linear(name: str, chosen: str, q: Tensor, v: Tensor, chunk: int, decay: int) -> dict[str, Any]:
    if chosen != "triton":
        return {"chunk": chunk} if chosen == "torch" else {}
    config = linear_config(q.shape[3], v.shape[3], q.dtype, decay, interpreting())
    return _settings(name, config, q.shape[3], q.dtype)


def linear_attention(chosen: str, /, q: Tensor, v: Tensor, chunk: int, **_: Any) -> dict[str, Any]:
    """Size of the chunks."""
    return _linear("linear_attention", chosen, q, v, chunk, NONE)


def gated_linear_attention(
    chosen: str, /, q: Tensor, v: Tensor, log_decay: Tensor, chunk: int, **_: Any
) -> dict[str, Any]:
    """Kind of decay, and size of the chunks."""
    vector = log_decay.dim() == 4
    name = "gated_linear_attention" + (" by dimension" if vector else "")
    facts = _linear(name, chosen, q, v, chunk, VECTOR if vector else SCALAR)
    return {"decay": "per dimension" if vector else "per position", **facts}


def scan(chosen: str, /, b: Tensor, **_: Any) -> dict[str, Any]:
    """Steps and channels of a tile."""
    if chosen != "triton":
        return {}
    width = prod(b.shape[2:])
    return _settings("scan", scan_config(width, interpreting()), width, None)


def selective_scan(chosen: str, /, u: Tensor, **_: Any) -> dict[str, Any]:
    """Steps and channels of a tile."""
    if chosen != "triton":
        return {}
    return _settings("selective_scan", selective_config(u.shape[2], interpreting()), u.shape[2], None)


def on_graph(chosen: str, /, graph: CSR, **_: Any) -> dict[str, Any]:
    """Size of the graph."""
    pairs = graph.rows * graph.columns
    share = graph.edges / pairs if pairs else 0.0
    return {"edges": graph.edges, "density": round(share, 6)}


DETAILS: dict[str, Callable[..., dict[str, Any]]] = {
    one.__name__: one
    for one in (
        attention,
        field_attention,
        gated_linear_attention,
        gather_attention,
        linear_attention,
        scan,
        selective_scan,
    )
} | dict.fromkeys(("edge_attention", "edge_softmax", "sddmm", "spmm"), on_graph)
"""Operator to what tells more about it."""
