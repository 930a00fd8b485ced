"""Optimisers whose step costs what the batch touched, not what the embedding table holds.

A parameter marked ``sparse_rows = True`` has a sparse COO gradient with one entry per touched row. Its
optimiser reads and writes those rows alone: the state of a row that no batch touches stays as it is ("lazy"
updates, as in TensorFlow's LazyAdam and `torch.optim.SparseAdam`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graphrec.errors import ConfigError

from .huge_pages import full_table
from .row_gradients import rows_and_values


class OptimizerSettings(Protocol):
    """The fields of the training configuration that `build_optimizers` reads."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: str
    embedding_optimizer: str
    embedding_lr: float | None


_BLOCK = 1 << 16
"""Numbers of the rows that are updated at once on a CPU: what is read of them is still near when written."""


class RowOptimizer(Optimizer):
    """Applies `_update` to the touched rows of each parameter; dense gradients count as all rows touched.

    Attributes:
        on_change: Is told the parameter, its rows (u,) that changed, and by how much (u, d); None if nobody.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.on_change: Callable[[Tensor, Tensor, Tensor], None] | None = None
        if defaults["lr"] < 0:
            raise ConfigError(f"lr: {defaults['lr']} is negative; use a positive number")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_param(param, group)
        return loss

    def _step_param(self, param: Tensor, group: dict[str, Any]) -> None:
        if param.grad.is_sparse:  # type: ignore[union-attr]
            rows, grad = rows_and_values(param.grad)  # type: ignore[arg-type]
        else:
            grad = param.grad  # type: ignore[assignment]
            rows = torch.arange(len(param), device=param.device)
        if len(rows) == 0:
            return
        state = self.state[param]
        if not state:
            self._init_state(param, state, group)
        self._begin(state)
        block = max(1, _BLOCK // param[0].numel()) if param.device.type == "cpu" else len(rows)
        for some, slope in zip(rows.split(block), grad.split(block), strict=True):
            self._step_rows(param, some, slope, state, group)

    def _step_rows(
        self, param: Tensor, rows: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        weight = param.index_select(0, rows)
        before = None if self.on_change is None else weight.clone()
        self._update(weight, grad, rows, state, group)
        param.index_copy_(0, rows, weight)
        if self.on_change is not None and before is not None:
            self.on_change(param, rows, torch.sub(weight, before, out=before))

    def _init_state(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _begin(self, state: dict[str, Any]) -> None:
        """Called once a step, before `_update` is called for some rows after others."""

    def _update(
        self, weight: Tensor, grad: Tensor, rows: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Change ``weight`` (u, d), a copy of the touched rows, in place, and the state of those rows."""
        raise NotImplementedError


