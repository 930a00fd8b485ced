"""What the trainer asks of models, data and metrics; any class that has these methods will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

BuildOptimizers = Callable[["nn.Module", Any], "list[Optimizer]"]
"""Makes the optimisers of a model as a `TrainConfig` says."""


@runtime_checkable
class BatchSource(Protocol):
    """Batches in an order that depends on the epoch alone.

    A batch is a pytree of tensors (a NamedTuple, dict, tuple ...) whose first tensor has one row per example.
    Of several processes each has its own source with its part of every batch; ``steps`` is the same for all,
    and the part may be empty. A source may have ``world_size`` and ``fingerprint`` attributes, which are then
    checked.
    """

    @property
    def steps(self) -> int:
        """Batches of an epoch."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """Batches ``start_step`` to ``steps`` of an epoch."""


class TrainableModel(Protocol):
    """A module that knows its loss. It must be an `nn.Module` as well, which a protocol cannot say.

    It may have a method ``constrain()``, called after every step: it brings weights back within bounds, or
    lets an average follow them.
    """

    def training_loss(self, batch: Any) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def predict(self, batch: Any) -> Tensor:
        """(B, T) predictions."""


class Metrics(Protocol):
    """Collects predictions; `graphrec.metrics.BinaryMetrics` is one.

    The trainer copies the (empty) object for each evaluation.
    """

    def update(self, y: Any, p: Any, weights: Any = None, groups: Any = None) -> None:
        """Add a batch of labels (B, T) and predictions (B, T) with weights (B,) and groups (B,), or None."""

    def compute(self) -> dict[str, float | None]:
        """The values; None for what is undefined."""

    def state(self) -> Mapping[str, Any]:
        """All that was fed, as arrays."""

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the state of another process."""
