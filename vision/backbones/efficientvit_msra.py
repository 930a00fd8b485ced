"""EfficientViT of Microsoft: heads in cascade, each fed with the one before (Liu et al., CVPR 2023).

Paper: https://arxiv.org/abs/2305.07027. Official code: https://github.com/microsoft/Cream (EfficientViT/,
MIT). A block is attention between two convolutions and MLPs (figure 3). In windows of 7x7, head ``i`` sees
its share of the channels plus the output of head ``i - 1`` (eq. 2 and 3), with a depthwise convolution on its
queries that ends at the window's edge, and a learned bias per absolute distance. Windows are padded with
zeros, which join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import RunError
from graphrec.kernels import attention
from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    ConvNorm,
    NormHead,
    PointwiseMLP,
    Residual,
    Stage,
    conv_stem,
    depthwise,
    drop_path_rates,
    merging_stage,
)
from ..models import register_backbone


def _distances(side: int) -> Tensor:
    """Which bias two positions of a window have: by their distances on both axes, (side^2, side^2)."""
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    apart = (place[:, None] - place).abs()
    return apart[..., 0] * side + apart[..., 1]


class CascadedGroupAttention(nn.Module):
    """Heads one after the other, in windows (B, C, side, side) that are cut already."""

    def __init__(self, dim: int, heads: int, key_dim: int, side: int, kernels: Sequence[int]) -> None:
        super().__init__()
        share = dim // heads
        self.side, self.sizes = side, [key_dim, key_dim, share]
        self.qkvs = nn.ModuleList(ConvNorm(share, 2 * key_dim + share) for _ in range(heads))
        self.dws = nn.ModuleList(
            ConvNorm(key_dim, key_dim, kernel, 1, kernel // 2, key_dim) for kernel in kernels[:heads]
        )
        self.proj = nn.Sequential(nn.ReLU(inplace=True), ConvNorm(dim, dim, scale=0.0))
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        self.apart: Tensor
        self.register_buffer("apart", _distances(side), persistent=False)

    def bias(self) -> Tensor:
        """The bias of every pair of positions in a window, (heads, 1, 1, side^2, side^2)."""
        places = self.apart.flatten()
        if torch.is_grad_enabled():  # the gradient of gather takes a third of that of index_select
            found = self.attention_biases.gather(1, places.expand(len(self.qkvs), -1))
        else:
            found = self.attention_biases.index_select(1, places)
        return found.view(-1, 1, 1, *self.apart.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, side, side) to the same shape."""
        made: list[Tensor] = []
        heads = zip(x.chunk(len(self.qkvs), 1), self.qkvs, self.dws, self.bias().unbind(), strict=True)
        for share, project, convolve, bias in heads:
            q, k, v = project(share + made[-1] if made else share).split(self.sizes, 1)
            q, k, v = (one.flatten(2).mT.unsqueeze(1) for one in (convolve(q), k, v))  # [B, 1, L, D]
            found = attention(q, k, v, bias=bias)
            made.append(found.squeeze(1).mT.reshape(share.shape))
        return self.proj(torch.cat(made, 1))


class LocalWindowAttention(nn.Module):
    """Cuts a map into windows for `CascadedGroupAttention`, padded with zeros to whole ones."""

    def __init__(self, dim: int, heads: int, key_dim: int, side: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.side = side
        self.attn = CascadedGroupAttention(dim, heads, key_dim, side, kernels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        side, (height, width) = self.side, x.shape[-2:]
        if height == width == side:
            return self.attn(x)
        x = F.pad(x, (0, -width % side, 0, -height % side))
        cut = (
            x.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
        )  # [B, N, M, C, s, s]
        mixed = self.attn(cut.flatten(0, 2)).view(cut.shape)
        return mixed.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)[:, :, :height, :width]


class EfficientViTBlock(nn.Module):
    """Convolution, MLP, attention, convolution, MLP, each added to its input."""

    def __init__(
        self, dim: int, heads: int, key_dim: int, side: int, kernels: Sequence[int], drop_path: float
    ) -> None:
        super().__init__()
        self.dw0 = depthwise(dim, scale=0.0)
        self.ffn0 = Residual(PointwiseMLP(dim, 2 * dim), drop_path)
        self.mixer = Residual(LocalWindowAttention(dim, heads, key_dim, side, kernels), drop_path)
        self.dw1 = depthwise(dim, scale=0.0)
        self.ffn1 = Residual(PointwiseMLP(dim, 2 * dim), drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x)))))


def _resize(value: Tensor, target: Tensor) -> Tensor:
    """Biases (heads, side^2) by absolute distance at another side, bicubic, as the official detectors do it.

    Raises:
        RunError: Another number of heads, or no square.
    """
    old, new = (round(one.shape[1] ** 0.5) for one in (value, target))
    if value.dim() != 2 or len(value) != len(target) or old * old != value.shape[1]:
        raise RunError(f"bias table {tuple(value.shape)}: the model has {tuple(target.shape)}")
    grid = F.interpolate(value.float().view(1, -1, old, old), size=(new, new), mode="bicubic")
    return grid.flatten(2)[0].to(value.dtype)


