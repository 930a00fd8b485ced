"""DaViT: attention among positions in windows, then among channels of the map (Ding et al., ECCV 2022).

Paper: https://arxiv.org/abs/2204.03645. Official code: https://github.com/dingmyu/davit (MIT).
Each layer is a block of 7x7 window attention without shift or bias (section 3.2), then one of channel
attention (section 3.1, eq. 3), in which a head's channels are the tokens: they attend to each other over all
positions. A 3x3 depthwise convolution is added before each attention and before each MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from timm.layers import DropPath, LayerNorm2d, NormMlpClassifierHead
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels import attention
from graphrec.kernels.patterns import Windows
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    Conv2d,
    GridAttention,
    Linear,
    Mlp,
    Stage,
    convolved,
    drop_path_rates,
    init_linear_and_conv,
)
from ..models import register_backbone


class Downsample(nn.Module):
    """Patches of 2x2, normalised before (section 3.3); odd maps are padded."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.proj = Conv2d(dim, out, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), out)."""
        x = self.norm(x)
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        return convolved(self.proj, x)


class Stem(nn.Module):
    """Overlapping patches of 7x7 at every fourth pixel, normalised after."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = Conv2d(in_chans, dim, 7, 4, padding=3)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, ceil(H / 4), ceil(W / 4), dim)."""
        height, width = x.shape[-2:]
        if height % 4 or width % 4:
            x = F.pad(x, (0, -width % 4, 0, -height % 4))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PositionEncoding(nn.Module):
    """``x + depthwise(x)`` on maps (B, H, W, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """The map with its neighbours' sum."""
        return x + self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ChannelAttention(nn.Module):
    """``softmax(k.T v / sqrt(d)) q.T``: in each group of channels, every channel attends to the others.

    So the official code has it; the paper's eq. 3 writes the roles of the three otherwise, which the
    projection can name as it likes.
    """

    mixes_channels = True
    """Nobody looks at a place here; for `graphrec.vision.explain`."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        batch, height, width, dim = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 4, 1).unbind(0)  # [B, heads, D, L]: channels are the tokens
        mixed = attention(k, v, q, scale=(dim // self.heads) ** -0.5)
        return self.proj(mixed.permute(0, 3, 1, 2).reshape(batch, height, width, dim))


class WindowAttention(GridAttention):
    """Attention in windows; a map is padded to whole ones with zeros, which join."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool, window: int) -> None:
        super().__init__(dim, heads, qkv_bias=qkv_bias)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, H, W, C) to the same shape."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        mixed = super().forward(padded, Windows(tuple(padded.shape[1:3]), self.window))
        return mixed[:, :height, :width]


