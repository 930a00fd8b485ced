"""ConvNeXt: a residual network with the proportions of Swin (Liu et al., CVPR 2022), and its isotropic form.

Paper: https://arxiv.org/abs/2201.03545. Official code: https://github.com/facebookresearch/ConvNeXt (MIT).
A block is a 7x7 depthwise convolution, layer norm, and an MLP over channels, scaled by a learned vector
(figure 4). Isotropic models (section 3.3) keep patches of 16 pixels and one width throughout, as ViT does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from timm.layers import DropPath, LayerNorm2d, NormMlpClassifierHead
from torch import Tensor, nn

from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import Conv2d, Mlp, Stage, drop_path_rates, init_linear_and_conv
from ..models import register_backbone

_norm = partial(LayerNorm2d, eps=1e-6)


class ConvNeXtBlock(nn.Module):
    """``x + gamma * mlp(norm(depthwise(x)))`` on maps (B, C, H, W); ``scale`` None leaves gamma out."""

    def __init__(self, dim: int, drop_path: float, scale: float | None) -> None:
        super().__init__()
        self.dwconv = Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.gamma = None if scale is None else nn.Parameter(scale * torch.ones(dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out = self.mlp(self.norm(self.dwconv(x).permute(0, 2, 3, 1)))
        if self.gamma is not None:
            out = out * self.gamma
        return x + self.drop_path(out.permute(0, 3, 1, 2))


class ConvNeXt(Backbone):
    """ConvNeXt; a state is (B, C, H, W). One stage makes the isotropic form.

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        patch_size: Side of a patch; 4, or 16 in the isotropic form.
        depths: Blocks per stage.
        dims: Channels per stage.
        layer_scale: Initial value of gamma, None for none.
        stem_norm: Layer norm after the patches; the isotropic form has none.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    first_conv = "stem.0"

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        patch_size: int = 4,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        layer_scale: float | None = 1e-6,
        stem_norm: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            features=[(dim, patch_size * 2**number) for number, dim in enumerate(dims)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
        )
        patches = Conv2d(in_chans, dims[0], patch_size, patch_size)
        self.stem = nn.Sequential(patches, *([_norm(dims[0])] if stem_norm else []))
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList(
            Stage(
                [ConvNeXtBlock(dim, rate, layer_scale) for rate in rates[number]],
                _downsample(dims[number - 1], dim) if number else None,
            )
            for number, dim in enumerate(dims)
        )
        # The final norm comes after the pooling, so it belongs to the head.
        self.head = NormMlpClassifierHead(
            dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate, norm_layer=_norm
        )
        self.apply(init_linear_and_conv)
        self.keys = KEYS if stem_norm else ISOTROPIC_KEYS


def _downsample(dim: int, out: int) -> nn.Sequential:
    """Half the height and width."""
    return nn.Sequential(_norm(dim), Conv2d(dim, out, 2, 2))


_BLOCKS = (
    Rename("stages.{i}.{j}.pwconv1", "stages.{i}.blocks.{j}.mlp.fc1"),
    Rename("stages.{i}.{j}.pwconv2", "stages.{i}.blocks.{j}.mlp.fc2"),
    Rename("stages.{i}.{j}", "stages.{i}.blocks.{j}"),
    Rename("norm", "head.norm"),
    Rename("head", "head.fc"),
)
KEYS = KeyMap(
    (
        Rename("downsample_layers.0", "stem"),
        Rename("downsample_layers.{i}", "stages.{i}.downsample"),
        *_BLOCKS,
    )
)
ISOTROPIC_KEYS = KeyMap(
    (
        Rename("stem", "stem.0"),
        Rename("blocks.{j}.pwconv1", "stages.0.blocks.{j}.mlp.fc1"),
        Rename("blocks.{j}.pwconv2", "stages.0.blocks.{j}.mlp.fc2"),
        Rename("blocks.{j}", "stages.0.blocks.{j}"),
        *_BLOCKS,
    )
)
ConvNeXt.keys = KEYS

