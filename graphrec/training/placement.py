"""Where a model is and in which mode, changed only where it is not so already.

`nn.Module.to` and `nn.Module.train` walk through every layer and set it anew: milliseconds for a backbone of
hundreds of small layers, as long as it takes to classify a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


def place(model: nn.Module, device: torch.device) -> None:
    """Move the model to a device, if any of its tensors is elsewhere."""
    if any(one.device != device for one in chain(model.parameters(), model.buffers())):
        model.to(device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for all of the model; afterwards the mode that the model itself was in."""
    training = model.training
    changed = any(one.training for one in model.modules())
    if changed:
        model.eval()
    try:
        yield
    finally:
        if changed:
            model.train(training)
