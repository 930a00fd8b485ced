"""NAT and DiNAT: every position attends to its nearest neighbours (Hassani et al., CVPR 2023).

Papers: https://arxiv.org/abs/2204.07143 (NAT), https://arxiv.org/abs/2209.15001 (dilated NAT). Official code:
https://github.com/SHI-Labs/Neighborhood-Attention-Transformer (MIT), on the kernels of SHI-Labs/NATTEN.
A query sees the k x k keys around it; at a border the neighborhood moves inwards and keeps its size. In DiNAT
every second block spaces the keys as far apart as the map allows. A table per head is added to the logits.
The blocks come in three forms: with overlapping convolutions before and between stages (NAT, DiNAT), with
Swin's patches and merging (DiNAT_s), and at one width throughout (isotropic; ViT-rpb sees the whole map).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from timm.layers import ClassifierHead, DropPath, to_2tuple
from torch import Tensor, nn

from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import (
    Conv2d,
    Mlp,
    NeighborhoodAttention,
    PatchEmbed,
    Stage,
    convolved,
    drop_path_rates,
    init_linear_and_conv,
    resize_rpb,
)
from ..models import register_backbone
from .swin import PatchMerging


class ConvTokenizer(nn.Module):
    """Two 3x3 convolutions of stride 2 with nothing between them, then a norm: patches that overlap."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = Conv2d(in_chans, dim // 2, 3, 2, 1)
        self.reduction = Conv2d(dim // 2, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, ceil(H / 4), ceil(W / 4), dim)."""
        return self.norm(self.reduction(self.proj(x)).permute(0, 2, 3, 1))


class ConvDownsampler(nn.Module):
    """A 3x3 convolution of stride 2 to twice the channels, then a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = Conv2d(dim, 2 * dim, 3, 2, 1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2C)."""
        return self.norm(convolved(self.reduction, x))


class NATBlock(nn.Module):
    """``x + gamma1 * attention(norm(x))``, then ``x + gamma2 * mlp(norm(x))``."""

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel: tuple[int, int],
        dilation: int,
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        scale: float | None,
        drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = NeighborhoodAttention(
            dim, heads, kernel=kernel, dilation=dilation, qkv_bias=qkv_bias, proj_drop=drop
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.gamma1 = None if scale is None else nn.Parameter(scale * torch.ones(dim))
        self.gamma2 = None if scale is None else nn.Parameter(scale * torch.ones(dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.drop_path(_scaled(self.attn(self.norm1(x)), self.gamma1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma2))


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


class DiNAT(Backbone):
    """NAT, DiNAT, DiNAT_s and the isotropic forms; a state is (B, H, W, C).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        convolutional: Overlapping convolutions before and between stages, else Swin's patches and merging.
        patch_size: Side of a patch; 4, or 16 in the isotropic form, which has one stage.
        embed_dim: Channels of the first stage; each stage doubles them.
        depths: Blocks per stage.
        num_heads: Heads per stage.
        kernel_size: Keys per axis that a query sees; None is the whole map of ``img_size``.
        dilations: Dilation of every second block, per stage; the first block of a stage has 1.
        mlp_ratio: Width of the MLP over that of the stage.
        qkv_bias: Bias of the projection to queries, keys and values.
        layer_scale: Initial value of the gammas, None for none.
        drop_rate: Dropout before the classifier and in the blocks.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    plans_by_size = True
    layout = "NHWC"
    first_conv = "patch_embed.proj"
    no_decay = ("rpb",)

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        convolutional: bool = True,
        patch_size: int = 4,
        embed_dim: int = 64,
        depths: Sequence[int] = (3, 4, 18, 5),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        kernel_size: int | None = 7,
        dilations: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: float = 3.0,
        qkv_bias: bool = True,
        layer_scale: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
    ) -> None:
        dims = [embed_dim * 2**number for number in range(len(depths))]
        super().__init__(
            features=[(dim, patch_size * 2**number) for number, dim in enumerate(dims)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=patch_size,
        )
        if convolutional:
            self.patch_embed: nn.Module = ConvTokenizer(in_chans, embed_dim)
        else:
            self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size)
        self.pos_drop = nn.Dropout(drop_rate)
        whole = (-(-self.img_size[0] // patch_size), -(-self.img_size[1] // patch_size))
        kernel = whole if kernel_size is None else to_2tuple(kernel_size)
        merge = ConvDownsampler if convolutional else PatchMerging
        block = partial(
            NATBlock,
            kernel=kernel,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            scale=layer_scale,
            drop=drop_rate,
        )
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList(
            Stage(
                [
                    block(
                        dim,
                        num_heads[number],
                        dilation=dilations[number] if place % 2 else 1,
                        drop_path=rate,
                    )
                    for place, rate in enumerate(rates[number])
                ],
                merge(dim // 2) if number else None,
            )
            for number, dim in enumerate(dims)
        )
        self.norm = nn.LayerNorm(dims[-1])
        self.head = ClassifierHead(dims[-1], num_classes, global_pool, drop_rate, input_fmt="NHWC")
        for module in self.modules():  # convolutions keep torch's initial values
            if isinstance(module, nn.Linear):
                init_linear_and_conv(module)
        self.keys = _keys(len(depths), convolutional, kernel_size is None)

    def embed(self, image: Tensor) -> Tensor:
        """Patches (B, H / 4, W / 4, C)."""
        return self.pos_drop(self.patch_embed(image))


def _index_buffers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The buffers by which official blocks of ViT-rpb look up their tables."""
    found = {}
    for name, table in state.items():
        if name.endswith(".rpb"):
            tall, wide = ((one + 1) // 2 for one in table.shape[1:])
            place = torch.cartesian_prod(torch.arange(tall), torch.arange(wide))
            apart = place - place[:, None] + torch.tensor([tall - 1, wide - 1])  # key minus query
            found[name.removesuffix("rpb") + "relative_position_index"] = (
                apart[..., 0] * table.shape[2] + apart[..., 1]
            )
    return found


def _keys(stages: int, convolutional: bool, whole: bool) -> KeyMap:
    """Official names: ``levels`` of NAT, ``layers`` of DiNAT_s and of the isotropic forms."""
    name = "levels" if convolutional else "layers"
    stem = (
        Rename("patch_embed.proj.0", "patch_embed.proj"),
        Rename("patch_embed.proj.1", "patch_embed.reduction"),
    )
    levels = (
        Rename(f"{name}.{{i}}.downsample", "stages.{i+1}.downsample"),  # official stages end with it
        Rename(f"{name}.{{i}}", "stages.{i}"),
    )
    flat = (Rename("layers.{j}", "stages.0.blocks.{j}"),)
    return KeyMap(
        rules=(
            *(stem if convolutional else ()),
            *(flat if stages == 1 and not convolutional else levels),
            Rename("head", "head.fc"),
        ),
        drop=("*.relative_position_index",),
        rebuild=_index_buffers if whole else None,
        resize={"rpb": resize_rpb},
    )


DiNAT.keys = _keys(4, True, False)

CARD = Card(
    name="dinat",
    task="vision",
    title="Dilated Neighborhood Attention Transformer (with NAT, DiNAT_s and the isotropic forms)",
    paper="https://arxiv.org/abs/2209.15001",
    code="https://github.com/SHI-Labs/Neighborhood-Attention-Transformer",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal the official code's": (
            "tests/vision/test_dinat.py::test_equals_official"
        ),
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_dinat.py::test_official_keys",
    },
    differs="The recordings were made with NATTEN's operator written out densely: NATTEN dropped relative "
    "biases in 0.20. There is no dropout on attention probabilities. ViT-rpb takes maps of any size: on "
    "larger ones a query sees as many keys as it was made for. Weights of ImageNet-22K have no name here.",
)

_MINI = {"depths": (3, 4, 6, 5)}
_SMALL = {"embed_dim": 96, "num_heads": (3, 6, 12, 24), "mlp_ratio": 2.0, "drop_path_rate": 0.3}
_BASE = {"embed_dim": 128, "num_heads": (4, 8, 16, 32), "mlp_ratio": 2.0, "drop_path_rate": 0.5}
_LARGE = {"embed_dim": 192, "num_heads": (6, 12, 24, 48), "mlp_ratio": 2.0, "drop_path_rate": 0.35}
_SCALED = {"layer_scale": 1e-5}
_NEAR = {"dilations": (1, 1, 1, 1)}
_384 = {"dilations": (13, 6, 3, 1)}
_S = {"convolutional": False, "mlp_ratio": 4.0, "depths": (2, 2, 18, 2)}
_ISOTROPIC = {"convolutional": False, "patch_size": 16, "mlp_ratio": 4.0, "depths": (12,)}
_WHOLE = {"kernel_size": None, "dilations": (1,)}
_ISOTROPIC_SMALL = _ISOTROPIC | {"embed_dim": 384, "num_heads": (12,), "drop_path_rate": 0.1}
_ISOTROPIC_BASE = _ISOTROPIC | {"embed_dim": 768, "num_heads": (24,), "drop_path_rate": 0.4}
_TEST = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "kernel_size": 3, "dilations": (2, 1)}
_S_TEST = _TEST | {"convolutional": False, "dilations": (2, 2)}
_WHOLE_TEST = {"embed_dim": 8, "num_heads": (2,), "depths": (2,), "patch_size": 8, "kernel_size": None}


def _variant(
    options: Mapping[str, object], parameters: float, gflops: float, top1: float, file: str, size: int = 224
) -> Variant:
    """A row of the official tables, and the file of its weights."""
    url = f"https://shi-labs.com/projects/{file}.pth"
    cfg = {"crop_pct": 1.0 if size == 384 else 0.875}
    return Variant(options, size, parameters, gflops, top1, weights=url, cfg=cfg)


_NAT, _IN1K, _FLAT = "nat/checkpoints/CLS", "dinat/checkpoints/imagenet1k", "dinat/checkpoints/isotropic"

register_backbone(
    DiNAT,
    CARD,
    {
        "nat_mini": _variant(_MINI | _NEAR, 19.98, 2.7, 81.8, f"{_NAT}/nat_mini"),
        "nat_tiny": _variant(_NEAR, 27.9, 4.3, 83.2, f"{_NAT}/nat_tiny"),
        "nat_small": _variant(_SMALL | _NEAR | _SCALED, 50.74, 7.8, 83.7, f"{_NAT}/nat_small"),
        "nat_base": _variant(_BASE | _NEAR | _SCALED, 89.77, 13.7, 84.3, f"{_NAT}/nat_base"),
        "dinat_mini": _variant(_MINI, 19.98, 2.7, 81.8, f"{_IN1K}/dinat_mini_in1k_224"),
        "dinat_tiny": _variant({}, 27.9, 4.3, 82.7, f"{_IN1K}/dinat_tiny_in1k_224"),
        "dinat_small": _variant(_SMALL, 50.72, 7.8, 83.8, f"{_IN1K}/dinat_small_in1k_224"),
        "dinat_base": _variant(_BASE | _SCALED, 89.77, 13.7, 84.4, f"{_IN1K}/dinat_base_in1k_224"),
        "dinat_large": _variant(_LARGE, 200.94, 30.6, 86.6, f"{_IN1K}/dinat_large_in22k_in1k_224"),
        "dinat_large_384": _variant(
            _LARGE | _384, 200.94, 89.7, 87.4, f"{_IN1K}/dinat_large_in22k_in1k_384", 384
        ),
        "dinat_large_384_11x11": _variant(
            _LARGE | {"kernel_size": 11}, 201.14, 92.4, 87.5, f"{_IN1K}/dinat_large_in22k_in1k_384_11x11", 384
        ),
        "dinat_s_tiny": _variant(
            _S | {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
            28.29,
            4.5,
            81.8,
            f"{_IN1K}/dinat_s_tiny_in1k_224",
        ),
        "dinat_s_small": _variant(_SMALL | _S, 49.61, 8.7, 83.5, f"{_IN1K}/dinat_s_small_in1k_224"),
        "dinat_s_base": _variant(_BASE | _S, 87.77, 15.4, 83.8, f"{_IN1K}/dinat_s_base_in1k_224"),
        "dinat_s_large": _variant(_LARGE | _S, 196.53, 34.5, 86.5, f"{_IN1K}/dinat_s_large_in1k_224"),
        "dinat_s_large_384": _variant(
            _LARGE | _S | _384, 196.53, 101.5, 87.4, f"{_IN1K}/dinat_s_large_in1k_384", 384
        ),
        "nat_isotropic_small": _variant(
            _ISOTROPIC_SMALL | {"dilations": (1,)}, 22.00, 4.3, 80.0, f"{_FLAT}/nat_isotropic_small_in1k_224"
        ),
        "nat_isotropic_base": _variant(
            _ISOTROPIC_BASE | {"dilations": (1,)}, 86.47, 16.9, 81.6, f"{_FLAT}/nat_isotropic_base_in1k_224"
        ),
        "dinat_isotropic_small": _variant(
            _ISOTROPIC_SMALL | {"dilations": (2,)},
            22.00,
            4.3,
            80.8,
            f"{_FLAT}/dinat_isotropic_small_in1k_224",
        ),
        "dinat_isotropic_base": _variant(
            _ISOTROPIC_BASE | {"dilations": (2,)}, 86.47, 16.9, 82.1, f"{_FLAT}/dinat_isotropic_base_in1k_224"
        ),
        "vitrpb_small": _variant(
            _ISOTROPIC_SMALL | _WHOLE, 22.08, 4.6, 81.2, f"{_FLAT}/vitrpb_small_in1k_224"
        ),
        "vitrpb_base": _variant(_ISOTROPIC_BASE | _WHOLE, 86.63, 17.5, 82.5, f"{_FLAT}/vitrpb_base_in1k_224"),
        "dinat_test": Variant(_TEST | {"layer_scale": 1e-5}, 32),
        "dinat_s_test": Variant(_S_TEST, 32),
        "vitrpb_test": Variant(_ISOTROPIC | _WHOLE | _WHOLE_TEST, 32),
    },
)
