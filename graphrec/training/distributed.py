"""Several processes: gradients, batch-norm statistics and evaluations brought together.

The model is not wrapped. After each backward pass the dense gradients of all processes are summed in one flat
buffer, weighted by the rows of each, and row gradients are gathered and merged, so that every process makes
the same update: the one that a single process would make of the whole batch. (Batch norm normalises with the
statistics of its own part, as it does everywhere; its running statistics are averaged. A loss that divides by
sample weights or by known labels does so within its part, so there the whole is equal in expectation only.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from graphrec.errors import RunError

from .row_gradients import rows_and_values

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Reduced(NamedTuple):
    """What all processes know of a step after the exchange.

    Attributes:
        loss: Mean loss over the rows of all processes.
        rows: Rows of all processes.
        flag: Whether any process raised its flag.
    """

    loss: float
    rows: int
    flag: bool


class Ranks:
    """This process among the others; with one process everything here is a no-op.

    Args:
        fabric: A launched Fabric.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.device = fabric.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in every process."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            distributed.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """The value of the first process, in every process."""
        values = [value]
        if self.world > 1:
            distributed.broadcast_object_list(values, 0)
        return values[0]

    def collect(self, value: Any) -> list[Any] | None:
        """The values of all processes, in the first; None in the others."""
        if self.world == 1:
            return [value]
        values: list[Any] | None = [None] * self.world if self.first else None
        distributed.gather_object(value, values, 0)
        return values

    @torch.no_grad()
    def equalise(self, model: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.world == 1:
            return
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                distributed.broadcast(tensor, 0)
            else:
                tensor.copy_(self.share(tensor.cpu()))

    def agree(self, name: str, value: Any) -> None:
        """Check that a value is the same everywhere.

        Raises:
            RunError: It is not.
        """
        values = self.gather(value)
        if any(other != value for other in values):
            raise RunError(
                f"{name} differs between the processes ({values}); give all the same settings and data"
            )


@contextmanager
def together(world: int) -> Iterator[None]:
    """Around what ``world`` processes do: one that is left alone says so.

    Raises:
        RunError: Another process ended, or does not answer any more.
    """
    try:
        yield
    except RuntimeError as error:
        if world == 1 or not (isinstance(error, distributed.DistError) or "/gloo/" in str(error)):
            raise
        raise RunError(
            f"another of the {world} processes of this run ended or does not answer, so this one ends too; "
            f"what was saved is continued by resuming with {world} processes"
        ) from error


class GradientExchange:
    """Brings the gradients of one model together after each backward pass.

    Args:
        ranks: The processes.
        model: Its trainable parameters, and its batch norms' running statistics, are exchanged; no other
            buffer may depend on the data.
    """

    def __init__(self, ranks: Ranks, model: nn.Module) -> None:
        self.ranks = ranks
        trainable = [p for p in model.parameters() if p.requires_grad]
        self.dense = [p for p in trainable if not getattr(p, "sparse_rows", False)]
        self.sparse = [p for p in trainable if getattr(p, "sparse_rows", False)]
        self.statistics = _running_statistics(model)

    @torch.no_grad()
    def __call__(self, loss: Tensor | None, rows: int, flag: bool = False) -> Reduced:
        """Replace every ``param.grad`` by the mean over the rows of all processes.

        Args:
            loss: Mean loss of this process's rows, or None when it has none.
            rows: How many it has.
            flag: Something that this process wants the others to know.
        """
        if self.ranks.world == 1:
            return Reduced(float("nan") if loss is None else float(loss), rows, flag)
        parts = self._flatten(loss, rows, flag)
        flat = torch.cat(parts)
        distributed.all_reduce(flat)
        reduced = self._unflatten(flat.split([len(part) for part in parts]))
        for param in self.sparse:
            self._merge_rows(param, rows / reduced.rows)
        return reduced

    def _flatten(self, loss: Tensor | None, rows: int, flag: bool) -> list[Tensor]:
        device = self.ranks.device
        for param in self.dense:
            if param.grad is not None and param.grad.is_sparse:
                raise RunError("a parameter with row gradients must be marked: set param.sparse_rows = True")
        seen = [float(p.grad is not None) for p in self.dense]
        tail = [rows, 0.0 if loss is None else float(loss) * rows, float(flag)]
        weighted = [torch.zeros_like(p) if p.grad is None else p.grad * rows for p in self.dense]
        weighted += [t * rows for t in self.statistics]
        return [*(t.float().reshape(-1) for t in weighted), torch.tensor(seen + tail, device=device)]

    def _unflatten(self, parts: Sequence[Tensor]) -> Reduced:
        count = len(self.dense)
        *seen, rows, loss, flag = parts[-1].tolist()
        for param, part, used in zip(self.dense, parts[:count], seen, strict=True):
            param.grad = (part / rows).view_as(param).to(param.dtype) if used else None
        for statistic, part in zip(self.statistics, parts[count:-1], strict=True):
            statistic.copy_((part / rows).view_as(statistic))
        return Reduced(loss / rows, round(rows), flag > 0)

    def _merge_rows(self, param: nn.Parameter, weight: float) -> None:
        index, values = _rows_of(param)
        sizes = [int(n) for n in self._gather(torch.tensor([len(index)], device=index.device))]
        pad = max(sizes) - len(index)
        indices = self._gather(torch.cat([index, index.new_zeros(pad)]))
        gathered = self._gather(torch.cat([values * weight, values.new_zeros(pad, *values.shape[1:])]))
        index = torch.cat([part[:n] for part, n in zip(indices, sizes, strict=True)])
        values = torch.cat([part[:n] for part, n in zip(gathered, sizes, strict=True)])
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            merged = torch.sparse_coo_tensor(index[None], values, param.shape).coalesce()
        param.grad = merged if any(sizes) else None

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.ranks.world)]
        distributed.all_gather(parts, tensor.contiguous())
        return parts


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms of a model."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _rows_of(param: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Row numbers (u,) and gradients (u, d) of a parameter, both empty when it has no gradient."""
    if param.grad is None:
        return torch.empty(0, dtype=torch.int64, device=param.device), param.new_empty(0, *param.shape[1:])
    if not param.grad.is_sparse:
        return torch.arange(len(param), device=param.device), param.grad
    return rows_and_values(param.grad)


def _running_statistics(model: nn.Module) -> list[Tensor]:
    return [t for m in batch_norms(model) for t in (m.running_mean, m.running_var) if t is not None]
