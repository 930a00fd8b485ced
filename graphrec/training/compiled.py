"""`torch.compile` for batches that mostly have one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import ConfigError

from .batches import count_rows


def compiled(function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """Compile for the size of the largest batch so far; a smaller one (the last) runs as it is written.

    So one graph is compiled, with all sizes known, and no second one for a batch that comes once an epoch.

    Raises:
        ConfigError: When it is called and the compiler fails.
    """
    fast = torch.compile(function, dynamic=False)
    size = 0

    def call(batch: Any) -> Tensor:
        nonlocal size
        rows = count_rows(batch)
        size = max(size, rows)
        return _run(fast, batch) if rows == size else function(batch)

    return call


def refuse_ragged(source: Any) -> None:
    """Refuse to compile for batches that each have another size.

    Every one would be compiled anew, eight times, for half a minute and more; one graph for all sizes took
    half as long again as none for a step of GIN on a CPU.

    Args:
        source: A `BatchSource`, or what it is made of; what its batches hold is its ``ragged``, if it is.

    Raises:
        ConfigError: They have.
    """
    ragged = getattr(source, "ragged", None)
    if ragged:
        raise ConfigError(
            f"compile: every batch holds {ragged} and would be compiled anew; set compile to false"
        )


def _run(function: Callable[[Any], Tensor], batch: Any) -> Tensor:
    try:
        return function(batch)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile: it fails on this model ({reason}); set compile to false") from error
