"""ConViT: attention that starts as a convolution and may leave it (d'Ascoli et al., ICML 2021).

Paper: https://arxiv.org/abs/2103.10697. Official code: https://github.com/facebookresearch/convit
(CC-BY-NC 4.0). In the first ten blocks every head mixes two attentions by a learned gate (eq. 7): one by
content, and one by position alone whose logits are a learned quadratic form of the distance. The class token
joins before the last two blocks, which are those of ViT.

The form has no product of both axes, so its softmax is a product of one softmax per axis: attention by
position takes two small matrices for rows and columns, of size H x H and W x W, made once per forward for all
images. The official code makes it as N x N logits for each image, with N = H * W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from graphrec.kernels import attention, split_heads
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    GridAttention,
    Linear,
    PatchEmbed,
    SequenceHead,
    TransformerBlock,
    drop_path_rates,
    resize_positions,
)
from ..models import register_backbone

EPSILON = 1e-6
"""Of all norms."""


class PositionProjection(nn.Module):
    """Weights of the distance along columns, along rows, and of its square (eq. 5), a row per head.

    The heads of a k x k square start out looking at the places of a k x k convolution (eq. 6).
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, 3))

    @torch.no_grad()
    def reset(self) -> None:
        """Initial weights of the official code."""
        trunc_normal_(self.weight, std=0.02)
        side = isqrt(len(self.weight))
        middle = (side - 1) / 2
        for row in range(side):
            for column in range(side):
                place = torch.tensor([2 * (column - middle), 2 * (row - middle), -1.0])
                self.weight[row + side * column] = place

    def forward(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Attention of rows (heads, H, H) and of columns (heads, W, W) to each other."""
        return self._axis(size[0], 1), self._axis(size[1], 0)

    def _axis(self, length: int, axis: int) -> Tensor:
        place = torch.arange(length, device=self.weight.device, dtype=self.weight.dtype)
        apart = place - place[:, None]  # key minus query
        linear, square = self.weight[:, axis, None, None], self.weight[:, 2, None, None]
        return (linear * apart + square * apart**2).softmax(-1)


class GatedAttention(nn.Module):
    """``(1 - g) * content + g * position`` with ``g = sigmoid(gate)`` per head (eq. 7)."""

    def __init__(self, dim: int, heads: int, grid: tuple[int, int], drop: float) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.qk = Linear(dim, 2 * dim, bias=False)
        self.v = Linear(dim, dim, bias=False)
        self.proj = Linear(dim, dim)
        self.pos_proj = PositionProjection(heads)
        self.gating_param = nn.Parameter(torch.ones(heads))
        self.drop = nn.Dropout(drop)

    def reset(self) -> None:
        """Values start as they are, positions as a convolution."""
        nn.init.eye_(self.v.weight)
        self.pos_proj.reset()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same shape; N is that of the grid."""
        q, k = split_heads(self.qk(x), self.heads, 2)
        v = self.v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, D]
        rows, columns = self.pos_proj(self.grid)
        gate = self.gating_param.sigmoid()[:, None]
        rows = gate[:, None] * rows  # the smallest factor of the product that the gate scales
        near = torch.einsum("hij,bhjwd->bhiwd", rows, v.unflatten(2, self.grid))
        near = torch.einsum("hij,bhyjd->bhyid", columns, near).flatten(2, 3)
        mixed = attention(q, k, v, gate=1 - gate[None]) + near
        return self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class JoiningBlock(TransformerBlock):
    """A transformer's block before whose work a class token joins."""

    def __init__(
        self, dim: int, attn: nn.Module, mlp_ratio: float, *, drop: float, drop_path: float, eps: float
    ) -> None:
        super().__init__(dim, attn, mlp_ratio, drop=drop, drop_path=drop_path, eps=eps)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, 1 + N, C)."""
        return super().forward(torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1))


class ConViT(Backbone):
    """ConViT; a state is tokens (B, N, C), from the joining of the class token on (B, 1 + N, C).

    Args:
        img_size: Images that the model is made for; positions depend on it.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: "token", "avg" or "" for none.
        patch_size: Side of a patch.
        embed_dim: Channels.
        depth: Blocks; a feature map is taken after each.
        local: Blocks with gated attention, before those with the class token.
        num_heads: Heads.
        mlp_ratio: Width of the MLP over that of the model.
        drop_rate: Dropout in attention, MLP and before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    final_layout = "NLC"
    first_conv = "patch_embed.proj"
    fixed_size = True
    no_decay = ("pos_embed", "cls_token")

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        patch_size: int = 16,
        embed_dim: int = 192,
        depth: int = 12,
        local: int = 10,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__(
            features=[(embed_dim, patch_size)] * depth,
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            multiple=patch_size,
        )
        self.grid = (self.img_size[0] // patch_size, self.img_size[1] // patch_size)
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size, norm=None)
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        self.stages = nn.ModuleList()
        for number, rate in enumerate(drop_path_rates(drop_path_rate, [depth])[0]):
            attn = (
                GatedAttention(embed_dim, num_heads, self.grid, drop_rate)
                if number < local
                else GridAttention(embed_dim, num_heads, qkv_bias=False, proj_drop=drop_rate)
            )
            block = JoiningBlock if number == local else TransformerBlock
            self.stages.append(block(embed_dim, attn, mlp_ratio, drop=drop_rate, drop_path=rate, eps=EPSILON))
        self.norm = nn.LayerNorm(embed_dim, eps=EPSILON)
        self.head = SequenceHead(embed_dim, num_classes, global_pool, drop_rate)
        self.keys = _keys(local)
        trunc_normal_(self.pos_embed, std=0.02)
        self.apply(_init)

    def embed(self, image: Tensor) -> Tensor:
        """Patches with their positions (B, N, C)."""
        return self.pos_drop(self.patch_embed(image).flatten(1, 2) + self.pos_embed)

    def feature_map(self, state: Tensor, number: int) -> Tensor:
        """The tokens of patches as a map (B, C, H / 16, W / 16)."""
        return state[:, -self.grid[0] * self.grid[1] :].mT.unflatten(2, self.grid)


