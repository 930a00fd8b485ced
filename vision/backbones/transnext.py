"""TransNeXt: attention that sees near positions sharply and all of the map pooled (Shi, CVPR 2024).

Paper: https://arxiv.org/abs/2311.17132. Official code: DaiShiResearch/TransNeXt on GitHub (Apache-2.0).
Aggregated attention (section 3.1 to 3.3): the 3x3 keys around a query and the keys of the pooled map
share one softmax. Queries and keys have length 1; an embedding is added to every query, which then grows
with the logarithm of the number of keys and a learned temperature. Local pairs have a learned bias,
pooled ones that of an MLP of their distance. After the softmax, learnable tokens add weights to the local
pairs. The MLP is gated by a depthwise convolution (section 3.4). Distances are scaled to the size of
pretraining, so the same weights serve images of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from timm.layers import ClassifierHead, DropPath
from torch import Tensor, nn

from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    GELU,
    AggregatedAttention,
    Conv2d,
    CosineAttention,
    CosineFullAttention,
    Linear,
    NormedStage,
    OverlapDownsample,
    OverlapPatchEmbed,
    drop_path_rates,
    init_linear_and_conv,
)
from ..models import register_backbone


class ConvolutionalGLU(nn.Module):
    """``fc2(gelu(depthwise(a)) * b)`` with a and b from one projection, 2/3 of ``hidden`` wide."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        width = int(2 * hidden / 3)
        self.fc1 = Linear(dim, 2 * width)
        self.dwconv = Conv2d(width, width, 3, padding=1, groups=width)
        self.act = GELU()
        self.fc2 = Linear(width, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x, gate = self.fc1(x).chunk(2, -1)
        x = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop(self.fc2(self.drop(self.act(x) * gate)))


class TransNeXtBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + glu(norm(x))``."""

    def __init__(
        self, dim: int, attn: CosineAttention, *, mlp_ratio: float, drop: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = ConvolutionalGLU(dim, int(dim * mlp_ratio), drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TransNeXt(Backbone):
    """TransNeXt; a state is (B, H, W, C).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        pretrain_size: Side of the images of pretraining, to which distances are scaled.
        embed_dims: Channels per stage.
        depths: Blocks per stage.
        num_heads: Heads per stage.
        window_size: Keys around a query, per axis.
        poolings: Positions of the map that make one pooled position, per axis and stage; 1 is full attention.
        mlp_ratios: Width of the MLP over that of the stage, before the gate takes a third.
        qkv_bias: Bias of the projections to queries, keys and values.
        drop_rate: Dropout before the classifier and in the blocks.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    plans_by_size = True
    layout = "NHWC"
    first_conv = "patch_embed.proj"
    no_decay = ("query_embedding", "relative_pos_bias_local", "temperature")

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        pretrain_size: int = 224,
        embed_dims: Sequence[int] = (48, 96, 192, 384),
        depths: Sequence[int] = (2, 2, 15, 2),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        window_size: int = 3,
        poolings: Sequence[int] = (8, 4, 2, 1),
        mlp_ratios: Sequence[float] = (8.0, 8.0, 4.0, 4.0),
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            features=[(dim, 4 * 2**number) for number, dim in enumerate(embed_dims)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=4,
        )
        self.patch_embed = OverlapPatchEmbed(in_chans, embed_dims[0], 7, 4)
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList()
        for number, dim in enumerate(embed_dims):
            side = pretrain_size // (4 * 2**number)
            make: Callable[[], nn.Module]
            made = partial(CosineFullAttention, dim, num_heads[number], (side, side), qkv_bias, drop_rate)
            make = made
            if poolings[number] > 1:
                make = partial(AggregatedAttention, *made.args, window=window_size, pooling=poolings[number])
            block = partial(TransNeXtBlock, dim, mlp_ratio=mlp_ratios[number], drop=drop_rate)
            blocks = [block(make(), drop_path=rate) for rate in rates[number]]
            before = OverlapDownsample(embed_dims[number - 1], dim) if number else None
            self.stages.append(NormedStage(blocks, dim, before))
        self.head = ClassifierHead(embed_dims[-1], num_classes, global_pool, drop_rate, input_fmt="NHWC")
        self.apply(_init)

    def embed(self, image: Tensor) -> Tensor:
        """Patches (B, ceil(H / 4), ceil(W / 4), C)."""
        return self.patch_embed(image)

    def no_weight_decay(self) -> set[str]:
        """As for every backbone, and the MLPs of the biases."""
        return super().no_weight_decay() | {name for name, _ in self.named_parameters() if ".cpb_fc" in name}


def _init(module: nn.Module) -> None:
    """Linear layers as everywhere, convolutions by their fan-out."""
    if isinstance(module, nn.Linear):
        init_linear_and_conv(module)
    elif isinstance(module, nn.Conv2d):
        out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0, math.sqrt(2 / out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


TransNeXt.keys = KeyMap(
    rules=(
        Rename("patch_embed1", "patch_embed"),
        Rename("patch_embed{i+1}", "stages.{i}.downsample"),
        Rename("block{i+1}.{j}.mlp.dwconv.dwconv", "stages.{i}.blocks.{j}.mlp.dwconv"),
        Rename("block{i+1}.{j}", "stages.{i}.blocks.{j}"),
        Rename("norm{i+1}", "stages.{i}.norm"),
        Rename("head", "head.fc"),
    ),
    drop=("relative_pos_index?", "relative_coords_table?", "*.padding_mask", "*.seq_length_scale"),
)

CARD = Card(
    name="transnext",
    task="vision",
    title="TransNeXt: Robust Foveal Visual Perception for Vision Transformers",
    paper="https://arxiv.org/abs/2311.17132",
    code="https://github.com/DaiShiResearch/TransNeXt",
    licence="Apache-2.0",
    verified={
        "logits, pyramid and gradients equal the official code's": (
            "tests/vision/test_transnext.py::test_equals_official"
        ),
        "other sizes than that of pretraining equal the official code's": (
            "tests/vision/test_transnext.py::test_other_size_equals_official"
        ),
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_transnext.py::test_official_keys",
    },
    differs="Images of any size are taken; the official code makes the model anew for each size. There is no "
    "dropout on attention probabilities, and no fixed size of the pooled map.",
)

_TINY = {"embed_dims": (72, 144, 288, 576), "num_heads": (3, 6, 12, 24)}
_SMALL = _TINY | {"depths": (5, 5, 22, 5)}
_BASE = {"embed_dims": (96, 192, 384, 768), "num_heads": (4, 8, 16, 32), "depths": (5, 5, 23, 5)}
_TEST = {
    "pretrain_size": 64,
    "embed_dims": (8, 8, 12, 16),
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 2, 2, 2),
    "mlp_ratios": (3.0, 3.0, 2.0, 2.0),
}


def _variant(
    options: Mapping[str, object], parameters: float, gflops: float, top1: float, file: str, size: int = 224
) -> Variant:
    """A row of the official tables, and the file of its weights."""
    name = file.replace("_", "-")
    url = f"https://huggingface.co/DaiShiResearch/{name}/resolve/main/{file}.pth"
    return Variant(options, size, parameters, gflops, top1, weights=url)


register_backbone(
    TransNeXt,
    CARD,
    {
        "transnext_micro": _variant({}, 12.81, 2.7, 82.5, "transnext_micro_224_1k"),
        "transnext_tiny": _variant(_TINY, 28.26, 5.7, 84.0, "transnext_tiny_224_1k"),
        "transnext_small": _variant(_SMALL, 49.74, 10.3, 84.7, "transnext_small_224_1k"),
        "transnext_base": _variant(_BASE, 89.72, 18.4, 84.8, "transnext_base_224_1k"),
        "transnext_small_384": _variant(_SMALL, 49.74, 32.1, 86.0, "transnext_small_384_1k_ft_1k", 384),
        "transnext_base_384": _variant(_BASE, 89.72, 56.3, 86.2, "transnext_base_384_1k_ft_1k", 384),
        "transnext_micro_aaaa_256": _variant(
            {"poolings": (16, 8, 4, 2), "pretrain_size": 256},
            13.1,
            3.3,
            82.6,
            "transnext_micro_AAAA_256_1k",
            256,
        ),
        "transnext_test": Variant(_TEST, 64),
    },
)
