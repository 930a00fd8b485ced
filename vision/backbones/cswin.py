"""CSWin Transformer: attention in stripes that cross (Dong et al., CVPR 2022).

Paper: https://arxiv.org/abs/2107.00652. Official code: https://github.com/microsoft/CSWin-Transformer (MIT).
Half of the heads look along vertical stripes, half along horizontal ones, wider in later stages (section
3.2), and the last stage sees all of its map. A depthwise convolution of the values inside each stripe is
added to what was attended to: the locally enhanced positional encoding, LePE (section 3.3). Patches
overlap, in the stem and between stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from timm.layers import ClassifierHead, DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels import attention
from graphrec.kernels.patterns import Windows
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import Conv2d, Linear, Mlp, Stage, convolved, drop_path_rates, init_linear_and_conv
from ..models import register_backbone


class OverlappingPatches(nn.Module):
    """A 7x7 convolution of stride 4, then a norm over channels."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = Conv2d(in_chans, dim, 7, 4, 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, (H + 1) // 4, (W + 1) // 4, dim)."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class MergeBlock(nn.Module):
    """A 3x3 convolution of stride 2 to twice the channels, then a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, 2 * dim, 3, 2, 1)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2C)."""
        return self.norm(convolved(self.conv, x))


class LePEAttention(nn.Module):
    """Attention in windows plus a 3x3 depthwise convolution of the values ending at their edges (eq. 7)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.get_v = Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, qkv: Tensor, window: tuple[int, int]) -> Tensor:
        """What queries find in their windows.

        Args:
            qkv: (B, H, W, 3, C).
            window: Height and width of a window. A map that windows do not divide is padded with zeros
                on both sides, which join as keys, as in the official segmentation code.

        Returns:
            (B, H, W, C).
        """
        height, width = qkv.shape[1:3]
        down, right = -height % window[0], -width % window[1]
        top, left = down // 2, right // 2
        if down or right:
            qkv = F.pad(qkv, (0, 0, 0, 0, left, right - left, top, down - top))
        batch, tall, wide, _, dim = qkv.shape
        packed = qkv.reshape(batch, tall * wide, 3, self.heads, dim // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, L, D]
        mixed = attention(q, k, v, Windows((tall, wide), window))
        out = mixed.transpose(1, 2).reshape(batch, tall, wide, dim) + self._lepe(qkv[:, :, :, 2], window)
        return out[:, top : top + height, left : left + width]

    def _lepe(self, v: Tensor, window: tuple[int, int]) -> Tensor:
        """The convolution of (B, H, W, C), window by window."""
        batch, height, width, dim = v.shape
        rows, columns = height // window[0], width // window[1]
        cut = v.reshape(batch, rows, window[0], columns, window[1], dim).permute(0, 1, 3, 5, 2, 4)
        mixed = self.get_v(cut.reshape(-1, dim, *window)).reshape(batch, rows, columns, dim, *window)
        return mixed.permute(0, 1, 4, 2, 5, 3).reshape(batch, height, width, dim)


class CSWinBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))`` (eq. 9).

    Args:
        dim: Channels.
        heads: Heads; half of them, with half of the channels, for each direction.
        split: Width of a stripe; None is attention to the whole map, by all heads.
        mlp_ratio: Width of the MLP over ``dim``.
        qkv_bias: Bias of the projection to queries, keys and values.
        drop: Dropout in the MLP.
        drop_path: Stochastic depth.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        split: int | None,
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.split = split
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        parts = 1 if split is None else 2
        self.attns = nn.ModuleList(LePEAttention(dim // parts, heads // parts) for _ in range(parts))
        self.proj = Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.drop_path(self.proj(self._attend(self.norm1(x))))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        """The first half of the channels along vertical stripes, the second along horizontal ones."""
        height, width = x.shape[1:3]
        qkv = self.qkv(x).unflatten(3, (3, -1))
        if self.split is None:
            return self.attns[0](qkv, (height, width))
        vertical, horizontal = qkv.chunk(2, -1)
        across = self.attns[0](vertical, (height, self.split))
        return torch.cat([across, self.attns[1](horizontal, (self.split, width))], -1)


class CSWinTransformer(Backbone):
    """CSWin Transformer; a state is (B, H, W, C).

    Args:
        img_size: Images that the model is made for; forward takes others. A stage whose map then is as wide
            as its stripes attends to all of it, and so does the last one.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        embed_dim: Channels of the first stage; each stage doubles them.
        depths: Blocks per stage.
        num_heads: Heads per stage.
        split_sizes: Width of the stripes per stage; the last is not used.
        mlp_ratio: Width of the MLP over that of the stage.
        qkv_bias: Bias of the projection to queries, keys and values.
        drop_rate: Dropout before the classifier and in the MLPs.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    plans_by_size = True
    layout = "NHWC"
    first_conv = "patch_embed.proj"

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 64,
        depths: Sequence[int] = (1, 2, 21, 1),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        split_sizes: Sequence[int] = (1, 2, 7, 7),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
    ) -> None:
        dims = [embed_dim * 2**number for number in range(len(depths))]
        super().__init__(
            features=[(dim, 4 * 2**number) for number, dim in enumerate(dims)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=4,
        )
        self.patch_embed = OverlappingPatches(in_chans, embed_dim)
        block = partial(CSWinBlock, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, drop=drop_rate)
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList()
        for number, (dim, split) in enumerate(zip(dims, split_sizes, strict=True)):
            side = self.img_size[0] // (4 * 2**number)
            whole = number == len(dims) - 1 or (self.img_size[0] == self.img_size[1] and side == split)
            blocks = [
                block(dim, num_heads[number], None if whole else split, drop_path=rate)
                for rate in rates[number]
            ]
            self.stages.append(Stage(blocks, MergeBlock(dim // 2) if number else None))
        self.norm = nn.LayerNorm(dims[-1])
        self.head = ClassifierHead(dims[-1], num_classes, global_pool, drop_rate, input_fmt="NHWC")
        for module in self.modules():  # convolutions keep torch's initial values
            if isinstance(module, nn.Linear):
                init_linear_and_conv(module)

    def embed(self, image: Tensor) -> Tensor:
        """Patches (B, H / 4, W / 4, C)."""
        return self.patch_embed(image)


CSWinTransformer.keys = KeyMap(
    rules=(
        Rename("stage1_conv_embed.0", "patch_embed.proj"),
        Rename("stage1_conv_embed.2", "patch_embed.norm"),
        Rename("merge{i}", "stages.{i}.downsample"),
        Rename("stage{i+1}.{j}", "stages.{i}.blocks.{j}"),
        Rename("head", "head.fc"),
    )
)

CARD = Card(
    name="cswin",
    task="vision",
    title="CSWin Transformer: A General Vision Transformer Backbone with Cross-Shaped Windows",
    paper="https://arxiv.org/abs/2107.00652",
    code="https://github.com/microsoft/CSWin-Transformer",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal the official code's": (
            "tests/vision/test_cswin.py::test_equals_official"
        ),
        "stripes and LePE on padded maps equal a slow computation": (
            "tests/vision/test_cswin.py::test_maps_that_stripes_do_not_divide"
        ),
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_cswin.py::test_official_keys",
    },
    differs="Maps that stripes do not divide are padded as in the official segmentation code; the official "
    "classifier refuses them, and images of another size. There is no dropout on attention probabilities.",
)

_SMALL = {"depths": (2, 4, 32, 2), "drop_path_rate": 0.4}
_BASE = {"embed_dim": 96, "depths": (2, 4, 32, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.5}
_LARGE = {"embed_dim": 144, "depths": (2, 4, 32, 2), "num_heads": (6, 12, 24, 24)}
_384 = {"split_sizes": (1, 2, 12, 12)}
_TEST = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (2, 2, 2, 4), "split_sizes": (1, 2, 2, 2)}


def _variant(
    options: Mapping[str, object],
    parameters: float,
    gflops: float,
    top1: float,
    name: str,
    size: int = 224,
    counted: float | None = None,
) -> Variant:
    """A row of the official table, and the file of its weights."""
    url = f"https://github.com/microsoft/CSWin-Transformer/releases/download/v0.1.0/cswin_{name}.pth"
    cfg = {"crop_pct": 0.9 if size == 224 else 1.0}
    note = "" if counted is None else "1.5 times as wide as base, whose figure is right"
    return Variant(options, size, parameters, gflops, top1, weights=url, cfg=cfg, note=note, counted=counted)


register_backbone(
    CSWinTransformer,
    CARD,
    {
        "cswin_tiny_224": _variant({}, 22.32, 4.3, 82.8, "tiny_224"),
        "cswin_small_224": _variant(_SMALL, 34.64, 6.9, 83.6, "small_224"),
        "cswin_base_224": _variant(_BASE, 77.38, 15.0, 84.2, "base_224"),
        "cswin_base_384": _variant(
            _BASE | _384 | {"drop_path_rate": 0.7}, 77.38, 47.0, 85.5, "base_384", 384
        ),
        "cswin_large_224": _variant(_LARGE, 173.26, 31.5, 86.5, "large_224", counted=33.1),
        "cswin_large_384": _variant(_LARGE | _384, 173.26, 96.8, 87.5, "large_384", 384, 101.9),
        "cswin_test": Variant(_TEST, 64),
    },
)
