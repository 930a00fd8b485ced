"""TNT: a transformer over patches, and in every patch one over its 4x4 pixels (Han et al., NeurIPS 2021).

Paper: https://arxiv.org/abs/2103.00112. Official code: https://github.com/huawei-noah/Efficient-AI-Backbones,
tnt_pytorch (Apache-2.0). A block lets the words of a patch attend to each other, adds all words of a patch,
projected, to the patch, and lets the patches and a class token attend to each other (eq. 2 to 6). Words are
made by a 7x7 convolution that sees one patch alone, with zeros around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn

from graphrec.kernels import attention, split_heads
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import Conv2d, Linear, Mlp, SequenceHead, drop_path_rates, resize_positions
from ..models import register_backbone

STRIDE = 4
"""Pixels of the image from one word to the next."""


class Sentences(NamedTuple):
    """A state."""

    words: Tensor
    """(B * N, words, inner)."""
    patches: Tensor
    """(B, 1 + N, outer), the class token first."""


class TNTAttention(nn.Module):
    """Multi-head attention of tokens (B, N, C); values have a projection of their own."""

    def __init__(self, dim: int, heads: int, drop: float) -> None:
        super().__init__()
        self.heads = heads
        self.qk = Linear(dim, 2 * dim, bias=False)
        self.v = Linear(dim, dim, bias=False)
        self.proj = Linear(dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same shape."""
        q, k = split_heads(self.qk(x), self.heads, 2)
        v = self.v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return self.drop(self.proj(attention(q, k, v).transpose(1, 2).flatten(2)))


class WordProjection(nn.Module):
    """All words of a patch as one vector, (B * N, words, inner) to (B, N, outer)."""

    def __init__(self, words: int, inner: int, outer: int, *, bias: bool) -> None:
        super().__init__()
        self.proj_norm1 = nn.LayerNorm(words * inner)
        self.proj = Linear(words * inner, outer, bias=bias)
        self.proj_norm2 = nn.LayerNorm(outer)

    def forward(self, x: Tensor, patches: int) -> Tensor:
        """Vectors (B, patches, outer) of words (B * patches, words, inner)."""
        return self.proj_norm2(self.proj(self.proj_norm1(x.flatten(1).unflatten(0, (-1, patches)))))


