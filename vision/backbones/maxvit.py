"""MaxViT: a convolution, attention in windows and over a dilated grid in every block (Tu et al., ECCV 2022).

Paper: https://arxiv.org/abs/2204.01697. Official code: https://github.com/google-research/maxvit (Apache-2.0,
in TensorFlow; its weights in PyTorch's layout are timm's ``maxvit_*_tf_*``, whose key names are used here).
Windows and grids are as wide as the image over 32, so attention reaches as far at every stage (section 3.2).
As in TensorFlow, padding is on the right where it is uneven, batch norm's epsilon is 1e-3, and GELU is the
tanh approximation, but for the swish in squeeze-and-excitation. A bias is indexed by key minus query.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from timm.layers import (
    BatchNormAct2d,
    DropPath,
    LayerNorm2d,
    NormMlpClassifierHead,
    SqueezeExcite,
    create_pool2d,
    pad_same,
)
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import RunError
from graphrec.kernels import RelativeBias
from graphrec.kernels.patterns import Windows
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap
from ..layers import (
    Conv2d,
    FoldingSequence,
    GridAttention,
    Stage,
    TransformerBlock,
    drop_path_rates,
    fold_norms,
    init_linear_and_conv,
)
from ..models import register_backbone

_norm_act = partial(BatchNormAct2d, eps=1e-3, act_layer="gelu_tanh")
Order = Literal["local", "grid"]


class SameConv2d(Conv2d):
    """A convolution padded as TensorFlow does it: with a step, more at the bottom and the right."""

    def __init__(
        self, in_chans: int, out: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        padding = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(in_chans, out, kernel, stride, padding, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, ceil(H / stride), ceil(W / stride))."""
        steps = list(self.stride)
        return super().forward(x if steps == [1, 1] else pad_same(x, list(self.kernel_size), steps))


class Shortcut(nn.Module):
    """Half the resolution by pooling, then a projection where the width changes."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.pool = create_pool2d("avg", 2, padding="same")
        self.expand = nn.Identity() if dim == out else Conv2d(dim, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, ceil(H / 2), ceil(W / 2))."""
        return self.expand(self.pool(x))


class MBConv(nn.Module):
    """Inverted bottleneck with the norm in front and squeeze-and-excitation (section 3.3)."""

    def __init__(self, dim: int, out: int, stride: int, drop_path: float) -> None:
        super().__init__()
        wide = 4 * out
        self.shortcut = Shortcut(dim, out) if stride == 2 else nn.Identity()
        self.pre_norm = _norm_act(dim, apply_act=False)
        self.conv1_1x1 = SameConv2d(dim, wide, 1)
        self.norm1 = _norm_act(wide)
        self.conv2_kxk = SameConv2d(wide, wide, 3, stride=stride, groups=wide)
        self.norm2 = _norm_act(wide)
        self.se = SqueezeExcite(wide, rd_channels=out // 4, act_layer=nn.SiLU)
        self.conv3_1x1 = SameConv2d(wide, out, 1, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H / stride, W / stride)."""
        out = self.norm1(self.conv1_1x1(self.pre_norm(x)))
        out = self.se(self.norm2(self.conv2_kxk(out)))
        return self.drop_path(self.conv3_1x1(out)) + self.shortcut(x)

    def fused(self) -> Self:
        """The block without norms: two fold into the first convolution, one into the second."""
        fold_norms(self, "pre_norm", "conv1_1x1", "norm1", "conv2_kxk", "norm2")
        return self


class RelativeTable(nn.Module):
    """A learned bias per head and distance, (heads, 2h - 1, 2w - 1), indexed by key minus query."""

    def __init__(self, heads: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = window
        table = torch.empty(heads, 2 * window[0] - 1, 2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(nn.init.normal_(table, std=0.02))

    def forward(self) -> RelativeBias:
        """The table as the kernels index it, by query minus key."""
        return RelativeBias(self.relative_position_bias_table.flip(1, 2).flatten(1), self.window)


class PartitionAttention(GridAttention):
    """Attention in windows (``order="local"``) or over a dilated grid (``order="grid"``) of the same size."""

    def __init__(self, dim: int, heads: int, window: tuple[int, int], order: Order) -> None:
        super().__init__(dim, heads)
        self.window, self.order = window, order
        self.rel_pos = RelativeTable(heads, window)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, H, W, C) to the same shape."""
        size = (x.shape[1], x.shape[2])
        return super().forward(x, Windows(size, self.window, order=self.order), self.rel_pos())


class MaxViTBlock(nn.Module):
    """Convolution, windows, grid (figure 2)."""

    def __init__(
        self, dim: int, out: int, stride: int, heads: int, window: tuple[int, int], drop_path: float
    ) -> None:
        super().__init__()
        block = partial(TransformerBlock, mlp_ratio=4.0, drop_path=drop_path, approximate="tanh")
        self.conv = MBConv(dim, out, stride, drop_path)
        self.attn_block = block(out, PartitionAttention(out, heads, window, "local"))
        self.attn_grid = block(out, PartitionAttention(out, heads, window, "grid"))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H / stride, W / stride)."""
        x = self.conv(x).permute(0, 2, 3, 1)
        return self.attn_grid(self.attn_block(x)).permute(0, 3, 1, 2)


class Stem(FoldingSequence):
    """Two 3x3 convolutions, (B, in_chans, H, W) to (B, dim, H / 2, W / 2)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv1 = SameConv2d(in_chans, dim, 3, stride=2, bias=True)
        self.norm1 = _norm_act(dim)
        self.conv2 = SameConv2d(dim, dim, 3, bias=True)