def _pointwise(value: Tensor, target: Tensor) -> Tensor:
    """Some official checkpoints keep 1x1 convolutions as matrices."""
    return value[:, :, None, None] if (value.dim(), target.dim()) == (2, 4) else value


def _index_buffers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The buffers by which official blocks look up their biases."""
    found = {}
    for name, table in state.items():
        if name.endswith(".attention_biases"):
            found[name.replace("biases", "bias_idxs")] = _distances(round(table.shape[1] ** 0.5))
    return found


class EfficientViT(Backbone):
    """EfficientViT; a state is (B, C, H, W).

    Args:
        img_size: Images that the model is made for, which say how large windows can be; forward takes others
            and pads.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        embed_dim: Channels per stage.
        depths: Blocks per stage.
        num_heads: Heads per stage.
        key_dim: Channels of a head's queries and keys.
        window_size: Side of a window, cut to the map's.
        kernels: Side of the convolution on each head's queries.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    first_conv = "patch_embed.0.c"
    no_decay = ("attention_biases",)
    keys = KeyMap(
        rules=(
            Rename("blocks1.{j}", "stages.0.blocks.{j}"),
            Rename("blocks{i+1}.{j+3}", "stages.{i}.blocks.{j}"),  # the first three change the resolution
            Rename("blocks{i+1}", "stages.{i}.downsample"),
            Rename("head.l", "head.fc"),
        ),
        drop=("*.attention_bias_idxs", "*.attn.ab"),
        rebuild=_index_buffers,
        resize={"attention_biases": _resize, "weight": _pointwise},
    )

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: Sequence[int] = (64, 128, 192),
        depths: Sequence[int] = (1, 2, 3),
        num_heads: Sequence[int] = (4, 4, 4),
        key_dim: int = 16,
        window_size: int = 7,
        kernels: Sequence[int] = (5, 5, 5, 5),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            features=[(dim, 16 * 2**number) for number, dim in enumerate(embed_dim)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=16,
        )
        self.patch_embed = conv_stem(in_chans, embed_dim[0])
        rates = drop_path_rates(drop_path_rate, depths)
        stages, side = [], min(self.img_size) // 16
        for number, dim in enumerate(embed_dim):
            side = (side - 1) // 2 + 1 if number else side
            fit = min(window_size, side)
            blocks = [
                EfficientViTBlock(dim, num_heads[number], key_dim, fit, kernels, rate)
                for rate in rates[number]
            ]
            stages.append(Stage(blocks, merging_stage(embed_dim[number - 1], dim) if number else None))
        self.stages = nn.ModuleList(stages)
        self.head = NormHead(embed_dim[-1], num_classes, global_pool, drop_rate)

    def embed(self, image: Tensor) -> Tensor:
        """A map at a sixteenth of the resolution."""
        return self.patch_embed(image)


_TESTS = "tests/vision/test_efficientvit_msra.py"
CARD = Card(
    name="efficientvit_msra",
    task="vision",
    title="EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention",
    paper="https://arxiv.org/abs/2305.07027",
    code="https://github.com/microsoft/Cream",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal timm's": f"{_TESTS}::test_equals_timm",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": f"{_TESTS}::test_official_keys",
    },
    differs="The second head for distillation is absent: no published weights have it. Images of other sizes "
    "than the model's are padded to whole windows; the official classifier refuses them.",
)


def _variant(
    dims: Sequence[int],
    heads: Sequence[int],
    kernels: Sequence[int],
    facts: tuple[float, float, float],
    file: str,
    depths: Sequence[int] = (1, 2, 3),
) -> Variant:
    """A published row: parameters, GFLOPs and top-1 in ``facts``."""
    options = {"embed_dim": dims, "num_heads": heads, "kernels": kernels, "depths": depths}
    url = f"https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/releases/download/v1.0/{file}.pth"
    parameters, gflops, top1 = facts
    return Variant(options, 224, parameters, gflops, top1, weights=url)


_K5, _K7 = (5, 5, 5, 5), (7, 5, 3, 3)
_TEST = {"embed_dim": (16, 32), "depths": (1, 2), "num_heads": (2, 2), "key_dim": 4, "window_size": 3}

register_backbone(
    EfficientViT,
    CARD,
    {
        "efficientvit_m0": _variant((64, 128, 192), (4, 4, 4), _K5, (2.35, 0.079, 63.2), "efficientvit_m0"),
        "efficientvit_m1": _variant((128, 144, 192), (2, 3, 3), _K7, (2.98, 0.167, 68.4), "efficientvit_m1"),
        "efficientvit_m2": _variant((128, 192, 224), (4, 3, 2), _K7, (4.19, 0.201, 70.8), "efficientvit_m2"),
        "efficientvit_m3": _variant((128, 240, 320), (4, 3, 4), _K5, (6.90, 0.263, 73.4), "efficientvit_m3"),
        "efficientvit_m4": _variant((128, 256, 384), (4, 4, 4), _K7, (8.80, 0.299, 74.3), "efficientvit_m4"),
        "efficientvit_m5": _variant(
            (192, 288, 384), (3, 3, 4), _K7, (12.47, 0.522, 77.1), "efficientvit_m5", (1, 3, 4)
        ),
        "efficientvit_msra_test": Variant(_TEST, 64),
    },
)
