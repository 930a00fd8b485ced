"""What to say, and what to keep, when the loss is not a number."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from graphrec.errors import NonFiniteLossError

from .batches import named_tensors

_HUGE = 1e6


def describe(name: str, values: Tensor) -> str | None:
    """What is odd about a tensor of floats, or None."""
    if not values.is_floating_point() or values.numel() == 0:
        return None
    nan, inf = int(values.isnan().sum()), int(values.isinf().sum())
    largest = float(values.nan_to_num(0, 0, 0).abs().max())
    texts = {f"{nan} NaN": nan, f"{inf} infinite": inf, f"values up to {largest:.3g}": largest > _HUGE}
    found = [text for text, odd in texts.items() if odd]
    return f"{name} has {', '.join(found)}" if found else None


def nonfinite_error(
    what: str, batch: Any, model: nn.Module, at: tuple[int, int], folder: Path | None, rank: int = 0
) -> NonFiniteLossError:
    """Save the batch and build the error that names it.

    Args:
        what: For instance ``"the loss is nan"``.
        batch: The offending batch.
        model: Its parameters are checked as well.
        at: Epoch, and step inside the epoch, counted from 1.
        folder: Where to save; a temporary folder when None.
        rank: Process, part of the file's name if not 0.
    """
    epoch, step = at
    folder = folder or Path(tempfile.mkdtemp(prefix="graphrec-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"nonfinite-epoch{epoch}-step{step}{f'-rank{rank}' if rank else ''}.safetensors"
    tensors = {name: tensor.contiguous().clone() for name, tensor in named_tensors(batch).items()}
    save_file(tensors, path)
    odd = [text for name, tensor in tensors.items() if (text := describe(name, tensor))]
    weights = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    odd += [f"weight {name} is not finite" for name in weights]
    found = "; ".join(odd) or "inputs and weights are finite: lower learning_rate or set clip_norm"
    return NonFiniteLossError(f"{what} at epoch {epoch}, step {step} ({found}); the batch is in {path}")
