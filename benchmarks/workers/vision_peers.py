"""What our backbones are compared with: timm's models, or official code from a folder of clones.

Peers get our weights by official key names wherever both have them, and then compute the same numbers.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import EcaModule
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec import vision

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Peer:
    """Makes the contender of a model.

    Args:
        make: Our model and the folder of clones to the contender.
        same: Whether it gets the same weights, so that logits can be compared.
    """

    make: Callable[[vision.Backbone, str], nn.Module]
    same: bool = True


def _load(peer: nn.Module, state: State) -> nn.Module:
    """The peer with weights: nothing may be left over, and only buffers be missing."""
    missing, left_over = peer.load_state_dict(state, strict=False)
    learned = {name for name, _ in peer.named_parameters()}
    assert not left_over, left_over
    assert not learned & set(missing), learned & set(missing)
    return peer


def of_timm(module: str, name: str) -> Peer:
    """timm's model, its weights from its own converter of official checkpoints."""

    def make(model: vision.Backbone, _: str) -> nn.Module:
        peer = timm.create_model(name, drop_path_rate=0.0)
        convert = importlib.import_module(f"timm.models.{module}").checkpoint_filter_fn
        return _load(peer, convert(vision.official_state(model), peer))

    return Peer(make)


def by_name(name: str, convert: Callable[[State], State] = dict) -> Peer:
    """timm's model whose names are the official ones."""
    return Peer(
        lambda model, _: _load(
            timm.create_model(name, drop_path_rate=0.0), convert(vision.official_state(model))
        )
    )


def unlike(name: str) -> Peer:
    """timm's model with weights of its own: its names follow from the official ones in no simple way."""
    return Peer(lambda model, _: timm.create_model(name), same=False)


def official(clone: str, module: str, name: str, **options: Any) -> Peer:
    """A function of official code in ``clone``, a path inside the folder of clones."""

    def make(model: vision.Backbone, folder: str) -> nn.Module:
        _stand_ins()
        sys.path.insert(0, str(Path(folder) / clone))
        peer = getattr(importlib.import_module(module), name)(**options)
        return _load(peer, vision.official_state(model))

    return Peer(make)


