"""BiFormer: regions of a map choose the regions that their positions attend to (Zhu et al., CVPR 2023).

Paper: https://arxiv.org/abs/2303.08810. Official code: https://github.com/rayleizhu/BiFormer (MIT).
The map is cut into 7x7 regions whatever its size. The means of queries and keys say which few regions of
keys each region of queries sees (bi-level routing, section 3.2); a 5x5 depthwise convolution of the
values is added. The last stage sees all of its small map. Blocks begin with a depthwise convolution that
tells positions apart (figure 3). BiFormer-STL puts the attention into Swin-T's layout and has no such
convolution; of its official rewriting for channels first (``ops/bra_nchw.py``) this has the arithmetic, laid
out as the rest is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from timm.layers import ClassifierHead, DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.kernels import attention
from graphrec.kernels.policies import biformer_region, biformer_routing
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import CONV_AS_LINEAR, Convert, KeyMap, Rename
from ..layers import (
    GELU,
    Conv2d,
    FoldingSequence,
    GridAttention,
    Linear,
    Mlp,
    Stage,
    drop_path_rates,
    init_linear_and_conv,
)
from ..models import register_backbone


def _depthwise(dim: int, kernel: int) -> nn.Conv2d:
    return Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)


class RoutedAttention(nn.Module):
    """Each of ``windows`` x ``windows`` regions attends to the ``topk`` that resemble it (eq. 4 to 7).

    A map that the regions do not divide is padded with zeros at the bottom and the right, which join as keys.
    The official code for segmentation pads before the projection, and averages what is padded with the rest;
    the ``refactored`` code has as many regions of ``side // windows`` as it takes, the last of which have the
    mean of what they hold, and pads queries, keys and values.
    """

    def __init__(self, dim: int, heads: int, windows: int, topk: int, refactored: bool = False) -> None:
        super().__init__()
        self.heads, self.windows, self.topk, self.refactored = heads, windows, topk, refactored
        self.to_qkv = Linear(dim, 3 * dim)
        self.lepe = _depthwise(dim, 5)
        self.wo = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        height, width = x.shape[1:3]
        down, right = -height % self.windows, -width % self.windows
        if (down or right) and not self.refactored:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        batch, tall, wide, dim = x.shape
        qkv = self.to_qkv(x)
        packed = qkv.view(batch, tall * wide, 3, self.heads, dim // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, L, D]
        pattern = biformer_routing(q, k, (tall, wide), biformer_region((tall, wide), self.windows), self.topk)
        # The official scale is that of all channels, not that of a head.
        mixed = attention(q, k, v, pattern, scale=dim**-0.5, sink=pattern.padding_sink())
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        lepe = self.lepe(qkv[..., 2 * dim :].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.wo(mixed + lepe)[:, :height, :width]


class FullAttention(GridAttention):
    """All positions see all; a depthwise convolution is added before the last projection.

    It is one of the input, or of the values in the ``refactored`` code.
    """

    def __init__(self, dim: int, heads: int, refactored: bool = False) -> None:
        super().__init__(dim, heads, qkv_bias=False)
        self.lepe, self.refactored = _depthwise(dim, 5), refactored

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, H, W, C) to the same shape."""
        batch, height, width, dim = x.shape
        qkv = self.qkv(x)
        packed = qkv.view(batch, height * width, 3, self.heads, dim // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(q, k, v).transpose(1, 2).reshape(x.shape)
        local = qkv[..., 2 * dim :] if self.refactored else x
        return self.proj(mixed + self.lepe(local.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class BiFormerBlock(nn.Module):
    """``x + positions(x)``, ``x + attention(norm(x))``, ``x + mlp(norm(x))`` on maps (B, C, H, W)."""

    def __init__(
        self, dim: int, attn: nn.Module, *, mlp_ratio: float, positions: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.pos_embed = _depthwise(dim, 3) if positions else None
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


class BiFormer(Backbone):
    """BiFormer; a state is (B, C, H, W).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        swin_layout: Patches that do not overlap, and no convolution before the attention (STL).
        refactored: Attention as in the official rewriting of STL, see its parts; a map has no fewer positions
            per axis than ``windows`` then.
        embed_dims: Channels per stage.
        depths: Blocks per stage.
        head_dim: Channels of a head where regions are routed; attention to the whole map has ``full_heads``.
        full_heads: Heads of the stages that see all of their map.
        windows: Regions per axis.
        topks: Regions that a region sees, per stage; None is attention to the whole map.
        mlp_ratio: Width of the MLP over that of the stage.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    plans_by_size = True

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        swin_layout: bool = False,
        refactored: bool = False,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 8, 2),
        head_dim: int = 32,
        full_heads: int = 8,
        windows: int = 7,
        topks: Sequence[int | None] = (1, 4, 16, None),
        mlp_ratio: float = 3.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        if refactored and not swin_layout:
            raise ConfigError("refactored=True: only with swin_layout=True, as the official code has it")
        reductions = [4 * 2**number for number in range(len(embed_dims))]
        coarsest = max((one for one, topk in zip(reductions, topks, strict=True) if topk), default=0)
        super().__init__(
            features=list(zip(embed_dims, reductions, strict=True)),
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=max(windows * coarsest, reductions[-1]) if refactored else None,
        )
        self.stem = _patches(in_chans, embed_dims[0]) if swin_layout else _stem(in_chans, embed_dims[0])
        downsample = _merge if swin_layout else _halve
        block = partial(BiFormerBlock, mlp_ratio=mlp_ratio, positions=not swin_layout)
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList()
        for number, (dim, topk) in enumerate(zip(embed_dims, topks, strict=True)):
            attn: Callable[[], nn.Module]
            if topk is None:
                attn = partial(FullAttention, dim, full_heads, refactored)
            else:
                attn = partial(RoutedAttention, dim, dim // head_dim, windows, topk, refactored)
            blocks = [block(dim, attn(), drop_path=rate) for rate in rates[number]]
            self.stages.append(Stage(blocks, downsample(embed_dims[number - 1], dim) if number else None))
        self.norm = nn.BatchNorm2d(embed_dims[-1])
        self.head = ClassifierHead(embed_dims[-1], num_classes, global_pool, drop_rate)
        for module in (self.head if refactored else self).modules():
            if isinstance(module, nn.Linear):  # what is officially a convolution keeps torch's initial values
                init_linear_and_conv(module)
        if swin_layout:
            self.keys = REFACTORED_KEYS if refactored else STL_KEYS


def _stem(in_chans: int, dim: int) -> FoldingSequence:
    """Two 3x3 convolutions of stride 2."""
    first, second = Conv2d(in_chans, dim // 2, 3, 2, 1), Conv2d(dim // 2, dim, 3, 2, 1)
    return FoldingSequence(first, nn.BatchNorm2d(dim // 2), GELU(), second, nn.BatchNorm2d(dim))


def _halve(dim: int, out: int) -> FoldingSequence:
    """A 3x3 convolution of stride 2."""
    return FoldingSequence(Conv2d(dim, out, 3, 2, 1), nn.BatchNorm2d(out))


def _patches(in_chans: int, dim: int) -> FoldingSequence:
    """Patches of 4x4 pixels."""
    return FoldingSequence(Conv2d(in_chans, dim, 4, 4), nn.BatchNorm2d(dim))


def _merge(dim: int, out: int) -> FoldingSequence:
    """Patches of 2x2 positions."""
    return FoldingSequence(nn.BatchNorm2d(dim), Conv2d(dim, out, 2, 2))


_OURS = "stages.{i}.blocks.{j}"


def _keys(block: str, names: Mapping[str, str], value: Convert | None = None) -> KeyMap:
    """Official names; ``names`` are those of a block's linear layers, whose weights ``value`` converts."""
    linear = (
        Rename(f"{block}.{official}.{part}", f"{_OURS}.{ours}.{part}", value if part == "weight" else None)
        for official, ours in names.items()
        for part in ("weight", "bias")
    )
    return KeyMap(
        rules=(
            Rename("downsample_layers.0", "stem"),
            Rename("downsample_layers.{i}", "stages.{i}.downsample"),
            *linear,
            Rename(block, _OURS),
            Rename("head", "head.fc"),
        )
    )


_LEGACY = {"attn.qkv.qkv": "attn.to_qkv", "mlp.0": "mlp.fc1"}
KEYS = _keys("stages.{i}.{j}", _LEGACY | {"mlp.3": "mlp.fc2"})
STL_KEYS = _keys(_OURS, _LEGACY | {"mlp.2": "mlp.fc2"})
_REFACTORED = {"attn.qkv_linear": "attn.to_qkv", "attn.output_linear": "attn.wo"}
_CONVOLUTIONS = {"attn.qkv": "attn.qkv", "attn.proj": "attn.proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
REFACTORED_KEYS = _keys(_OURS, _REFACTORED | _CONVOLUTIONS, CONV_AS_LINEAR)
BiFormer.keys = KEYS

CARD = Card(
    name="biformer",
    task="vision",
    title="BiFormer: Vision Transformer with Bi-Level Routing Attention",
    paper="https://arxiv.org/abs/2303.08810",
    code="https://github.com/rayleizhu/BiFormer",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal the official code's": (
            "tests/vision/test_biformer.py::test_equals_official"
        ),
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_biformer.py::test_official_keys",
    },
    differs="Maps that the regions do not divide are padded as with the official auto_pad, but for "
    "biformer_stl_nchw, which cuts and pads them as its own official code does.",
)

_SMALL = {"depths": (4, 4, 18, 4), "drop_path_rate": 0.15}
_BASE = {"embed_dims": (96, 192, 384, 768), "depths": (4, 4, 18, 4), "drop_path_rate": 0.4}
_STL = {"swin_layout": True, "embed_dims": (96, 192, 384, 768), "depths": (2, 2, 6, 2), "mlp_ratio": 4.0}
_TEST = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 2, 1), "head_dim": 4, "full_heads": 8}
_TEST |= {"windows": 2, "topks": (1, 2, 3, None)}


def _variant(
    options: Mapping[str, object], parameters: float, gflops: float, top1: float, key: str, **cfg: object
) -> Variant:
    """A row of the official table, and the file of its weights."""
    url = f"https://api.onedrive.com/v1.0/shares/s!AkBbczdRlZvCh{key}/root/content"
    return Variant(options, 224, parameters, gflops, top1, weights=url, cfg=cfg)


register_backbone(
    BiFormer,
    CARD,
    {
        "biformer_tiny": _variant({}, 13.14, 2.2, 81.4, "HEOoGkgwgQzEDlM"),
        "biformer_small": _variant(_SMALL, 25.54, 4.5, 83.8, "HDyM-x9KWRBZ832"),
        "biformer_base": _variant(_BASE, 56.80, 9.8, 84.3, "HI_XPhoadjaNxtO"),
        "biformer_stl": _variant(_STL, 28.37, 4.6, 82.7, "Sf-m7ujkvx9lIQ1"),
        "biformer_stl_nchw": _variant(
            _STL | {"refactored": True}, 28.37, 4.6, 82.7, "WYrKbWbMgqd2Ai0", min_input_size=(3, 112, 112)
        ),
        "biformer_test": Variant(_TEST, 32),
        "biformer_stl_test": Variant(_TEST | {"swin_layout": True}, 32),
        "biformer_stl_nchw_test": Variant(_TEST | {"swin_layout": True, "refactored": True}, 32),
    },
)
