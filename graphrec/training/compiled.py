"""`torch.compile` for batches that mostly have one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import ConfigError

from .batches import count_rows


def compiled(function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """Compile for the size of the first batch; a batch of another size (the last one) runs as it is written.

    So one graph is compiled, with all sizes known, and no second one for a batch that comes once an epoch.

    Raises:
        ConfigError: At the first call, when the compiler fails.
    """
    fast = torch.compile(function, dynamic=False)
    size: int | None = None

    def call(batch: Any) -> Tensor:
        nonlocal size
        rows = count_rows(batch)
        if size is None:
            result = _first_call(fast, batch)
            size = rows
            return result
        return fast(batch) if rows == size else function(batch)

    return call


def _first_call(function: Callable[[Any], Tensor], batch: Any) -> Tensor:
    try:
        return function(batch)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile: it fails on this model ({reason}); set compile to false") from error
