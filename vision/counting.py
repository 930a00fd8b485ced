"""Multiplications of a backbone, as papers count them."""

from __future__ import annotations

import torch
from timm.layers import to_2tuple
from torch.utils.flop_counter import FlopCounterMode

from graphrec.kernels.tally import tallying

from .backbone import Backbone


def count_operations(model: Backbone, img_size: int | tuple[int, int] | None = None) -> float:
    """Billions of multiplications, each with its addition, for one image: what papers call GFLOPs.

    Convolutions, linear layers and other matrix products as they run; attention as two products per visible
    pair and channel. Norms, activations and sums do not count.

    Args:
        model: In evaluation mode. On the meta device it needs no memory, but what chooses by the data
            (BiFormer's routing) wants real tensors.
        img_size: Images of another size than the model's.
    """
    weight = next(model.parameters())
    image = torch.zeros(
        1, model.in_chans, *to_2tuple(img_size or model.img_size), device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter, tallying() as tally:
        model(image)
    return (counter.get_total_flops() / 2 + tally.multiplications) / 1e9
