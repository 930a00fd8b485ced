"""VOLO: fine tokens by outlook attention, coarse ones by a transformer (Yuan et al., TPAMI 2023).

Paper: https://arxiv.org/abs/2106.13112. Official code: https://github.com/sail-sg/volo (Apache-2.0).
In the first stage a linear layer makes of every second token the k^2 x k^2 attention matrix of the 3x3 window
around it; what a window mixes is added to where it came from (section 3.1). Two layers of class attention
follow the transformer, and the logits are those of the class token plus half of the largest of all patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import RunError
from graphrec.kernels import outlook
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    ClassAttention,
    Conv2d,
    ConvNorm,
    GridAttention,
    Linear,
    Mlp,
    SequenceHead,
    Stage,
    TransformerBlock,
    convolved,
    drop_path_rates,
)
from ..models import register_backbone

KERNEL, STRIDE = 3, 2


class OutlookAttention(nn.Module):
    """Windows of 3x3 tokens, mixed by matrices that the tokens in their middle give (eq. 3 to 5)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.v = Linear(dim, dim, bias=False)
        self.attn = Linear(dim, KERNEL**4 * heads)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        pooled = F.avg_pool2d(x.permute(0, 3, 1, 2), STRIDE, STRIDE, ceil_mode=True).permute(0, 2, 3, 1)
        logits = self.scale * self.attn(pooled)
        weight = logits.unflatten(-1, (self.heads, KERNEL**2, KERNEL**2)).softmax(-1)
        value = self.v(x).permute(0, 3, 1, 2)
        mixed = outlook(value, weight.permute(0, 3, 4, 5, 1, 2), kernel_size=KERNEL, stride=STRIDE)
        return self.proj(mixed.permute(0, 2, 3, 1))


class ClassBlock(nn.Module):
    """A transformer's block that changes the first token alone."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ClassAttention(dim, heads, bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """The first token (B, 1, C), changed, of tokens (B, 1 + N, C)."""
        token = x[:, :1] + self.attn(self.norm1(x))
        return token + self.mlp(self.norm2(token))


class Downsample(nn.Module):
    """2x2 patches become one; then positions are added."""

    def __init__(self, dim: int, out: int, grid: tuple[int, int], drop: float) -> None:
        super().__init__()
        self.proj = Conv2d(dim, out, 2, 2)
        self.pos_embed = nn.Parameter(torch.empty(1, *grid, out))
        trunc_normal_(self.pos_embed, std=0.02)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, out)."""
        return self.drop(convolved(self.proj, x) + self.pos_embed)


