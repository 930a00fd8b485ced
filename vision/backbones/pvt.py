"""PVT: a pyramid of transformers whose keys are the map at a lower resolution (Wang et al., ICCV 2021).

Paper: https://arxiv.org/abs/2102.12122. Official code: https://github.com/whai362/PVT (classification/pvt.py,
Apache-2.0). Spatial-reduction attention (section 3.3): queries at full resolution, keys and values from a
convolution whose kernel and stride are the reduction, then layer norm. Positions are learned per stage and
interpolated to other sizes; a class token joins in the last stage alone. The norms of blocks have an epsilon
of 1e-6, those of patches and of the reduction 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from timm.layers import DropPath
from timm.models import checkpoint
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import Conv2d, Mlp, ReducedAttention, SequenceHead, Stage, drop_path_rates, resize_positions
from ..models import register_backbone

_norm = partial(nn.LayerNorm, eps=1e-6)


class Tokens(NamedTuple):
    """Tokens (B, N, C) of a map, the class token before them where there is one, and the map's size."""

    tokens: Tensor
    size: tuple[int, int]

    def as_map(self) -> Tensor:
        """(B, C, H, W) without the class token."""
        height, width = self.size
        return self.tokens[:, -height * width :].mT.unflatten(2, self.size)


class PVTBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = _norm(dim)
        self.attn = ReducedAttention(dim, heads, reduction)
        self.norm2 = _norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    """Non-overlapping patches as normalised tokens; what is left at the edges is cut off."""

    def __init__(self, in_chans: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = Conv2d(in_chans, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tokens:
        """Tokens of a map (B, C, H, W)."""
        x = self.proj(x)
        return Tokens(self.norm(x.flatten(2).mT), (x.shape[2], x.shape[3]))


class PVTStage(Stage):
    """Patches, positions, blocks.

    Args:
        patches: Makes the tokens.
        blocks: What they pass through.
        grid: Height and width of the map that the positions are learned for.
        dim: Channels.
        class_token: Whether a class token joins.
        drop: Dropout on the tokens.
    """

    def __init__(
        self,
        patches: Patches,
        blocks: Sequence[nn.Module],
        grid: tuple[int, int],
        dim: int,
        class_token: bool,
        drop: float,
    ) -> None:
        super().__init__(blocks)
        self.patch_embed, self.grid = patches, grid
        self.pos_embed = nn.Parameter(torch.empty(1, grid[0] * grid[1] + class_token, dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop)
        self.cls_token: nn.Parameter | None = None
        if class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    def positions(self, size: tuple[int, int]) -> Tensor:
        """Positions (1, N, C) of a map of this size, interpolated where it is another."""
        if size == self.grid:
            return self.pos_embed
        first = self.pos_embed.shape[1] - self.grid[0] * self.grid[1]
        table = self.pos_embed[:, first:].mT.unflatten(2, self.grid)
        table = F.interpolate(table, size=size, mode="bilinear")
        return torch.cat([self.pos_embed[:, :first], table.flatten(2).mT], 1)

    def forward(self, x: Tensor | Tokens) -> Tokens:  # type: ignore[override]
        """Tokens of an image (B, C, H, W), or of the tokens of the stage before."""
        tokens, size = self.patch_embed(x.as_map() if isinstance(x, Tokens) else x)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], 1)
        tokens = self.pos_drop(tokens + self.positions(size))
        for block in self.blocks:
            again = self.grad_checkpointing and torch.is_grad_enabled()
            tokens = checkpoint(block, tokens, size) if again else block(tokens, size)
        return Tokens(tokens, size)


class TokenNorm(nn.LayerNorm):
    """Layer norm of the tokens in a state."""

    def forward(self, state: Tokens) -> Tokens:  # type: ignore[override]
        """The state with normalised tokens."""
        return Tokens(super().forward(state.tokens), state.size)


def _resize(value: Tensor, target: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions at another size, bilinear; what exceeds the grid is the class token's."""
    prefix = target.shape[1] - grid[0] * grid[1]
    return resize_positions(value, target, prefix=prefix, mode="bilinear", grid=grid)


class PVT(Backbone):
    """Pyramid vision transformer; a state is `Tokens`.

    Args:
        img_size: Images that the positions are learned for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: "token", "avg" or "" for none.
        patch_size: Side of a patch of the image; later stages halve the resolution.
        embed_dims: Channels per stage.
        depths: Blocks per stage.
        num_heads: Heads per stage.
        mlp_ratios: Width of the MLP over that of the stage.
        sr_ratios: How much lower the resolution of keys and values is, per stage; 1 in the last.
        drop_rate: Dropout on tokens and before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    final_layout = "NLC"
    first_conv = "stages.0.patch_embed.proj"
    stem_pattern = r"^stages\.0\.(?:patch_embed|pos_embed)"
    no_decay = ("cls_token",)

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        patch_size: int = 4,
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        steps = [patch_size * 2**number for number in range(len(embed_dims))]
        super().__init__(
            features=list(zip(embed_dims, steps, strict=True)),
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=max(step * ratio for step, ratio in zip(steps, sr_ratios, strict=True)),
        )
        rates, last = drop_path_rates(drop_path_rate, depths), len(embed_dims) - 1
        self.stages = nn.ModuleList(
            PVTStage(
                Patches(embed_dims[number - 1] if number else in_chans, dim, 2 if number else patch_size),
                [
                    PVTBlock(dim, num_heads[number], mlp_ratios[number], sr_ratios[number], rate)
                    for rate in rates[number]
                ],
                (self.img_size[0] // steps[number], self.img_size[1] // steps[number]),
                dim,
                number == last,
                drop_rate,
            )
            for number, dim in enumerate(embed_dims)
        )
        self.norm = TokenNorm(embed_dims[-1], eps=1e-6)
        self.head = SequenceHead(embed_dims[-1], num_classes, global_pool, drop_rate)
        self.apply(_init)
        self.keys = KeyMap(
            rules=(
                Rename("patch_embed{i+1}", "stages.{i}.patch_embed"),
                Rename("pos_embed{i+1}", "stages.{i}.pos_embed"),
                Rename("block{i+1}", "stages.{i}.blocks"),
                Rename("cls_token", f"stages.{last}.cls_token"),
                Rename("head", "head.fc"),
            ),
            resize={"pos_embed": _resize},
        )

    def embed(self, image: Tensor) -> Tensor:
        """The image: each stage makes its own patches."""
        return image

    def feature_map(self, state: Tokens, number: int) -> Tensor:
        """(B, C, H, W)."""
        return state.as_map()

    def finish(self, state: Tokens) -> Tensor:
        """The normalised tokens (B, 1 + N, C), the class token first."""
        return self.norm(state).tokens


def _init(module: nn.Module) -> None:
    """Linear layers as the official code; convolutions keep torch's own values."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


CARD = Card(
    name="pvt",
    task="vision",
    title="Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions",
    paper="https://arxiv.org/abs/2102.12122",
    code="https://github.com/whai362/PVT",
    licence="Apache-2.0",
    verified={
        "logits, pyramid and gradients equal the official code's": (
            "tests/vision/test_pvt.py::test_equals_official"
        ),
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_pvt.py::test_official_keys",
    },
    differs="PVT v2, another architecture, is absent.",
)


def _variant(depths: Sequence[int], parameters: float, gflops: float, top1: float, file: str) -> Variant:
    """A published row; widths and heads are the class's defaults in all of them."""
    url = f"https://github.com/whai362/PVT/releases/download/v2/{file}.pth"
    return Variant({"depths": depths}, 224, parameters, gflops, top1, weights=url, cfg={"crop_pct": 0.9})


_TEST = {
    "embed_dims": (16, 24), "depths": (1, 2), "num_heads": (1, 2), "mlp_ratios": (2, 2), "sr_ratios": (4, 1)
}  # fmt: skip

register_backbone(
    PVT,
    CARD,
    {
        "pvt_tiny": _variant((2, 2, 2, 2), 13.23, 1.9, 75.1, "pvt_tiny"),
        "pvt_small": _variant((3, 4, 6, 3), 24.49, 3.8, 79.8, "pvt_small"),
        "pvt_medium": _variant((3, 4, 18, 3), 44.21, 6.7, 81.2, "pvt_medium"),
        "pvt_large": _variant((3, 8, 27, 3), 61.37, 9.8, 81.7, "pvt_large"),
        "pvt_test": Variant(_TEST, 32),
    },
)
