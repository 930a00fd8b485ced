"""A moving average of the weights, evaluated and kept in their place.

After step t the average is ``e <- d e + (1 - d) w`` with ``d = min(decay, (1 + t) / (10 + t))``, so that it
soon forgets the start (Polyak, Juditsky, 1992; the schedule is that of TensorFlow's
``ExponentialMovingAverage``). It takes out of the weights how the last batches happened to push them.

A table with row gradients is averaged lazily. What is kept is the offset ``c = e - w`` of each row and the
step at which the row changed last: while a row stays as it is, its offset only shrinks, by the product of the
d of the steps that passed. So a step costs what its batch touches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .huge_pages import full_table
from .row_gradients import rows_and_values

_CHUNK = 1 << 18
"""Rows of a table whose average is made at a time."""


class WeightAverage:
    """The average of all weights that train, and of all statistics.

    Call `before` and `after` around every optimiser step. Several processes keep the same average, since
    they make the same steps.

    Args:
        model: It stays as it is, but inside `applied`.
        decay: Of the average, in (0, 1); it spans some ``1 / (1 - decay)`` steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        whole = {name: one for name, one in model.state_dict(keep_vars=True).items() if _averaged(one)}
        self._tables = {name: one for name, one in whole.items() if getattr(one, "sparse_rows", False)}
        self._dense = {name: one for name, one in whole.items() if name not in self._tables}
        plain = {name: one.detach() for name, one in whole.items()}
        self._averages = {name: plain[name].clone() for name in self._dense}
        self._offsets = {n: full_table(*plain[n].shape, value=0.0, like=plain[n]) for n in self._tables}
        self._changed = {n: plain[n].new_zeros(len(plain[n]), dtype=torch.int32) for n in self._tables}
        self._step = 0
        self._touched: dict[str, tuple[Tensor, Tensor]] = {}
        warm = max(0, math.ceil((10 * decay - 1) / (1 - decay)))
        steps = torch.arange(1, warm + 1, dtype=torch.float64)
        logs = ((1 + steps) / (10 + steps)).clamp(max=decay).log().cumsum(0)
        self._warm = torch.cat([torch.zeros(1, dtype=torch.float64), logs])

    @torch.no_grad()
    def before(self) -> None:
        """Note the rows that the step is about to change."""
        for name, table in self._tables.items():
            if table.grad is not None:
                every = not table.grad.is_sparse
                rows = torch.arange(len(table)).to(table.device) if every else rows_and_values(table.grad)[0]
                self._touched[name] = rows, table.index_select(0, rows)

    @torch.no_grad()
    def after(self) -> None:
        """Follow the step."""
        self._step += 1
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        if self._dense:
            weights = [one.detach() for one in self._dense.values()]
            torch._foreach_lerp_(list(self._averages.values()), weights, 1 - decay)
        for name, (rows, before) in self._touched.items():
            change = self._tables[name].index_select(0, rows) - before
            offset, since = (one[name].index_select(0, rows) for one in (self._offsets, self._changed))
            offset *= self._shrinking(since, self._step - 1)
            self._offsets[name].index_copy_(0, rows, offset.sub_(change).mul_(decay))
            self._changed[name].index_fill_(0, rows, self._step)
        self._touched.clear()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in the model; afterwards its weights again, to the last bit."""
        kept = [(one, one.detach().clone()) for one in (*self._dense.values(), *self._tables.values())]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for one, weight in kept:
                    one.copy_(weight)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages into the model."""
        for name, one in self._dense.items():
            one.copy_(self._averages[name])
        for name, table in self._tables.items():
            parts = (whole.split(_CHUNK) for whole in (table, self._offsets[name], self._changed[name]))
            for rows, offsets, changed in zip(*parts, strict=True):
                rows.add_(offsets * self._shrinking(changed, self._step))

    def _shrinking(self, since: Tensor, until: int) -> Tensor:
        """Products (u, 1) of the decays after the steps ``since`` (u,), up to step ``until``."""
        last, warm = len(self._warm) - 1, self._warm.to(since.device)
        logs = self._warm[min(until, last)] - warm[since.long().clamp(max=last)]
        logs += (max(until - last, 0) - (since - last).clamp(min=0)) * math.log(self.decay)
        return logs.exp().float()[:, None]

    def state_dict(self) -> dict[str, Any]:
        """All that decides how it goes on, as tensors and numbers."""
        return {
            "step": self._step,
            "averages": self._averages,
            "offsets": self._offsets,
            "changed": self._changed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._step = state["step"]
        for name in ("averages", "offsets", "changed"):
            for key, one in getattr(self, f"_{name}").items():
                one.copy_(state[name][key])


def _averaged(one: Tensor) -> bool:
    """Weights that train, and statistics; not counts, and nothing that is frozen."""
    return one.is_floating_point() and (one.requires_grad or not isinstance(one, nn.Parameter))