class LazyAdam(RowOptimizer):
    """Adam on the touched rows; equal to `torch.optim.SparseAdam`, with one gather for both moments.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the first and second moment.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def _init_state(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["step"] = torch.tensor(0.0)
        size = len(param), 2, *param.shape[1:]
        state["moments"] = full_table(*size, value=0.0, like=param)  # one gather reads both

    def _begin(self, state: dict[str, Any]) -> None:
        state["step"] += 1

    def _update(
        self, weight: Tensor, grad: Tensor, rows: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        step = float(state["step"])
        moments = state["moments"].index_select(0, rows)
        mean, square = moments[:, 0], moments[:, 1]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        scale = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        weight.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-scale)
        state["moments"].index_copy_(0, rows, moments)


class RowAdagrad(RowOptimizer):
    """Adagrad on the touched rows with one accumulator per element, or one per row.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        initial: Initial value of the accumulators.
        eps: Added to the root of the accumulator.
        per_row: Keep the mean square of the row's gradient, one number per row (as TorchRec's
            row-wise Adagrad), instead of one per element (as `torch.optim.Adagrad`).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        initial: float = 0.0,
        eps: float = 1e-10,
        per_row: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "initial": initial, "eps": eps, "per_row": per_row})

    def _init_state(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        shape = (len(param), 1) if group["per_row"] else param.shape
        state["sum"] = full_table(*shape, value=group["initial"], like=param)

    def _update(
        self, weight: Tensor, grad: Tensor, rows: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        total = state["sum"].index_select(0, rows)
        if group["per_row"]:
            total += grad.square().mean(1, keepdim=True)
        else:
            total.addcmul_(grad, grad)
        state["sum"].index_copy_(0, rows, total)
        weight.addcdiv_(grad, total.sqrt().add_(group["eps"]).expand_as(grad), value=-group["lr"])


_DENSE: dict[str, Callable[..., Optimizer]] = {
    "adam": lambda params, lr, decay: torch.optim.Adam(params, lr=lr, weight_decay=decay, fused=True),
    "adamw": lambda params, lr, decay: torch.optim.AdamW(params, lr=lr, weight_decay=decay, fused=True),
    "adagrad": lambda params, lr, decay: torch.optim.Adagrad(params, lr=lr, weight_decay=decay),
    "sgd": lambda params, lr, decay: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=decay),
}


def dense_optimizer(name: str, params: Iterable[Any], lr: float, weight_decay: float) -> Optimizer:
    """One of the optimisers of ordinary parameters.

    Args:
        name: ``"adam"``, ``"adamw"``, ``"adagrad"`` or ``"sgd"``.
        params: Parameters, or groups, which may have rates and decays of their own.
        lr: Learning rate.
        weight_decay: Weight decay.

    Raises:
        ConfigError: The name is none of these.
    """
    if name not in _DENSE:
        raise ConfigError(f"optimizer: {name!r} is not one of {', '.join(_DENSE)}")
    return _DENSE[name](params, lr, weight_decay)


_SPARSE: dict[str, Callable[..., Optimizer]] = {
    "adam": lambda params, lr, initial: LazyAdam(params, lr=lr),
    "adagrad": lambda params, lr, initial: RowAdagrad(params, lr=lr, initial=initial),
    "row_adagrad": lambda params, lr, initial: RowAdagrad(params, lr=lr, initial=initial, per_row=True),
}
_ADAGRAD_LR = 0.05
_ADAGRAD_INITIAL = 0.1
"""Start of Adagrad's accumulators for gradients summed over a batch. It keeps an id's first few, small
gradients from becoming full steps, as they do in Adam, which is how rare ids are memorised."""


def build_optimizers(model: nn.Module, config: OptimizerSettings) -> list[Optimizer]:
    """The optimiser of the ordinary parameters and that of the parameters with row gradients.

    Without ``embedding_lr``, Adagrad takes 0.05 and Adam the ordinary learning rate. The loss is a mean over
    ``batch_size`` rows, so Adagrad's accumulators start at ``0.1 / batch_size**2``.

    Raises:
        ConfigError: ``optimizer`` or ``embedding_optimizer`` is not one of the known names.
    """
    if config.embedding_optimizer not in _SPARSE:
        found, known = config.embedding_optimizer, ", ".join(_SPARSE)
        raise ConfigError(f"embedding_optimizer: {found!r} is not one of {known}")
    trainable = [p for p in model.parameters() if p.requires_grad]
    dense = [p for p in trainable if not getattr(p, "sparse_rows", False)]
    rows = [p for p in trainable if getattr(p, "sparse_rows", False)]
    optimizers = []
    if dense:
        optimizers.append(dense_optimizer(config.optimizer, dense, config.learning_rate, config.weight_decay))
    if rows:
        default = config.learning_rate if config.embedding_optimizer == "adam" else _ADAGRAD_LR
        lr = default if config.embedding_lr is None else config.embedding_lr
        initial = _ADAGRAD_INITIAL / config.batch_size**2
        optimizers.append(_SPARSE[config.embedding_optimizer](rows, lr, initial))
    return optimizers
