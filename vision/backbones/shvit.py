"""SHViT: one attention head on a quarter of the channels, after patches of 16 pixels (Yun and Ro, CVPR 2024).

Paper: https://arxiv.org/abs/2401.16456. Official code: https://github.com/ysj9909/SHViT (MIT).
A block is a depthwise convolution, single-head attention on the first channels with the rest passed by
(section 3.3), and an MLP of 1x1 convolutions, each added to its input. Queries and keys have 16 channels,
values as many as take part, 48 to 96. The first stage has no attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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


class SingleHeadAttention(nn.Module):
    """``proj(relu(concat(attention(norm(first)), rest)))``; ``first`` are the leading channels of the map."""

    def __init__(self, dim: int, qk_dim: int, part: int) -> None:
        super().__init__()
        self.sizes = [qk_dim, qk_dim, part]
        self.split = [part, dim - part]
        self.pre_norm = nn.GroupNorm(1, part)
        self.qkv = ConvNorm(part, 2 * qk_dim + part)
        self.proj = nn.Sequential(nn.ReLU(inplace=True), ConvNorm(dim, dim, scale=0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        first, rest = x.split(self.split, 1)
        packed = self.qkv(self.pre_norm(first)).flatten(2).mT.unsqueeze(1)  # [B, 1, L, 2 D + Dv]
        mixed = attention(*packed.split(self.sizes, -1))
        first = mixed.squeeze(1).mT.reshape(first.shape)
        return self.proj(torch.cat([first, rest], 1))


class SHViTBlock(nn.Module):
    """Convolution, attention where ``part`` is not 0, MLP."""

    def __init__(self, dim: int, qk_dim: int, part: int, drop_path: float) -> None:
        super().__init__()
        self.conv = depthwise(dim, scale=0.0)
        self.mixer = Residual(SingleHeadAttention(dim, qk_dim, part), drop_path) if part else nn.Identity()
        self.ffn = Residual(PointwiseMLP(dim, 2 * dim), drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.ffn(self.mixer(self.conv(x)))


class SHViT(Backbone):
    """SHViT; a state is (B, C, H, W).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        embed_dim: Channels per stage.
        partial_dim: Channels that attend, per stage; 0 for none.
        qk_dim: Channels of queries and keys.
        depths: Blocks per stage.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    first_conv = "patch_embed.0.c"
    keys = KeyMap(
        (
            Rename("blocks1.{j}", "stages.0.blocks.{j}"),
            Rename("blocks{i+1}.{j+3}", "stages.{i}.blocks.{j}"),  # the first three change the resolution
            Rename("blocks{i+1}", "stages.{i}.downsample"),
            Rename("head.l", "head.fc"),
        )
    )

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: Sequence[int] = (128, 224, 320),
        partial_dim: Sequence[int] = (0, 48, 68),
        qk_dim: int = 16,
        depths: Sequence[int] = (2, 4, 5),
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
        self.stages = nn.ModuleList(
            Stage(
                [SHViTBlock(dim, qk_dim, partial_dim[number], rate) for rate in rates[number]],
                merging_stage(embed_dim[number - 1], dim) if number else None,
            )
            for number, dim in enumerate(embed_dim)
        )
        self.head = NormHead(embed_dim[-1], num_classes, global_pool, drop_rate)

    def embed(self, image: Tensor) -> Tensor:
        """A map at a sixteenth of the resolution."""
        return self.patch_embed(image)


CARD = Card(
    name="shvit",
    task="vision",
    title="SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design",
    paper="https://arxiv.org/abs/2401.16456",
    code="https://github.com/ysj9909/SHViT",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_shvit.py::test_equals_timm",
        "logits and gradients equal the official code's": "tests/vision/test_shvit.py::test_equals_official",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_shvit.py::test_official_keys",
    },
    differs="The second head for distillation is absent: no published weights have it.",
)


def _variant(
    dims: Sequence[int],
    parts: Sequence[int],
    depths: Sequence[int],
    size: int,
    facts: tuple[float, float, float],
    file: str,
) -> Variant:
    """A published row: parameters, GFLOPs and top-1 in ``facts``."""
    options = {"embed_dim": dims, "partial_dim": parts, "depths": depths}
    url = f"https://github.com/ysj9909/SHViT/releases/download/v1.0/{file}.pth"
    parameters, gflops, top1 = facts
    return Variant(options, size, parameters, gflops, top1, weights=url)


register_backbone(
    SHViT,
    CARD,
    {
        "shvit_s1": _variant((128, 224, 320), (0, 48, 68), (2, 4, 5), 224, (6.33, 0.241, 72.8), "shvit_s1"),
        "shvit_s2": _variant((128, 308, 448), (0, 66, 96), (2, 4, 5), 224, (11.48, 0.366, 75.2), "shvit_s2"),
        "shvit_s3": _variant((192, 352, 448), (0, 75, 96), (3, 5, 5), 224, (14.25, 0.601, 77.4), "shvit_s3"),
        "shvit_s4": _variant((224, 336, 448), (0, 72, 96), (4, 7, 6), 256, (16.59, 0.986, 79.4), "shvit_s4"),
        "shvit_test": Variant({"embed_dim": (16, 24), "partial_dim": (0, 9), "depths": (1, 2)}, 64),
    },
)