def _init(module: nn.Module) -> None:
    """Initial weights of the official code."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, GatedAttention):  # comes after the layers in it
        module.reset()


def _biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The biases of the position logits, which the softmax takes out again."""
    end = ".pos_proj.weight"
    return {name[:-6] + "bias": one.new_zeros(len(one)) for name, one in state.items() if name.endswith(end)}


def _keys(local: int) -> KeyMap:
    """Names, where the class token joins before the block with this number."""
    return KeyMap(
        rules=(
            Rename("cls_token", f"stages.{local}.cls_token"),
            Rename("blocks.{i}", "stages.{i}"),
            Rename("head", "head.fc"),
        ),
        drop=("*.pos_proj.bias",),
        rebuild=_biases,
        resize={"pos_embed": resize_positions},
    )


ConViT.keys = _keys(10)

CARD = Card(
    name="convit",
    task="vision",
    title="ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases",
    paper="https://arxiv.org/abs/2103.10697",
    code="https://github.com/facebookresearch/convit",
    licence="CC-BY-NC-4.0",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_convit.py::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_convit.py::test_official_keys",
        "attention by position is a product of axes": "tests/vision/test_convit.py::test_positions_by_axis",
    },
    differs="Attention by position is computed per axis, so that images may have any height and width; the "
    "official code takes square ones. The bias of its logits, which changes nothing, is not kept. There is "
    "no dropout on attention probabilities.",
)


def _variant(heads: int, parameters: float, gflops: tuple[float, float], top1: float, file: str) -> Variant:
    """A published row of table 1 at 224 pixels; each head has 48 channels."""
    options = {"embed_dim": 48 * heads, "num_heads": heads}
    url = f"https://dl.fbaipublicfiles.com/convit/{file}.pth"
    note = "the matrix products are more than the paper's rounded figure"
    return Variant(options, 224, parameters, gflops[0], top1, weights=url, note=note, counted=gflops[1])


_TEST: Mapping[str, object] = {"embed_dim": 16, "num_heads": 4, "patch_size": 8, "depth": 3, "local": 2}
_SIZES: Sequence[tuple[str, int, float, tuple[float, float], float]] = (
    ("convit_tiny", 4, 5.71, (1.0, 1.26), 73.1),
    ("convit_small", 9, 27.78, (5.4, 5.8), 81.3),
    ("convit_base", 16, 86.54, (17.0, 17.53), 82.4),
)

register_backbone(
    ConViT,
    CARD,
    {
        name: _variant(heads, parameters, gflops, top1, name)
        for name, heads, parameters, gflops, top1 in _SIZES
    }
    | {"convit_test": Variant(_TEST, 32)},
)