class TNTBlock(nn.Module):
    """Words among themselves, words into patches, patches among themselves."""

    def __init__(
        self,
        inner: int,
        outer: int,
        heads: tuple[int, int],
        words: int,
        *,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.inner_norm1 = nn.LayerNorm(inner)
        self.inner_attn = TNTAttention(inner, heads[0], drop)
        self.inner_norm2 = nn.LayerNorm(inner)
        self.inner_mlp = Mlp(inner, int(inner * mlp_ratio), drop=drop)
        self.into = WordProjection(words, inner, outer, bias=False)
        self.outer_norm1 = nn.LayerNorm(outer)
        self.outer_attn = TNTAttention(outer, heads[1], drop)
        self.outer_norm2 = nn.LayerNorm(outer)
        self.outer_mlp = Mlp(outer, int(outer * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, state: Sentences) -> Sentences:
        """The state after the block."""
        words, patches = state
        words = words + self.drop_path(self.inner_attn(self.inner_norm1(words)))
        words = words + self.drop_path(self.inner_mlp(self.inner_norm2(words)))
        added = self.into(words, patches.shape[1] - 1)
        patches = torch.cat([patches[:, :1], patches[:, 1:] + added], 1)
        patches = patches + self.drop_path(self.outer_attn(self.outer_norm1(patches)))
        patches = patches + self.drop_path(self.outer_mlp(self.outer_norm2(patches)))
        return Sentences(words, patches)


class PatchNorm(nn.LayerNorm):
    """The norm of a state's patches."""

    def forward(self, state: Sentences) -> Tensor:  # type: ignore[override]
        """Class token and patches (B, 1 + N, C), normalised."""
        return super().forward(state.patches)


def _unused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tokens that the official code keeps, frozen at zero, and never reads."""
    found = state.get("outer_pos")
    return {} if found is None else {"outer_tokens": torch.zeros_like(found[:, 1:])}


class TNT(Backbone):
    """TNT; a state is `Sentences`, and what the head sees tokens (B, 1 + N, C).

    Args:
        img_size: Images that the model is made for; positions depend on it.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: "token", "avg" or "" for none.
        patch_size: Side of a patch, a multiple of 4.
        outer_dim: Channels of patches.
        inner_dim: Channels of words.
        depth: Blocks; a feature map is taken after each.
        num_heads: Heads of words and of patches.
        mlp_ratio: Width of the MLPs over that of what they see.
        drop_rate: Dropout in attention, MLPs, after the positions and before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    final_layout = "NLC"
    first_conv = "patch_embed.proj"
    fixed_size = True
    no_decay = ("outer_pos", "inner_pos", "cls_token")
    keys = KeyMap(
        rules=(
            *(
                Rename(f"blocks.{{i}}.{name}", f"stages.{{i}}.into.{name}")
                for name in ("proj_norm1", "proj_norm2", "proj")
            ),
            Rename("blocks.{i}", "stages.{i}"),
            *(Rename(name, f"into.{name}") for name in ("proj_norm1", "proj_norm2", "proj")),
            Rename("head", "head.fc"),
        ),
        drop=("outer_tokens",),
        rebuild=_unused,
        resize={"outer_pos": partial(resize_positions, prefix=1)},
    )

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        patch_size: int = 16,
        outer_dim: int = 384,
        inner_dim: int = 24,
        depth: int = 12,
        num_heads: tuple[int, int] = (4, 6),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__(
            features=[(outer_dim, patch_size)] * depth,
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            multiple=patch_size,
        )
        self.patch_size = patch_size
        self.grid = (self.img_size[0] // patch_size, self.img_size[1] // patch_size)
        words = (patch_size // STRIDE) ** 2
        self.patch_embed = nn.ModuleDict({"proj": Conv2d(in_chans, inner_dim, 7, STRIDE, 3)})
        self.into = WordProjection(words, inner_dim, outer_dim, bias=True)
        self.cls_token = nn.Parameter(torch.empty(1, 1, outer_dim))
        self.outer_pos = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], outer_dim))
        self.inner_pos = nn.Parameter(torch.empty(1, words, inner_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        self.stages = nn.ModuleList(
            TNTBlock(
                inner_dim,
                outer_dim,
                num_heads,
                words,
                mlp_ratio=mlp_ratio,
                drop=drop_rate,
                drop_path=rate,
            )
            for rate in drop_path_rates(drop_path_rate, [depth])[0]
        )
        self.norm = PatchNorm(outer_dim)
        self.head = SequenceHead(outer_dim, num_classes, global_pool, drop_rate)
        for one in (self.cls_token, self.outer_pos, self.inner_pos):
            trunc_normal_(one, std=0.02)
        self.apply(_init)

    def embed(self, image: Tensor) -> Sentences:
        """Words and patches with their positions."""
        side = self.patch_size
        cut = image.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [B, C, h, side, w, side]
        cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        words = self.patch_embed["proj"](cut).flatten(2).mT + self.inner_pos
        patches = self.into(words, self.grid[0] * self.grid[1])
        patches = torch.cat([self.cls_token.expand(image.shape[0], -1, -1), patches], 1)
        return Sentences(words, self.pos_drop(patches + self.outer_pos))

    def feature_map(self, state: Sentences | Tensor, number: int) -> Tensor:
        """The patches as a map (B, C, H / 16, W / 16)."""
        tokens = state.patches if isinstance(state, Sentences) else state
        return tokens[:, 1:].mT.unflatten(2, self.grid)


def _init(module: nn.Module) -> None:
    """Initial weights of the official code: linear layers alone."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


CARD = Card(
    name="tnt",
    task="vision",
    title="Transformer in Transformer",
    paper="https://arxiv.org/abs/2103.00112",
    code="https://github.com/huawei-noah/Efficient-AI-Backbones",
    licence="Apache-2.0",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_tnt.py::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_tnt.py::test_official_keys",
    },
    differs="The frozen tokens that the official code counts as parameters and never reads are not kept. "
    "There is no dropout on attention probabilities. PyramidTNT, a later paper in the same repository, is "
    "absent, and so are timm's legacy weights, whose words see the whole image.",
)


def _variant(
    outer: int, inner: int, heads: int, parameters: float, gflops: float, top1: float, file: str
) -> Variant:
    """A published row at 224 pixels, whose weights want a mean and deviation of 0.5."""
    url = f"https://github.com/huawei-noah/Efficient-AI-Backbones/releases/download/tnt/{file}.pth.tar"
    half = (0.5, 0.5, 0.5)
    options = {"outer_dim": outer, "inner_dim": inner, "num_heads": (4, heads)}
    cfg = {"mean": half, "std": half, "crop_pct": 0.9}
    return Variant(options, 224, parameters, gflops, top1, weights=url, cfg=cfg)


_TEST = {"outer_dim": 16, "inner_dim": 8, "depth": 2, "num_heads": (2, 4), "patch_size": 8}

register_backbone(
    TNT,
    CARD,
    {
        "tnt_s_patch16_224": _variant(384, 24, 6, 23.84, 5.2, 81.5, "tnt_s_81.5"),
        "tnt_b_patch16_224": _variant(640, 40, 10, 65.55, 14.1, 82.9, "tnt_b_82.9"),
        "tnt_test": Variant(_TEST, 32),
    },
)