CARD = Card(
    name="convnext",
    task="vision",
    title="A ConvNet for the 2020s",
    paper="https://arxiv.org/abs/2201.03545",
    code="https://github.com/facebookresearch/ConvNeXt",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal timm's": "tests/vision/test_convnext.py::test_equals_timm",
        "logits and gradients of the isotropic form equal the official code's": (
            "tests/vision/test_convnext.py::test_isotropic_equals_official"
        ),
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": "tests/vision/test_convnext.py::test_official_keys",
    },
)

_TINY = {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)}
_SMALL = {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)}
_BASE = {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)}
_LARGE = {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)}
_XLARGE = {"depths": (3, 3, 27, 3), "dims": (256, 512, 1024, 2048)}
_ISOTROPIC = {"patch_size": 16, "stem_norm": False, "layer_scale": None}
_TEST = {"depths": (1, 2), "dims": (8, 16), "layer_scale": 1.0}
_ISOTROPIC_TEST = _ISOTROPIC | {"depths": (2,), "dims": (8,)}


def _variant(
    options: Mapping[str, object], parameters: float, gflops: float, top1: float, file: str, size: int = 224
) -> Variant:
    """A published row of the official tables, and the file of its weights."""
    url = f"https://dl.fbaipublicfiles.com/convnext/{file}.pth"
    cfg = (
        {} if size == 224 else {"crop_pct": 1.0, "crop_mode": "squash"}
    )  # the official code warps larger ones
    return Variant(options, size, parameters, gflops, top1, weights=url, cfg=cfg)


register_backbone(
    ConvNeXt,
    CARD,
    {
        "convnext_tiny": _variant(_TINY, 28.59, 4.5, 82.1, "convnext_tiny_1k_224_ema"),
        "convnext_small": _variant(_SMALL, 50.22, 8.7, 83.1, "convnext_small_1k_224_ema"),
        "convnext_base": _variant(_BASE, 88.59, 15.4, 83.8, "convnext_base_1k_224_ema"),
        "convnext_large": _variant(_LARGE, 197.77, 34.4, 84.3, "convnext_large_1k_224_ema"),
        "convnext_xlarge": _variant(_XLARGE, 350.20, 60.9, 87.0, "convnext_xlarge_22k_1k_224_ema"),
        "convnext_tiny_384": _variant(_TINY, 28.59, 13.1, 84.1, "convnext_tiny_22k_1k_384", 384),
        "convnext_small_384": _variant(_SMALL, 50.22, 25.5, 85.8, "convnext_small_22k_1k_384", 384),
        "convnext_base_384": _variant(_BASE, 88.59, 45.0, 85.1, "convnext_base_1k_384", 384),
        "convnext_large_384": _variant(_LARGE, 197.77, 101.0, 85.5, "convnext_large_1k_384", 384),
        "convnext_xlarge_384": _variant(_XLARGE, 350.20, 179.0, 87.8, "convnext_xlarge_22k_1k_384_ema", 384),
        "convnext_isotropic_small": _variant(
            _ISOTROPIC | {"depths": (18,), "dims": (384,)}, 22.31, 4.3, 78.7, "convnext_iso_small_1k_224_ema"
        ),
        "convnext_isotropic_base": _variant(
            _ISOTROPIC | {"depths": (18,), "dims": (768,)}, 87.08, 16.9, 82.0, "convnext_iso_base_1k_224_ema"
        ),
        "convnext_isotropic_large": _variant(
            _ISOTROPIC | {"depths": (36,), "dims": (1024,)},
            305.91,
            59.7,
            82.6,
            "convnext_iso_large_1k_224_ema",
        ),
        "convnext_test": Variant(_TEST, 32),
        "convnext_isotropic_test": Variant(_ISOTROPIC_TEST, 32),
    },
)
