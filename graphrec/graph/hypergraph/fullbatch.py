"""Training on all vertices at once, with the weights of the best validation kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError, NonFiniteLossError

Row = dict[str, Any]


def train_full_batch(
    module: nn.Module,
    loss: Callable[[], Tensor],
    valid: Callable[[], float] | None,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    every: int = 1,
) -> list[Row]:
    """Adam, one step an epoch; the module ends with the weights of the first best validation.

    That is how LightHGNN trains teachers and students alike (200 epochs, 0.01, 5e-4).

    Args:
        module: What is trained; left in evaluation mode.
        loss: The loss of a step, called in training mode.
        valid: What more of is better, called in evaluation mode without gradients between steps; None
            keeps the last weights.
        epochs: Steps.
        learning_rate: Of Adam.
        weight_decay: Of Adam, added to the gradient.
        every: Steps between validations; the last step is always followed by one.

    Returns:
        A row per epoch: epoch, loss, and valid where it was measured.

    Raises:
        ConfigError: Less than one epoch.
        NonFiniteLossError: The loss is not finite; names the epoch.
    """
    if epochs < 1:
        raise ConfigError(f"epochs={epochs}: must be at least 1")
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    rows: list[Row] = []
    best, kept = -1.0, None
    for epoch in range(epochs):
        rows.append({"epoch": epoch, "loss": _step(module, loss, optimizer, epoch)})
        if valid is None or ((epoch + 1) % every and epoch + 1 < epochs):
            continue
        rows[-1]["valid"] = found = _measure(module, valid)
        if found > best:
            best, kept = found, {key: one.detach().clone() for key, one in module.state_dict().items()}
    if kept is not None:
        module.load_state_dict(kept)
    module.eval()
    return rows


def _step(
    module: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, epoch: int
) -> float:
    module.train()
    optimizer.zero_grad()
    found = loss()
    if not bool(torch.isfinite(found)):
        raise NonFiniteLossError(
            f"epoch {epoch}: the loss is {float(found.detach())}; lower learning_rate or look at the features"
        )
    found.backward()
    optimizer.step()
    return float(found.detach())


def _measure(module: nn.Module, valid: Callable[[], float]) -> float:
    module.eval()
    with torch.no_grad():
        return valid()