def _resize(value: Tensor, target: Tensor) -> Tensor:
    """A table at the size of another one, bilinear, as the official code does it."""
    if value.dim() != 3 or value.shape[0] != target.shape[0]:
        raise RunError(f"bias table {tuple(value.shape)}: the model has {tuple(target.shape)}")
    grid = F.interpolate(value[None].float(), size=target.shape[1:], mode="bilinear", align_corners=False)
    return grid[0].to(value.dtype)


class MaxViT(Backbone):
    """MaxViT; a state is (B, C, H, W).

    Args:
        img_size: Images that the model is made for; both sides are multiples of 32, and forward takes no
            others, since windows grow with the image.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        stem_width: Channels of the stem.
        embed_dim: Channels per stage.
        depths: Blocks per stage.
        head_dim: Channels of a head.
        partition: Pixels of the image per position of a window or grid.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    first_conv = "stem.conv1"
    fixed_size = True
    no_decay = ("relative_position_bias_table",)
    keys = KeyMap(resize={"relative_position_bias_table": _resize})

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        stem_width: int = 64,
        embed_dim: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 5, 2),
        head_dim: int = 32,
        partition: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            features=[(dim, 4 * 2**number) for number, dim in enumerate(embed_dim)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=partition,
            multiple=partition,
        )
        self.stem = Stem(in_chans, stem_width)
        window = (self.img_size[0] // partition, self.img_size[1] // partition)
        rates = drop_path_rates(drop_path_rate, depths)
        widths = [stem_width, *embed_dim]
        self.stages = nn.ModuleList(
            Stage(
                MaxViTBlock(
                    dim if place else widths[number], dim, 1 if place else 2, dim // head_dim, window, rate
                )
                for place, rate in enumerate(rates[number])
            )
            for number, dim in enumerate(embed_dim)
        )
        self.head = NormMlpClassifierHead(
            embed_dim[-1],
            num_classes,
            hidden_size=embed_dim[-1],
            pool_type=global_pool,
            drop_rate=drop_rate,
            norm_layer=partial(LayerNorm2d, eps=1e-5),
        )
        self.head_hidden_size = self.head.num_features
        self.apply(init_linear_and_conv)


CARD = Card(
    name="maxvit",
    task="vision",
    title="MaxViT: Multi-Axis Vision Transformer",
    paper="https://arxiv.org/abs/2204.01697",
    code="https://github.com/google-research/maxvit",
    licence="Apache-2.0",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_maxvit.py::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "tables of another image size": "tests/vision/test_maxvit.py::test_tables_of_another_size",
    },
    differs="Official checkpoints are TensorFlow's and are not read; timm's conversions of them are. The "
    "official code resizes the bias tables of models for 384 and 512 pixels in every forward, here they are "
    "resized once, on loading.",
)

_TINY = {"stem_width": 64, "embed_dim": (64, 128, 256, 512), "depths": (2, 2, 5, 2)}
_SMALL = {"stem_width": 64, "embed_dim": (96, 192, 384, 768), "depths": (2, 2, 5, 2)}
_BASE = {"stem_width": 64, "embed_dim": (96, 192, 384, 768), "depths": (2, 6, 14, 2)}
_LARGE = {"stem_width": 128, "embed_dim": (128, 256, 512, 1024), "depths": (2, 6, 14, 2)}
_XLARGE = {"stem_width": 192, "embed_dim": (192, 384, 768, 1536), "depths": (2, 6, 14, 2)}
_TEST = {"stem_width": 8, "embed_dim": (16, 32), "depths": (1, 2), "head_dim": 8}
_PUBLISHED: dict[str, tuple[dict[str, Any], dict[int, tuple[float, float, float | None]]]] = {
    "tiny": (_TINY, {224: (30.92, 5.6, 83.62), 384: (30.98, 17.7, 85.24), 512: (31.05, 33.7, 85.72)}),
    "small": (_SMALL, {224: (68.93, 11.7, 84.45), 384: (69.02, 36.1, 85.74), 512: (69.13, 67.6, 86.19)}),
    "base": (_BASE, {224: (119.47, 24.2, 84.95), 384: (119.65, 74.2, 86.34), 512: (119.88, 138.5, 86.66)}),
    "large": (_LARGE, {224: (211.79, 43.9, 85.17), 384: (212.03, 133.1, 86.40), 512: (212.33, 245.4, 86.70)}),
    "xlarge": (
        _XLARGE,
        {224: (506.99, 97.8, None), 384: (475.32, 293.7, None), 512: (475.77, 535.2, None)},
    ),
}
"""Size -> image side -> millions of parameters, GFLOPs, top-1 after training on ImageNet-1K alone."""
_WIDE = {"maxvit_xlarge_tf_224": "in21k"}
"""Published with the 21,843 classes of its pretraining alone."""


def _variants() -> dict[str, Variant]:
    found = {}
    for size, (options, rows) in _PUBLISHED.items():
        for side, facts in rows.items():
            name = f"maxvit_{size}_tf_{side}"
            pretrained_only = name in _WIDE
            tag = _WIDE.get(name) or ("in21k_ft_in1k" if size == "xlarge" else "in1k")
            whole = {"crop_pct": 1.0, "crop_mode": "squash"}
            cfg: dict[str, Any] = {"crop_pct": 0.95} if side == 224 else whole
            if side != 224 or pretrained_only:
                cfg |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
            note = "published as 475 M, without the 21,843 classes of its weights" if pretrained_only else ""
            classes, weights = 21843 if pretrained_only else 1000, f"timm/{name}.{tag}"
            found[name] = Variant(options, side, *facts, classes, weights, cfg, note)
    return found


register_backbone(MaxViT, CARD, {**_variants(), "maxvit_test": Variant(_TEST, 64)})
