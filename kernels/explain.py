"""What would run, and why: the choice of backend made visible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .attention import attention
from .attention.operator import check_inputs, select
from .attention.torch import route
from .backends import choose
from .configs import attention_config
from .patterns import Full, Pattern


@dataclass(frozen=True)
class Explanation:
    """What an operator would do for given arguments; ``str()`` tells it in a few lines.

    Attributes:
        operator: its name.
        backend: what would run.
        reason: why it was chosen.
        refused: why each other backend cannot run.
        details: how it would be computed: tile sizes, density, route.
    """

    operator: str
    backend: str
    reason: str
    refused: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.operator}: {self.backend}, because {self.reason}"]
        lines += [f"  not {name}: {why}" for name, why in self.refused.items()]
        lines += [f"  {name}: {value}" for name, value in self.details.items()]
        return "\n".join(lines)


def explain(operator: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Say which backend would run an operator on these arguments, how, and why another was refused.

    Args:
        operator: a function of this package, such as :func:`graphrec.kernels.attention`.
        args, kwargs: what it would be called with.

    Raises:
        ValueError: the arguments do not fit, or a backend was asked for that cannot run.
    """
    if operator is attention:
        return _explain_attention(*args, **kwargs)
    name = getattr(operator, "__name__", str(operator))
    choice = choose(name, kwargs.get("backend"), {"reference": None, "torch": None})
    return Explanation(name, choice.backend, choice.reason, choice.refused)


def _explain_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern | None = None, **options: Any
) -> Explanation:
    pattern = Full() if pattern is None else pattern
    bias = options.get("bias")
    check_inputs(q, k, v, pattern, bias)
    choice = select(q, k, v, pattern, bias, options.get("backend"))
    lengths = q.shape[2], k.shape[2]
    details: dict[str, Any] = {"pattern": pattern, "density": round(pattern.density(*lengths), 6)}
    if choice.backend == "triton":
        config = attention_config(max(q.shape[3], v.shape[3]), q.dtype)
        plan = pattern.tiles(*lengths, config.bm, config.bn)
        details |= {"tiles": f"{config.bm} x {config.bn}", "tiles computed": round(plan.tile_density, 6)}
    elif choice.backend == "torch":
        found = route(pattern, *lengths, q.device, q.dtype)
        details["route"] = "all pairs, masked" if found is None else _groups(found.q_index, found.k_index)
    return Explanation("attention", choice.backend, choice.reason, choice.refused, details)


def _groups(q_index: Tensor, k_index: Tensor) -> str:
    return f"{q_index.shape[0]} groups of {q_index.shape[1]} queries by {k_index.shape[-1]} keys"