class DenseHead(SequenceHead):
    """A classifier of the class token, plus half of the best logits of a second one of all patches."""

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """Fresh classifiers; ``pool_type`` as for the constructor, unchanged if None."""
        super().reset(num_classes, pool_type)
        self.aux: nn.Module | None = None
        if num_classes:
            self.aux = Linear(self.num_features, num_classes)
            trunc_normal_(self.aux.weight, std=0.02)
            nn.init.zeros_(self.aux.bias)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, classes) of tokens (B, 1 + N, C), or what the first classifier would see."""
        out = super().forward(x, pre_logits)
        if pre_logits or self.aux is None:
            return out
        return out + 0.5 * self.aux(x[:, self.prefix :]).max(1).values  # keeps no logits, as amax does


class VOLO(Backbone):
    """VOLO; a state is (B, H, W, C), and what the head sees tokens (B, 1 + N, C).

    Args:
        img_size: Images that the model is made for; positions depend on it.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: "token", "avg" or "" for none.
        layers: Blocks per stage; those of the first are Outlookers.
        embed_dims: Channels of the first stage, and of all others.
        num_heads: Heads of the first stage, and of all others.
        stem_dim: Channels of the stem.
        mlp_ratio: Width of the MLP over that of the stage.
        drop_rate: Dropout after the positions and before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier ones have less, Outlookers none.
    """

    layout = "NHWC"
    final_layout = "NLC"
    first_conv = "stem.0.c"
    classifier = "head.fc,head.aux"
    fixed_size = True
    no_decay = ("pos_embed", "cls_token")

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        layers: Sequence[int] = (4, 4, 8, 2),
        embed_dims: tuple[int, int] = (192, 384),
        num_heads: tuple[int, int] = (6, 12),
        stem_dim: int = 64,
        mlp_ratio: float = 3.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        fine, dim = embed_dims
        super().__init__(
            features=[(fine, 8)] + [(dim, 16)] * (len(layers) - 1),
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            multiple=16,
        )
        self.stem = _stem(in_chans, stem_dim, fine)
        rates = drop_path_rates(drop_path_rate, layers)
        outlookers = [
            TransformerBlock(fine, OutlookAttention(fine, num_heads[0]), mlp_ratio) for _ in rates[0]
        ]
        grid = (self.img_size[0] // 16, self.img_size[1] // 16)
        self.stages = nn.ModuleList([Stage(outlookers)])
        for number, chosen in enumerate(rates[1:]):
            blocks = [
                TransformerBlock(
                    dim, GridAttention(dim, num_heads[1], qkv_bias=False), mlp_ratio, drop_path=rate
                )
                for rate in chosen
            ]
            self.stages.append(Stage(blocks, None if number else Downsample(fine, dim, grid, drop_rate)))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.post = nn.ModuleList(ClassBlock(dim, num_heads[1], mlp_ratio) for _ in range(2))
        self.norm = nn.LayerNorm(dim)
        self.head = DenseHead(dim, num_classes, global_pool, drop_rate)
        trunc_normal_(self.cls_token, std=0.02)
        self.apply(_init)

    def embed(self, image: Tensor) -> Tensor:
        """Patches of 8 pixels, (B, H / 8, W / 8, C)."""
        return self.stem(image).permute(0, 2, 3, 1)

    def finish(self, state: Tensor) -> Tensor:
        """The class token after class attention, before the patches (B, 1 + N, C), normalised."""
        patches = state.flatten(1, 2)
        token = self.cls_token.expand(state.shape[0], -1, -1)
        for block in self.post:
            token = block(torch.cat([token, patches], 1))
        return self.norm(torch.cat([token, patches], 1))


def _stem(in_chans: int, hidden: int, dim: int) -> nn.Sequential:
    """Three convolutions at half the resolution, then patches of 4x4 of their outputs."""
    return nn.Sequential(
        ConvNorm(in_chans, hidden, 7, 2, 3),
        nn.ReLU(inplace=True),
        ConvNorm(hidden, hidden, 3, 1, 1),
        nn.ReLU(inplace=True),
        ConvNorm(hidden, hidden, 3, 1, 1),
        nn.ReLU(inplace=True),
        Conv2d(hidden, dim, 4, 4),
    )


def _init(module: nn.Module) -> None:
    """Initial weights of the official code: linear layers alone."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _resize(value: Tensor, target: Tensor) -> Tensor:
    """Positions (1, H, W, C) at another size, bicubic, as the official code does it."""
    if value.dim() != 4 or value.shape[3] != target.shape[3]:
        raise RunError(f"position table {tuple(value.shape)}: the model has {tuple(target.shape)}")
    size = (target.shape[1], target.shape[2])
    grid = F.interpolate(value.float().permute(0, 3, 1, 2), size=size, mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).to(value.dtype)


VOLO.keys = KeyMap(
    rules=(
        *(
            Rename(f"patch_embed.conv.{3 * number + part}", f"stem.{2 * number}.{name}")
            for number in range(3)
            for part, name in enumerate(("c", "bn"))
        ),
        Rename("patch_embed.proj", "stem.6"),
        Rename("network.0.{j}", "stages.0.blocks.{j}"),
        Rename("pos_embed", "stages.1.downsample.pos_embed"),
        Rename("network.1", "stages.1.downsample"),
        Rename("network.{i+1}.{j}", "stages.{i}.blocks.{j}"),
        Rename("post_network", "post"),
        Rename("aux_head", "head.aux"),
        Rename("head", "head.fc"),
    ),
    resize={"pos_embed": _resize},
)

