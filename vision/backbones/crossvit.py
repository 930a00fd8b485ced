"""CrossViT: small and large patches in two transformers that ask each other (Chen et al., ICCV 2021).

Paper: https://arxiv.org/abs/2103.14899. Official code: https://github.com/IBM/CrossViT (Apache-2.0).
Each branch sees the image at a size of its own (bicubic) and has its own class token and positions. After a
few blocks per branch, the class token of either, projected to the width of the other, attends to itself and
the patches of the other (section 3.3, eq. 4 and 5: one query, hence linear in the patches), is projected back
and takes the class token's place. Each branch has a classifier, and the logits are their mean. Variants with
a dagger make patches by three convolutions.

The projections between widths are norm, GELU, linear, and there is no MLP behind the cross attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import Joined, KeyMap, Rename
from ..layers import (
    Branches,
    BranchHead,
    BranchNorm,
    Conv2d,
    CrossStage,
    GridAttention,
    TransformerBlock,
    drop_path_rates,
    resize_positions,
)
from ..models import register_backbone

EPSILON = 1e-6
"""Of all norms."""
Pair = tuple[int, int]


class Branch(nn.Module):
    """From an image of any size to tokens: resize, patches, class token, positions.

    Args:
        in_chans: Channels of the image.
        dim: Channels of a token.
        size: Height and width at which the branch sees images.
        patch: Side of a patch.
        convolutions: Whether three convolutions make the patches, not one.
        drop: Dropout on the tokens.
    """

    def __init__(
        self, in_chans: int, dim: int, size: Pair, patch: int, *, convolutions: bool, drop: float
    ) -> None:
        super().__init__()
        self.size = size
        if convolutions:
            self.proj = _patches(in_chans, dim, patch)
            self.grid = (_steps(size[0], patch), _steps(size[1], patch))
        else:
            self.proj = nn.Sequential(Conv2d(in_chans, dim, patch, patch))
            self.grid = (size[0] // patch, size[1] // patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], dim))
        self.drop = nn.Dropout(drop)
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Tokens (B, 1 + N, dim) of images (B, C, H, W)."""
        if image.shape[-2:] != self.size:
            image = F.interpolate(image, size=self.size, mode="bicubic")
        patches = self.proj(image).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(image.shape[0], -1, -1), patches], 1)
        return self.drop(tokens + self.pos_embed)


def _patches(in_chans: int, dim: int, patch: int) -> nn.Sequential:
    """Three convolutions with ReLU between: patches of 12 (steps of 4 and 3) or 16 pixels (4, 2 and 2)."""
    if patch not in (12, 16):
        raise ConfigError(f"patch_sizes: {patch} is not 12 or 16, which multi_conv knows")
    quarter, half = dim // 4, dim // 2
    middle, last = ((3, 0), (1, 1)) if patch == 12 else ((2, 1), (2, 1))  # stride and padding
    return nn.Sequential(
        Conv2d(in_chans, quarter, 7, 4, 3),
        nn.ReLU(inplace=True),
        Conv2d(quarter, half, 3, *middle),
        nn.ReLU(inplace=True),
        Conv2d(half, dim, 3, *last),
    )