class DualBlock(nn.Module):
    """Position encoding, attention of either kind, position encoding, MLP; each is added to its input."""

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.cpe = nn.ModuleList([PositionEncoding(dim), PositionEncoding(dim)])
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = self.cpe[0](x)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = self.cpe[1](x)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DaViT(Backbone):
    """DaViT; a state is (B, H, W, C).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        depths: Layers per stage, each a block of window and one of channel attention.
        embed_dims: Channels per stage.
        num_heads: Heads, and groups of channels, per stage.
        window_size: Side of a window.
        mlp_ratio: Width of the MLP over that of the stage.
        qkv_bias: Bias of the projections to queries, keys and values.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    plans_by_size = True
    layout = "NHWC"
    final_layout = "NCHW"
    first_conv = "stem.proj"
    keys = KeyMap(
        (
            Rename("patch_embeds.0", "stem"),
            Rename("patch_embeds.{i}", "stages.{i}.downsample"),
            Rename("main_blocks.{i}", "stages.{i}.blocks"),
            Rename("norms", "head.norm"),
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
        depths: Sequence[int] = (1, 1, 3, 1),
        embed_dims: Sequence[int] = (96, 192, 384, 768),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__(
            features=[(dim, 4 * 2**number) for number, dim in enumerate(embed_dims)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=4,
        )
        self.stem = Stem(in_chans, embed_dims[0])
        rates = drop_path_rates(drop_path_rate, [2 * depth for depth in depths])

        def layer(dim: int, heads: int, first: float, second: float) -> nn.Sequential:
            window = WindowAttention(dim, heads, qkv_bias, window_size)
            channels = ChannelAttention(dim, heads, qkv_bias)
            return nn.Sequential(
                DualBlock(dim, window, mlp_ratio, first), DualBlock(dim, channels, mlp_ratio, second)
            )

        self.stages = nn.ModuleList(
            Stage(
                [
                    layer(dim, num_heads[number], *rates[number][2 * place : 2 * place + 2])
                    for place in range(depths[number])
                ],
                Downsample(embed_dims[number - 1], dim) if number else None,
            )
            for number, dim in enumerate(embed_dims)
        )
        # The final norm comes after the pooling, so it belongs to the head.
        self.head = NormMlpClassifierHead(
            embed_dims[-1],
            num_classes,
            pool_type=global_pool,
            drop_rate=drop_rate,
            norm_layer=partial(LayerNorm2d, eps=1e-5),
        )
        self.apply(init_linear_and_conv)

    def finish(self, state: Tensor) -> Tensor:
        """(B, H, W, C) to (B, C, H, W), as the head takes it."""
        return state.permute(0, 3, 1, 2)


CARD = Card(
    name="davit",
    task="vision",
    title="DaViT: Dual Attention Vision Transformers",
    paper="https://arxiv.org/abs/2204.03645",
    code="https://github.com/dingmyu/davit",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_davit.py::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_davit.py::test_official_keys",
    },
    differs="The official code lacks the paper's Huge and Giant, of which no weights are public: they are as "
    "timm has them, for 224 pixels. The official weights of the others are behind web pages that a program "
    "cannot download from: download them and give the path.",
)

_HEADS = {"num_heads": (3, 6, 12, 24), "embed_dims": (96, 192, 384, 768)}
_BASE = {"num_heads": (4, 8, 16, 32), "embed_dims": (128, 256, 512, 1024), "depths": (1, 1, 9, 1)}
_LARGE = {"num_heads": (6, 12, 24, 48), "embed_dims": (192, 384, 768, 1536), "depths": (1, 1, 9, 1)}
_HUGE = {"num_heads": (8, 16, 32, 64), "embed_dims": (256, 512, 1024, 2048), "depths": (1, 1, 9, 1)}
_GIANT = {"num_heads": (12, 24, 48, 96), "embed_dims": (384, 768, 1536, 3072), "depths": (1, 1, 12, 3)}
_TEST = {"depths": (1, 1), "embed_dims": (8, 16), "num_heads": (1, 2), "window_size": 3}
_CROP = {"crop_pct": 0.9}

register_backbone(
    DaViT,
    CARD,
    {
        "davit_tiny": Variant(_HEADS | {"depths": (1, 1, 3, 1)}, 224, 28.36, 4.5, 82.8, cfg=_CROP),
        "davit_small": Variant(_HEADS | {"depths": (1, 1, 9, 1)}, 224, 49.75, 8.8, 84.2, cfg=_CROP),
        "davit_base": Variant(_BASE, 224, 87.95, 15.5, 84.6, cfg=_CROP),
        "davit_large_window12_384": Variant(
            _LARGE | {"window_size": 12},
            384,
            196.81,
            103.0,
            cfg={"crop_pct": 1.0},
            note="no weights published",
        ),
        "davit_huge": Variant(_HUGE, 224, 348.92, cfg=_CROP, note="parameters as timm has them"),
        "davit_giant": Variant(
            _GIANT, 224, 1406.47, cfg=_CROP, note="published as 1.4 billion parameters, for 512 pixels"
        ),
        "davit_test": Variant(_TEST, 32),
    },
)
