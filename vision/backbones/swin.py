"""Swin Transformer: attention in windows that shift from block to block (Liu et al., ICCV 2021).

Paper: https://arxiv.org/abs/2103.14030. Official code: https://github.com/microsoft/Swin-Transformer (MIT).
Windows of 7x7 or 12x12 patches see themselves (W-MSA); every second block moves them by half a window
(SW-MSA), wrapping around the map, with -100 on the logits between what lies on opposite edges (section 3.2).
A learned table gives each head a bias per distance (eq. 4). Between stages 2x2 patches become one of twice
the channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt

import torch
from timm.layers import ClassifierHead, DropPath, to_2tuple
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels.patterns import Windows
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    GridAttention,
    Linear,
    Mlp,
    PatchEmbed,
    Stage,
    drop_path_rates,
    init_linear_and_conv,
    resize_bias_table,
    resize_positions,
    shifted_windows,
)
from ..models import register_backbone


class PatchMerging(nn.Module):
    """2x2 neighbours side by side, normalised and projected to twice the channels (section 3.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2C)."""
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        pairs = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, H/2, 2, W/2, 2, C]
        return self.reduction(self.norm(pairs.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class SwinBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``, with attention in (shifted) windows (eq. 3)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: tuple[int, int],
        shifted: bool,
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1 = nn.LayerNorm(dim)
        self.attn = GridAttention(dim, heads, qkv_bias=qkv_bias, bias_window=window, proj_drop=drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        pattern = shifted_windows((x.shape[1], x.shape[2]), self.window, self.shifted)
        x = x + self.drop_path(self._attend(self.norm1(x), pattern))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, pattern: Windows) -> Tensor:
        """Attention on a map padded to whole windows; the zeros join, as in the official detectors."""
        (height, width), (tall, wide) = x.shape[1:3], pattern.shape
        if (height, width) == (tall, wide):
            return self.attn(x, pattern)
        padded = F.pad(x, (0, 0, 0, wide - width, 0, tall - height))
        return self.attn(padded, pattern)[:, :height, :width]


class SwinTransformer(Backbone):
    """Swin Transformer; a state is (B, H, W, C).

    Args:
        img_size: Images that the model is made for; forward takes others unless ``absolute_positions``.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        patch_size: Side of a patch.
        embed_dim: Channels of the first stage; each stage doubles them.
        depths: Blocks per stage.
        num_heads: Heads per stage.
        window_size: Side of a window, in patches.
        mlp_ratio: Width of the MLP over that of the stage.
        qkv_bias: Bias of the projection to queries, keys and values.
        absolute_positions: Add a learned position table to the patches (``ape`` in the official code).
        drop_rate: Dropout before the classifier and in the blocks.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    plans_by_size = True
    layout = "NHWC"
    first_conv = "patch_embed.proj"
    no_decay = ("relative_position_bias_table", "absolute_pos_embed")

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        absolute_positions: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        dims = [embed_dim * 2**number for number in range(len(depths))]
        super().__init__(
            features=[(dim, patch_size * 2**number) for number, dim in enumerate(dims)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=patch_size,
        )
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size)
        self.pos_drop = nn.Dropout(drop_rate)
        self.absolute_pos_embed: nn.Parameter | None = None
        if absolute_positions:
            self.grid = (self.img_size[0] // patch_size, self.img_size[1] // patch_size)
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], embed_dim))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        block = partial(SwinBlock, window=to_2tuple(window_size), mlp_ratio=mlp_ratio, qkv_bias=qkv_bias)
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList(
            Stage(
                [
                    block(dim, num_heads[number], shifted=bool(place % 2), drop=drop_rate, drop_path=rate)
                    for place, rate in enumerate(rates[number])
                ],
                PatchMerging(dim // 2) if number else None,
            )
            for number, dim in enumerate(dims)
        )
        self.norm = nn.LayerNorm(dims[-1])
        self.head = ClassifierHead(dims[-1], num_classes, global_pool, drop_rate, input_fmt="NHWC")
        self.apply(init_linear_and_conv)

    def embed(self, image: Tensor) -> Tensor:
        """Patches (B, H / 4, W / 4, C)."""
        x = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed.view(1, *x.shape[1:])
        return self.pos_drop(x)


def _index_buffers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The buffers by which official blocks look up their tables."""
    found = {}
    for name, table in state.items():
        if name.endswith(".relative_position_bias_table"):
            side = (isqrt(table.shape[0]) + 1) // 2
            place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
            apart = place[:, None] - place + side - 1
            index = apart[..., 0] * (2 * side - 1) + apart[..., 1]
            found[name.replace("_bias_table", "_index")] = index
    return found


SwinTransformer.keys = KeyMap(
    rules=(
        Rename("layers.{i}.downsample", "stages.{i+1}.downsample"),  # official stages end with it
        Rename("layers.{i}", "stages.{i}"),
        Rename("head", "head.fc"),
    ),
    drop=("*.relative_position_index", "*.attn_mask"),
    rebuild=_index_buffers,
    resize={"relative_position_bias_table": resize_bias_table, "absolute_pos_embed": resize_positions},
)

CARD = Card(
    name="swin",
    task="vision",
    title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
    paper="https://arxiv.org/abs/2103.14030",
    code="https://github.com/microsoft/Swin-Transformer",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_swin.py::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_swin.py::test_official_keys",
    },
    differs="Maps that windows do not divide are padded before they shift, as in the official detectors; the "
    "official classifier refuses them. There is no dropout on attention probabilities.",
)

_TINY = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
_SMALL = {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)}
_BASE = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
_LARGE = {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)}
_C24 = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (4, 8, 16, 32), "window_size": 8}
_TEST = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4}
_W12 = {"window_size": 12}


def _variant(
    options: Mapping[str, object], size: int, parameters: float, gflops: float, top1: float, file: str
) -> Variant:
    """A published row of the official table, and the file of its weights."""
    url = f"https://github.com/SwinTransformer/storage/releases/download/{file}.pth"
    cfg = {"crop_pct": 0.9 if size == 224 else 1.0}
    return Variant(options, size, parameters, gflops, top1, weights=url, cfg=cfg)


register_backbone(
    SwinTransformer,
    CARD,
    {
        "swin_tiny_patch4_window7_224": _variant(
            _TINY, 224, 28.29, 4.5, 81.2, "v1.0.0/swin_tiny_patch4_window7_224"
        ),
        "swin_small_patch4_window7_224": _variant(
            _SMALL, 224, 49.61, 8.7, 83.2, "v1.0.0/swin_small_patch4_window7_224"
        ),
        "swin_base_patch4_window7_224": _variant(
            _BASE, 224, 87.77, 15.4, 83.5, "v1.0.0/swin_base_patch4_window7_224"
        ),
        "swin_base_patch4_window12_384": _variant(
            _BASE | _W12, 384, 87.90, 47.1, 84.5, "v1.0.0/swin_base_patch4_window12_384"
        ),
        "swin_large_patch4_window7_224": _variant(
            _LARGE, 224, 196.53, 34.5, 86.3, "v1.0.0/swin_large_patch4_window7_224_22kto1k"
        ),
        "swin_large_patch4_window12_384": _variant(
            _LARGE | _W12, 384, 196.74, 103.9, 87.3, "v1.0.0/swin_large_patch4_window12_384_22kto1k"
        ),
        "swin_tiny_c24_patch4_window8_256": _variant(
            _C24, 256, 28.31, 5.9, 81.6, "v1.0.5/swin_tiny_c24_patch4_window8_256"
        ),
        "swin_test": Variant(_TEST, 32),
    },
)