CARD = Card(
    name="volo",
    task="vision",
    title="VOLO: Vision Outlooker for Visual Recognition",
    paper="https://arxiv.org/abs/2106.13112",
    code="https://github.com/sail-sg/volo",
    licence="Apache-2.0",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_volo.py::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_volo.py::test_official_keys",
        "positions at another size": "tests/vision/test_volo.py::test_positions_of_another_size",
    },
    differs="Logits are the same sum in training and in evaluation; the official training returns both parts "
    "and mixes tokens of images (token labelling), which is absent. There is no dropout on attention "
    "probabilities. Windows are not unfolded.",
)

_D1 = {"layers": (4, 4, 8, 2), "embed_dims": (192, 384), "num_heads": (6, 12)}
_D2 = {"layers": (6, 4, 10, 4), "embed_dims": (256, 512), "num_heads": (8, 16)}
_D3 = _D2 | {"layers": (8, 8, 16, 4)}
_D4 = {"layers": (8, 8, 16, 4), "embed_dims": (384, 768), "num_heads": (12, 16)}
_D5 = _D4 | {"layers": (12, 12, 20, 4), "mlp_ratio": 4.0, "stem_dim": 128}
_FEWER = "the paper's figure is less than the official code's convolutions and products"
_TEST = {"layers": (1, 1, 1), "embed_dims": (8, 16), "num_heads": (2, 4), "stem_dim": 4}


def _variant(
    options: Mapping[str, object],
    size: int,
    facts: tuple[float, float, float],
    file: str,
    counted: float | None = None,
) -> Variant:
    """A published row: parameters, GFLOPs, top-1, and the file of its weights."""
    url = f"https://github.com/sail-sg/volo/releases/download/volo_1/{file}.pth.tar"
    large = 1.15 if file.startswith(("d4", "d5")) else 1.0
    cfg = {"crop_pct": 0.96 if size == 224 else large}
    note = "" if counted is None else _FEWER
    return Variant(options, size, *facts, weights=url, cfg=cfg, note=note, counted=counted)


register_backbone(
    VOLO,
    CARD,
    {
        "volo_d1_224": _variant(_D1, 224, (26.63, 6.8, 84.2), "d1_224_84.2"),
        "volo_d1_384": _variant(_D1, 384, (26.78, 22.8, 85.2), "d1_384_85.2"),
        "volo_d2_224": _variant(_D2, 224, (58.68, 14.1, 85.2), "d2_224_85.2"),
        "volo_d2_384": _variant(_D2, 384, (58.87, 46.1, 86.0), "d2_384_86.0"),
        "volo_d3_224": _variant(_D3, 224, (86.33, 20.6, 85.4), "d3_224_85.4"),
        "volo_d3_448": _variant(_D3, 448, (86.63, 96.3, 86.3), "d3_448_86.3"),
        "volo_d4_224": _variant(_D4, 224, (192.96, 43.8, 85.7), "d4_224_85.7"),
        "volo_d4_448": _variant(_D4, 448, (193.41, 197.1, 86.8), "d4_448_86.79"),
        "volo_d5_224": _variant(_D5, 224, (295.46, 69.0, 86.1), "d5_224_86.10", 72.3),
        "volo_d5_448": _variant(_D5, 448, (295.91, 304.0, 87.0), "d5_448_87.0", 314.7),
        "volo_d5_512": _variant(_D5, 512, (296.09, 412.0, 87.1), "d5_512_87.07", 424.6),
        "volo_test": Variant(_TEST, 32),
    },
)
