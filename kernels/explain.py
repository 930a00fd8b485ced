"""What would run, and why: the choice of backend made visible.

An operator is run up to the point where it has chosen, with its own checks before that, so what is told here
cannot differ from what happens. ``DETAILS`` adds, for operators that have more to tell, how it is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .backends import NO_KERNEL, choice_of
from .details import DETAILS


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
        lines += [f"  not {name}: {why}" for name, why in self.refused.items() if why != self.reason]
        lines += [f"  {name}: {value}" for name, value in self.details.items()]
        return "\n".join(lines)


def explain(operator: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Say which backend would run an operator on these arguments, how, and why another was refused.

    Args:
        operator: a function of this package, such as :func:`graphrec.kernels.attention`.
        args, kwargs: what it would be called with. An operator that is plain torch on every backend, such as
            :func:`graphrec.kernels.merge`, is run.

    Raises:
        ValueError: the arguments do not fit, or a backend was asked for that cannot run.
    """
    name = getattr(operator, "__name__", str(operator))
    found = choice_of(operator, *args, **kwargs)
    if found is None:
        return Explanation(name, "torch", "it is the same plain torch everywhere", {"triton": NO_KERNEL})
    details: dict[str, Any] = {} if found.operator == name else {"computed by": found.operator}
    if describe := DETAILS.get(name):
        given = inspect.signature(operator).bind(*args, **kwargs)
        given.apply_defaults()
        details |= describe(found.choice.backend, **given.arguments)
    return Explanation(name, found.choice.backend, found.choice.reason, found.choice.refused, details)
