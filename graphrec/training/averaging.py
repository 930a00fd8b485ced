"""A moving average of the weights, evaluated and kept in their place.

After step t the average is ``e <- d e + (1 - d) w`` with ``d = min(decay, (1 + t) / (10 + t))``, so that it
soon forgets the start and spans the last tenth of the steps, until ``decay`` limits it (Polyak, Juditsky,
1992; the schedule is that of TensorFlow's ``ExponentialMovingAverage``). It takes out of the weights how the
last batches happened to push them.

A table with row gradients is averaged lazily. While a row stays as it is, its offset ``e - w`` shrinks by the
d of each step, whichever row it is. What is kept is the offset over the product p of all d so far, which
changes with the row alone: where the row changes by v, ``v / p`` is taken from it. So a step costs what its
batch touches. When p gets too small for that, all rows take it up and it is one again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .huge_pages import full_table
from .sparse import RowOptimizer

_CHUNK = 1 << 18
"""Rows of a table whose average is made at a time."""
_LEAST = 1e-8
"""Product of the decays below which the offsets take it up, which reads and writes whole tables."""


class WeightAverage:
    """The average of all weights that train, and of all statistics.

    Tables follow their optimisers; call `after` for the rest when a step is over. Several processes keep the
    same average, since they make the same steps.

    Args:
        model: It stays as it is, but inside `applied`. Nothing but the optimisers may change its tables.
        decay: Of the average, in (0, 1); it spans at most some ``1 / (1 - decay)`` steps.
        optimizers: All that train the model; the parameters of a `RowOptimizer` are tables.
    """

    def __init__(self, model: nn.Module, decay: float, optimizers: Sequence[Optimizer]) -> None:
        self.decay = decay
        lazy = [one for one in optimizers if isinstance(one, RowOptimizer)]
        rows = {id(p) for one in lazy for group in one.param_groups for p in group["params"]}
        whole = {name: one for name, one in model.state_dict(keep_vars=True).items() if _averaged(one)}
        self._tables = {name: one for name, one in whole.items() if id(one) in rows}
        self._dense = {name: one.detach() for name, one in whole.items() if id(one) not in rows}
        self._averages = {name: one.clone() for name, one in self._dense.items()}
        self._offsets = {n: full_table(*p.shape, value=0.0, like=p.detach()) for n, p in self._tables.items()}
        self._step, self._product = 0, 1.0
        of = {id(p): self._offsets[name] for name, p in self._tables.items()}
        for one in lazy:
            one.on_change = lambda table, rows, change: self._follow(of[id(table)], rows, change)

    def _follow(self, offsets: Tensor, rows: Tensor, change: Tensor) -> None:
        """Distinct rows (u,) of a table have changed by ``change`` (u, d)."""
        found = offsets.index_select(0, rows)
        offsets.index_copy_(0, rows, found.sub_(change, alpha=1 / self._product))

    @torch.no_grad()
    def after(self) -> None:
        """Follow the step."""
        self._step += 1
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        if self._dense:
            torch._foreach_lerp_(list(self._averages.values()), list(self._dense.values()), 1 - decay)
        self._product *= decay
        if self._product < _LEAST:
            for offsets in self._offsets.values():
                offsets *= self._product
            self._product = 1.0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in the model; afterwards its weights again, to the last bit.

        They are kept in the average's own place meanwhile, which then holds offsets rounded once more.
        """
        self._exchange()
        with torch.no_grad():
            for table, offsets in self._chunks():
                weights = table.clone()
                table.add_(offsets, alpha=self._product)
                offsets.copy_(weights)
        try:
            yield
        finally:
            self._exchange()
            with torch.no_grad():
                for table, weights in self._chunks():
                    offsets = table.sub(weights).div_(self._product)
                    table.copy_(weights)
                    weights.copy_(offsets)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages into the model."""
        for name, one in self._dense.items():
            one.copy_(self._averages[name])
        for table, offsets in self._chunks():
            table.add_(offsets, alpha=self._product)

    def _exchange(self) -> None:
        """The weights that are not tables for their averages, and back."""
        for name, one in self._dense.items():
            weight = one.clone()
            one.copy_(self._averages[name])
            self._averages[name].copy_(weight)

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows of a table at a time, and what is kept of them."""
        for name, table in self._tables.items():
            yield from zip(table.detach().split(_CHUNK), self._offsets[name].split(_CHUNK), strict=True)

    def state_dict(self) -> dict[str, Any]:
        """All that decides how it goes on, as tensors and numbers."""
        return {
            "step": self._step,
            "product": self._product,
            "averages": self._averages,
            "offsets": self._offsets,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._step, self._product = state["step"], state["product"]
        for name in ("averages", "offsets"):
            for key, one in getattr(self, f"_{name}").items():
                one.copy_(state[name][key])


def _averaged(one: Tensor) -> bool:
    """Weights that train, and statistics; not counts, and nothing that is frozen."""
    return one.is_floating_point() and (one.requires_grad or not isinstance(one, nn.Parameter))