def _stand_ins() -> None:
    """What official code of 2021 to 2023 imports and current installations lack, where it is not there."""
    if "timm.models.registry" in sys.modules and "natten" in sys.modules:
        return
    sys.modules["timm.models.layers"] = timm.layers
    registry, helpers = types.ModuleType("timm.models.registry"), types.ModuleType("timm.models.helpers")
    registry.register_model = lambda function: function  # type: ignore[attr-defined]
    helpers.load_pretrained = None  # type: ignore[attr-defined]
    sys.modules |= {registry.__name__: registry, helpers.__name__: helpers}
    timm.models.register_model = registry.register_model  # type: ignore[attr-defined]
    if importlib.util.find_spec("fairscale") is None:
        part = types.ModuleType("fairscale.nn.checkpoint")
        part.checkpoint_wrapper = lambda module: module  # type: ignore[attr-defined]
        for name in ("fairscale", "fairscale.nn"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules[part.__name__] = part
    if importlib.util.find_spec("pkg_resources") is None:
        part = types.ModuleType("pkg_resources")
        part.DistributionNotFound = LookupError  # type: ignore[attr-defined]
        part.get_distribution = _absent  # type: ignore[attr-defined]
        sys.modules[part.__name__] = part
    part = types.ModuleType("natten")
    part.NeighborhoodAttention2D = DenseNeighborhoods  # type: ignore[attr-defined]
    sys.modules["natten"] = part


def _absent(name: str) -> None:
    raise LookupError(name)


class DenseNeighborhoods(nn.Module):
    """The module of NATTEN 0.14 as one writes it without NATTEN, whose relative biases newer versions lack
    and whose kernels are for GPUs: all pairs, with a mask and gathered biases that are made once."""

    def __init__(self, dim: int, num_heads: int, kernel_size: int, dilation: int | None, **_: Any) -> None:
        super().__init__()
        self.heads, self.kernel, self.dilation = num_heads, kernel_size, dilation or 1
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        self.places: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def axis(self, length: int) -> tuple[Tensor, Tensor]:
        """Which keys a query sees on one axis, and the row of the table for each."""
        step = self.dilation
        query, key = torch.arange(length)[:, None], torch.arange(length)
        together = torch.div(length - query % step + step - 1, step, rounding_mode="floor")
        start = (query // step - self.kernel // 2).clamp(min=0).minimum(together - self.kernel)
        seen = (query % step == key % step) & (key // step >= start) & (key // step < start + self.kernel)
        return seen, (key // step - query // step + self.kernel - 1).clamp(0, 2 * self.kernel - 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        batch, height, width, dim = x.shape
        least = self.kernel * self.dilation
        x = F.pad(x, (0, 0, 0, max(0, least - width), 0, max(0, least - height)))
        size = (x.shape[1], x.shape[2])
        if size not in self.places:
            (seen, row), (also, column) = self.axis(size[0]), self.axis(size[1])
            both = seen[:, None, :, None] & also[None, :, None, :]
            place = row[:, None, :, None] * (2 * self.kernel - 1) + column[None, :, None, :]
            pairs = (size[0] * size[1],) * 2
            self.places[size] = (both.reshape(pairs), place.reshape(pairs))
        mask, place = self.places[size]
        bias = self.rpb.flatten(1)[:, place].masked_fill(~mask, -torch.inf)
        q, k, v = self.qkv(x).view(batch, -1, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype))
        return self.proj(mixed.transpose(1, 2).reshape(x.shape)[:, :height, :width])


class EcaResNet50(ResNet):
    """timm's ResNet-50 with its gate of 5 taps: the official stages' 3, 5, 5, 7 cost the same."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, (3, 4, 6, 3), block_args={"attn_layer": partial(_gate, taps=5)})


def _gate(channels: int, taps: int, **_: Any) -> nn.Module:
    return EcaModule(None, kernel_size=taps)


def _crossvit(state: State) -> State:
    return {
        name.replace(".", "_") if name.startswith(("pos_embed", "cls_token")) else name: one
        for name, one in state.items()
    }


PEERS: dict[str, Peer] = {
    "swin_tiny_patch4_window7_224": of_timm("swin_transformer", "swin_tiny_patch4_window7_224"),
    "convnext_tiny": of_timm("convnext", "convnext_tiny"),
    "davit_tiny": of_timm("davit", "davit_tiny"),
    "maxvit_tiny_tf_224": of_timm("maxxvit", "maxvit_tiny_tf_224"),
    "volo_d1_224": by_name("volo_d1_224"),
    "pvt_v2_b1": of_timm("pvt_v2", "pvt_v2_b1"),
    "pvt_v2_b2_li": of_timm("pvt_v2", "pvt_v2_b2_li"),
    "convit_tiny": by_name("convit_tiny"),
    "tnt_s_patch16_224": of_timm("tnt", "tnt_s_patch16_224"),
    "crossvit_15_240": by_name("crossvit_15_240", _crossvit),
    "efficientvit_m4": unlike("efficientvit_m4"),
    "shvit_s2": unlike("shvit_s2"),
    "ecanet50": Peer(lambda model, _: EcaResNet50(), same=False),
    "pvt_tiny": official("PVT/classification", "pvt", "pvt_tiny"),
    "cswin_tiny_224": official("CSWin-Transformer/models", "cswin", "CSWin_64_12211_tiny_224"),
    "transnext_micro": official("TransNeXt/classification", "transnext", "transnext_micro"),
    "biformer_tiny": official("BiFormer", "models.biformer", "biformer_tiny"),
    "nat_mini": official("Neighborhood-Attention-Transformer/classification", "nat", "nat_mini"),
}
"""Our name -> what it is compared with."""
