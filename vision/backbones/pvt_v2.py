"""PVT v2: a pyramid of attention to coarser maps, with convolutions for positions (Wang et al., CVMJ 2022).

Paper: https://arxiv.org/abs/2106.13797. Official code: https://github.com/whai362/PVT (Apache-2.0).
Patches overlap (section 3.2), keys and values come from a strided convolution, or in the linear variant from
7x7 averages (section 3.1), and a 3x3 depthwise convolution inside each MLP tells positions apart
(section 3.3), so there is no position embedding and any image size will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from timm.layers import ClassifierHead, DropPath, trunc_normal_
from torch import Tensor, nn

from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    GELU,
    Conv2d,
    Linear,
    NormedStage,
    OverlapDownsample,
    OverlapPatchEmbed,
    ReducedAttention,
    ReLU,
    drop_path_rates,
)
from ..models import register_backbone


class ConvMlp(nn.Module):
    """MLP with a 3x3 depthwise convolution before its activation, on (B, H, W, C)."""

    def __init__(self, dim: int, hidden: int, *, relu: bool, drop: float) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.relu = ReLU() if relu else nn.Identity()
        self.dwconv = Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = GELU()
        self.fc2 = Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = self.relu(self.fc1(x)).permute(0, 3, 1, 2)
        x = self.act(self.dwconv(x).permute(0, 2, 3, 1))  # in the layout that the convolution leaves
        return self.drop(self.fc2(self.drop(x)))


class PVTv2Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        mlp_ratio: float,
        sr_ratio: int,
        linear: bool,
        drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = ReducedAttention(dim, heads, sr_ratio, pooled=7 if linear else 0, drop=drop)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), relu=linear, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        size = (x.shape[1], x.shape[2])
        mixed = self.attn(self.norm1(x).flatten(1, 2), size)
        x = x + self.drop_path(mixed.unflatten(1, size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PVTv2(Backbone):
    """PVT v2; a state is (B, H, W, C).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        embed_dims: Channels per stage.
        depths: Blocks per stage.
        num_heads: Heads per stage.
        mlp_ratios: Width of the MLP over that of the stage.
        sr_ratios: Side of the squares that become one key, per stage.
        linear: Keys are 7x7 averages in every stage (``li`` in the official names).
        drop_rate: Dropout in attention, MLP and before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    layout = "NHWC"
    first_conv = "patch_embed.proj"
    keys = KeyMap(
        (
            Rename("patch_embed1", "patch_embed"),
            Rename("patch_embed{i+1}", "stages.{i}.downsample"),
            Rename("block{i+1}.{j}.mlp.dwconv.dwconv", "stages.{i}.blocks.{j}.mlp.dwconv"),
            Rename("block{i+1}.{j}", "stages.{i}.blocks.{j}"),
            Rename("norm{i+1}", "stages.{i}.norm"),
            Rename("head", "head.fc"),
        )
    )

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        linear: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__(
            features=[(dim, 4 * 2**number) for number, dim in enumerate(embed_dims)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=1 if linear else max(4 * 2**number * one for number, one in enumerate(sr_ratios)),
        )
        self.patch_embed = OverlapPatchEmbed(in_chans, embed_dims[0], 7, 4)
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList()
        for number, dim in enumerate(embed_dims):
            blocks = [
                PVTv2Block(
                    dim,
                    num_heads[number],
                    mlp_ratio=mlp_ratios[number],
                    sr_ratio=sr_ratios[number],
                    linear=linear,
                    drop=drop_rate,
                    drop_path=rate,
                )
                for rate in rates[number]
            ]
            before = OverlapDownsample(embed_dims[number - 1], dim) if number else None
            self.stages.append(NormedStage(blocks, dim, before))
        self.head = ClassifierHead(embed_dims[-1], num_classes, global_pool, drop_rate, input_fmt="NHWC")
        self.apply(_init)

    def embed(self, image: Tensor) -> Tensor:
        """Patches (B, H / 4, W / 4, C)."""
        return self.patch_embed(image)


def _init(module: nn.Module) -> None:
    """Initial weights of the official code."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


CARD = Card(
    name="pvt_v2",
    task="vision",
    title="PVT v2: Improved Baselines with Pyramid Vision Transformer",
    paper="https://arxiv.org/abs/2106.13797",
    code="https://github.com/whai362/PVT",
    licence="Apache-2.0",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_pvt_v2.py::test_equals_timm",
        "those of linear attention equal timm's": "tests/vision/test_pvt_v2.py::test_linear_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_pvt_v2.py::test_official_keys",
    },
    differs="There is no dropout on attention probabilities.",
)


def _variant(name: str, options: Mapping[str, object], facts: tuple[float, float, float]) -> Variant:
    """A published row at 224 pixels: parameters, GFLOPs, top-1."""
    parameters, gflops, top1 = facts
    url = f"https://github.com/whai362/PVT/releases/download/v2/{name}.pth"
    return Variant(options, 224, parameters, gflops, top1, weights=url)


_B0 = {"embed_dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2)}
_TEST = {
    "embed_dims": (8, 16),
    "depths": (1, 1),
    "num_heads": (1, 2),
    "mlp_ratios": (2, 2),
    "sr_ratios": (2, 1),
}

register_backbone(
    PVTv2,
    CARD,
    {
        "pvt_v2_b0": _variant("pvt_v2_b0", _B0, (3.67, 0.6, 70.5)),
        "pvt_v2_b1": _variant("pvt_v2_b1", {"depths": (2, 2, 2, 2)}, (14.01, 2.1, 78.7)),
        "pvt_v2_b2": _variant("pvt_v2_b2", {"depths": (3, 4, 6, 3)}, (25.36, 4.0, 82.0)),
        "pvt_v2_b2_li": _variant(
            "pvt_v2_b2_li", {"depths": (3, 4, 6, 3), "linear": True}, (22.55, 3.9, 82.1)
        ),
        "pvt_v2_b3": _variant("pvt_v2_b3", {"depths": (3, 4, 18, 3)}, (45.24, 6.9, 83.1)),
        "pvt_v2_b4": _variant("pvt_v2_b4", {"depths": (3, 8, 27, 3)}, (62.56, 10.1, 83.6)),
        "pvt_v2_b5": _variant(
            "pvt_v2_b5", {"depths": (3, 6, 40, 3), "mlp_ratios": (4, 4, 4, 4)}, (81.96, 11.8, 83.8)
        ),
        "pvt_v2_test": Variant(_TEST, 32),
        "pvt_v2_li_test": Variant(_TEST | {"linear": True}, 32),
    },
)