def _steps(side: int, patch: int) -> int:
    """Patches that the three convolutions make of so many pixels."""
    quarter = -(-side // 4)
    return quarter // 3 if patch == 12 else -(-quarter // 4)


class CrossViT(Backbone):
    """CrossViT; a state is the tokens of both branches. Images of another size are resized to the model's.

    Feature maps are first those of small patches after every stage, then those of large patches.

    Args:
        img_size: Images that the positions are learned for.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: "token" or "avg".
        img_scales: Size at which each branch sees the image, over that of the image.
        patch_sizes: Side of a patch, per branch.
        multi_conv: Whether three convolutions make the patches (the dagger in the paper).
        embed_dims: Channels per branch.
        depths: Blocks per stage and branch.
        num_heads: Heads per branch.
        mlp_ratios: Width of the MLPs over that of the branch.
        drop_rate: Dropout in attention, MLPs, after the positions and before the classifiers.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    final_layout = "NLC"
    first_conv = "branches.0.proj.0,branches.1.proj.0"
    classifier = "head.0.fc,head.1.fc"
    stem_pattern = r"^branches"
    no_decay = ("pos_embed", "cls_token")
    maps_per_stage = 2

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 240,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        img_scales: tuple[float, float] = (1.0, 224 / 240),
        patch_sizes: Pair = (12, 16),
        multi_conv: bool = False,
        embed_dims: Pair = (192, 384),
        depths: Sequence[Pair] = ((1, 5),) * 3,
        num_heads: Pair = (6, 6),
        mlp_ratios: tuple[float, float] = (3.0, 3.0),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        steps = [round(patch / scale) for patch, scale in zip(patch_sizes, img_scales, strict=True)]
        super().__init__(
            features=[(dim, step) for dim, step in zip(embed_dims, steps, strict=True) for _ in depths],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
        )
        self.num_features = self.head_hidden_size = sum(embed_dims)
        self.branches = nn.ModuleList(
            Branch(in_chans, dim, self._seen(scale), patch, convolutions=multi_conv, drop=drop_rate)
            for dim, scale, patch in zip(embed_dims, img_scales, patch_sizes, strict=True)
        )
        rates = drop_path_rates(drop_path_rate, [max(pair) for pair in depths])
        self.stages = nn.ModuleList(
            CrossStage(
                [
                    _blocks(
                        embed_dims[branch], num_heads[branch], mlp_ratios[branch], drop_rate, chosen[:deep]
                    )
                    for branch, deep in enumerate(pair)
                ],
                embed_dims,
                num_heads,
                drop=drop_rate,
                drop_path=chosen[-1],
            )
            for pair, chosen in zip(depths, rates, strict=True)
        )
        self.norm = BranchNorm(embed_dims)
        self.head = BranchHead(embed_dims, num_classes, global_pool, drop_rate)
        self.keys = _keys(multi_conv)
        self.apply(_init)

    def _seen(self, scale: float) -> Pair:
        """Size at which a branch sees an image."""
        return int(self.img_size[0] * scale), int(self.img_size[1] * scale)

    def embed(self, image: Tensor) -> Branches:
        """Tokens of both branches with their positions."""
        small, large = (branch(image) for branch in self.branches)
        return small, large

    def feature_map(self, state: Branches, number: int) -> Tensor:
        """The patches of a branch as a map (B, C, H', W')."""
        branch = number * self.maps_per_stage // len(self.feature_info)
        return state[branch][:, 1:].mT.unflatten(2, self.branches[branch].grid)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Blocks of both branches side by side, cross attention behind those of its stage."""
        fine = [
            (r"^stages\.(\d+)\.blocks\.\d+\.(\d+)", None),
            (r"^stages\.(\d+)", (999,)),
            (r"^norm", (99999,)),
        ]
        return super().group_matcher(coarse) | ({} if coarse else {"blocks": fine})


def _blocks(dim: int, heads: int, mlp_ratio: float, drop: float, rates: Sequence[float]) -> nn.Sequential:
    """The transformer of one branch in one stage."""
    return nn.Sequential(
        *(
            TransformerBlock(
                dim,
                GridAttention(dim, heads, proj_drop=drop),
                mlp_ratio,
                drop=drop,
                drop_path=rate,
                eps=EPSILON,
            )
            for rate in rates
        )
    )


def _init(module: nn.Module) -> None:
    """Initial weights of the official code: linear layers alone."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _keys(multi_conv: bool) -> KeyMap:
    """Names, where one convolution or three make the patches."""
    asked = "blocks.{i}.fusion.{b}.attn"
    return KeyMap(
        rules=(
            *(Rename(f"{name}.{{b}}", f"branches.{{b}}.{name}") for name in ("cls_token", "pos_embed")),
            Rename("patch_embed.{b}.proj", f"branches.{{b}}.proj{'' if multi_conv else '.0'}"),
            Joined((f"{asked}.wk", f"{asked}.wv"), f"stages.{asked[7:]}.kv", parts=(1, 1)),
            Rename(f"{asked}.wq", f"stages.{asked[7:]}.q"),
            Rename("blocks.{i}", "stages.{i}"),
            Rename("head.{b}", "head.{b}.fc"),
        ),
        resize={"pos_embed": partial(resize_positions, prefix=1)},
    )


CARD = Card(
    name="crossvit",
    task="vision",
    title="CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification",
    paper="https://arxiv.org/abs/2103.14899",
    code="https://github.com/IBM/CrossViT",
    licence="Apache-2.0",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_crossvit.py::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_crossvit.py::test_official_keys",
        "positions at another size": "tests/vision/test_crossvit.py::test_positions_of_another_size",
    },
    differs="Keys and values of cross attention come from one matrix. An image whose height fits and whose "
    "width does not is resized too; the official code then fails. Other sizes than the published ones resize "
    "the positions. There is no dropout on attention probabilities.",
)


def _variant(
    name: str, dim: int, depth: int, heads: int, ratio: float, facts: tuple[float, float | None, float]
) -> tuple[str, Variant]:
    """A published row of tables 1 to 3: parameters, GFLOPs, top-1. The official name says 224 or 384."""
    parameters, gflops, top1 = facts
    size = int(name[-3:])
    options = {
        "img_scales": (1.0, {240: 224, 408: 384}[size] / size),
        "multi_conv": "dagger" in name,
        "embed_dims": (dim, 2 * dim),
        "depths": ((1, depth),) * 3,
        "num_heads": (heads, heads),
        "mlp_ratios": (ratio, ratio),
    }
    file = f"{name[:-3]}{ {240: 224, 408: 384}[size] }"
    url = f"https://github.com/IBM/CrossViT/releases/download/weights-0.1/{file}.pth"
    cfg = {"crop_pct": 1.0 if size == 408 else 0.875, "fixed_input_size": True}  # others are resized
    return name, Variant(options, size, parameters, gflops, top1, weights=url, cfg=cfg)


_TEST: Mapping[str, object] = {
    "img_scales": (1.0, 8 / 9),
    "embed_dims": (8, 16),
    "depths": ((1, 2), (1, 1)),
    "num_heads": (2, 4),
}

register_backbone(
    CrossViT,
    CARD,
    dict(
        (
            _variant("crossvit_tiny_240", 96, 4, 3, 4, (7.01, 1.6, 73.4)),
            _variant("crossvit_small_240", 192, 4, 6, 4, (26.86, 5.6, 81.0)),
            _variant("crossvit_base_240", 384, 4, 12, 4, (105.03, 21.2, 82.2)),
            _variant("crossvit_9_240", 128, 3, 4, 3, (8.55, 1.8, 73.9)),
            _variant("crossvit_15_240", 192, 5, 6, 3, (27.53, 5.8, 81.5)),
            _variant("crossvit_18_240", 224, 6, 7, 3, (43.27, 9.0, 82.5)),
            _variant("crossvit_9_dagger_240", 128, 3, 4, 3, (8.78, 2.0, 77.1)),
            _variant("crossvit_15_dagger_240", 192, 5, 6, 3, (28.21, 6.1, 82.3)),
            _variant("crossvit_18_dagger_240", 224, 6, 7, 3, (44.27, 9.5, 82.8)),
            _variant("crossvit_15_dagger_408", 192, 5, 6, 3, (28.50, 21.4, 83.5)),
            _variant("crossvit_18_dagger_408", 224, 6, 7, 3, (44.61, 32.4, 83.9)),
        )
    )
    | {
        "crossvit_test": Variant(_TEST, 36),
        "crossvit_dagger_test": Variant({**_TEST, "multi_conv": True}, 36),
    },
)
