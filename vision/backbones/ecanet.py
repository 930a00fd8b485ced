"""ECA-Net: channels gated by a short convolution along the channels' means (Wang et al., CVPR 2020).

Paper: https://arxiv.org/abs/1910.03151. Official code: https://github.com/BangguWu/ECANet (MIT).
The gate is ``x * sigmoid(conv1d(mean(x)))`` with one kernel for all channels (section 3.2). It stands after
the last norm of a residual branch, before the sum; in MobileNetV2 after the linear norm. The released models
choose kernels by stage (3, 5, 5, 7 in ECA-Net50), not by the paper's formula (eq. 12), which timm's module
uses if it is told the channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import ClassifierHead, DropPath, EcaModule
from torch import Tensor, nn

from graphrec.registry import Card, Variant

from ..backbone import Backbone
from ..keys import KeyMap, Rename
from ..layers import ConvNorm, Stage, drop_path_rates, gated
from ..models import register_backbone


def _init(module: nn.Module) -> None:
    """Convolutions by their fan-out, as the official code."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")


class Gate(EcaModule):
    """timm's, which cannot tell the number of channels of no pictures.

    Args:
        kernel: Taps of the convolution.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__(None, kernel_size=kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), unchanged in shape."""
        gate = self.gate(self.conv(x.mean((2, 3)).unsqueeze(1)))  # (B, 1, C)
        return gated(x, gate.transpose(1, 2).unsqueeze(-1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a gate, added to the input."""

    expansion = 1

    def __init__(self, dim: int, width: int, stride: int, kernel: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, width, 3, stride, 1)
        self.conv2 = ConvNorm(width, width, 3, 1, 1)
        self.eca = Gate(kernel)
        self.downsample = _shortcut(dim, width, stride)
        self.drop_path = DropPath(drop_path)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, width, H / stride, W / stride)."""
        out = self.eca(self.conv2(self.act(self.conv1(x))))
        return self.act(self.drop_path(out) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a gate, added to the input."""

    expansion = 4

    def __init__(self, dim: int, width: int, stride: int, kernel: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, width)
        self.conv2 = ConvNorm(width, width, 3, stride, 1)
        self.conv3 = ConvNorm(width, 4 * width)
        self.eca = Gate(kernel)
        self.downsample = _shortcut(dim, 4 * width, stride)
        self.drop_path = DropPath(drop_path)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, 4 * width, H / stride, W / stride)."""
        out = self.conv2(self.act(self.conv1(x)))
        out = self.eca(self.conv3(self.act(out)))
        return self.act(self.drop_path(out) + self.downsample(x))


def _shortcut(dim: int, out: int, stride: int) -> nn.Module:
    """What brings the input to the shape of the branch."""
    return nn.Identity() if stride == 1 and dim == out else ConvNorm(dim, out, 1, stride)


class ECAResNet(Backbone):
    """ResNet with a gate in each block; a state is (B, C, H, W).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        bottleneck: Blocks of three convolutions instead of two.
        depths: Blocks per stage.
        kernels: Taps of the gate's convolution per stage.
        width: Channels of the stem and of the first stage; each stage doubles them.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    first_conv = "stem.0.c"
    keys = KeyMap(
        (
            Rename("conv1", "stem.0.c"),
            Rename("bn1", "stem.0.bn"),
            Rename("layer{i+1}.{j}.conv{n}", "stages.{i}.blocks.{j}.conv{n}.c"),
            Rename("layer{i+1}.{j}.bn{n}", "stages.{i}.blocks.{j}.conv{n}.bn"),
            Rename("layer{i+1}.{j}.downsample.0", "stages.{i}.blocks.{j}.downsample.c"),
            Rename("layer{i+1}.{j}.downsample.1", "stages.{i}.blocks.{j}.downsample.bn"),
            Rename("layer{i+1}", "stages.{i}.blocks"),
            Rename("fc", "head.fc"),
        )
    )

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        bottleneck: bool = True,
        depths: Sequence[int] = (3, 4, 6, 3),
        kernels: Sequence[int] = (3, 5, 5, 7),
        width: int = 64,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        block = Bottleneck if bottleneck else BasicBlock
        widths = [width * 2**number for number in range(len(depths))]
        outs = [block.expansion * one for one in widths]
        super().__init__(
            features=[(out, 4 * 2**number) for number, out in enumerate(outs)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=4,
        )
        self.stem = nn.Sequential(
            ConvNorm(in_chans, width, 7, 2, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        rates = drop_path_rates(drop_path_rate, depths)
        before = [width, *outs]
        self.stages = nn.ModuleList(
            Stage(
                block(
                    out if place else before[number],
                    widths[number],
                    2 if number and not place else 1,
                    kernels[number],
                    rate,
                )
                for place, rate in enumerate(rates[number])
            )
            for number, out in enumerate(outs)
        )
        self.head = ClassifierHead(outs[-1], num_classes, global_pool, drop_rate)
        self.apply(_init)


class InvertedResidual(nn.Module):
    """Expand, 3x3 depthwise, project, gate; added to the input where the shapes allow it."""

    def __init__(self, dim: int, out: int, stride: int, expand: int, kernel: int, drop_path: float) -> None:
        super().__init__()
        wide = dim * expand
        self.expand = (
            nn.Identity() if expand == 1 else nn.Sequential(ConvNorm(dim, wide), nn.ReLU6(inplace=True))
        )
        self.depthwise = nn.Sequential(ConvNorm(wide, wide, 3, stride, 1, wide), nn.ReLU6(inplace=True))
        self.project = ConvNorm(wide, out)
        self.eca = Gate(kernel)
        self.residual = stride == 1 and dim == out
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, out, H / stride, W / stride)."""
        out = self.eca(self.project(self.depthwise(self.expand(x))))
        return x + self.drop_path(out) if self.residual else out


_SETTING = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
)  # fmt: skip
"""Expansion, channels, blocks and stride of MobileNetV2's groups of blocks."""
_STAGES = (1, 2, 3, 7, 4)
"""Blocks per resolution: groups of stride 1 belong to the stage before."""


def _mobile_keys() -> KeyMap:
    """The official blocks are numbered throughout, and their layers by place."""
    rules = [Rename("features.0.0", "stem.0.c"), Rename("features.0.1", "stem.0.bn")]
    number = 0
    for stage, count in enumerate(_STAGES):
        for place in range(count):
            number += 1
            old, new = f"features.{number}.conv", f"stages.{stage}.blocks.{place}"
            parts = ["depthwise.0"] if number == 1 else ["expand.0", "depthwise.0"]
            for layer, part in enumerate(parts):
                rules += [
                    Rename(f"{old}.{layer}.0", f"{new}.{part}.c"),
                    Rename(f"{old}.{layer}.1", f"{new}.{part}.bn"),
                ]
            last = len(parts)
            rules += [
                Rename(f"{old}.{last}", f"{new}.project.c"),
                Rename(f"{old}.{last + 1}", f"{new}.project.bn"),
                Rename(f"{old}.{last + 2}", f"{new}.eca"),
            ]
    end = [("features.18.0", "norm.0.c"), ("features.18.1", "norm.0.bn"), ("classifier.1", "head.fc")]
    return KeyMap((*rules, *(Rename(*pair) for pair in end)))


class ECAMobileNetV2(Backbone):
    """MobileNetV2 with a gate in each block; a state is (B, C, H, W).

    Args:
        img_size: Images that the model is made for; forward takes others.
        in_chans: Channels of the images.
        num_classes: Classes.
        global_pool: Pooling of the head.
        width: Factor on all channels but the last convolution's.
        last: Channels of the last convolution, which comes after the stages.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier blocks have less.
    """

    first_conv = "stem.0.c"
    keys = _mobile_keys()

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        width: float = 1.0,
        last: int = 1280,
        drop_rate: float = 0.25,
        drop_path_rate: float = 0.0,
    ) -> None:
        rows = [
            (expand, int(out * width), stride if place == 0 else 1, 1 if out < 96 else 3)
            for expand, out, count, stride in _SETTING
            for place in range(count)
        ]
        ends = [sum(_STAGES[: number + 1]) for number in range(len(_STAGES))]
        super().__init__(
            features=[(rows[end - 1][1], 2 ** (number + 1)) for number, end in enumerate(ends)],
            img_size=img_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            smallest=2,
        )
        dim = int(32 * width)
        self.stem = nn.Sequential(ConvNorm(in_chans, dim, 3, 2, 1), nn.ReLU6(inplace=True))
        rates = drop_path_rates(drop_path_rate, [len(rows)])[0]
        blocks = []
        for (expand, out, stride, kernel), rate in zip(rows, rates, strict=True):
            blocks.append(InvertedResidual(dim, out, stride, expand, kernel, rate))
            dim = out
        self.stages = nn.ModuleList(
            Stage(blocks[end - count : end]) for end, count in zip(ends, _STAGES, strict=True)
        )
        self.num_features = last
        self.norm = nn.Sequential(ConvNorm(dim, last), nn.ReLU6(inplace=True))
        self.head = ClassifierHead(last, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.apply(_init)


_TESTS = "tests/vision/test_ecanet.py"
CARD = Card(
    name="ecanet",
    task="vision",
    title="ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks (ResNet)",
    paper="https://arxiv.org/abs/1910.03151",
    code="https://github.com/BangguWu/ECANet",
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal the official code's": f"{_TESTS}::test_resnet_equals_official",
        "parameters and GFLOPs": "tests/vision/test_published.py::test_counts",
        "official key names there and back": f"{_TESTS}::test_official_keys",
    },
    differs="The official weights are on Google Drive, where a program cannot download them: download them "
    "and give the path.",
)
MOBILE_CARD = Card(
    name="ecanet_mobilenetv2",
    task="vision",
    title="ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks (MobileNetV2)",
    paper=CARD.paper,
    code=CARD.code,
    licence="MIT",
    verified={
        "logits, pyramid and gradients equal the official code's": (
            f"{_TESTS}::test_mobilenet_equals_official"
        ),
        "parameters": "tests/vision/test_published.py::test_counts",
        "official key names there and back": f"{_TESTS}::test_official_keys",
    },
    differs=CARD.differs,
)


def _resnet(
    bottleneck: bool, depths: Sequence[int], kernels: Sequence[int], counted: tuple[float, float], top1: float
) -> Variant:
    """A published row; the repository prints parameters over 2^20 and operations over 2^30."""
    options = {"bottleneck": bottleneck, "depths": depths, "kernels": kernels}
    printed = f"published as {counted[0] * 1e6 / 2**20:.2f} M and {counted[1] * 1e9 / 2**30:.2f} G"
    return Variant(options, 224, *counted, top1, note=f"{printed}: in units of 2^20 and 2^30")


register_backbone(
    ECAResNet,
    CARD,
    {
        "ecanet18": _resnet(False, (2, 2, 2, 2), (3, 5, 7, 7), (11.69, 1.82), 70.92),
        "ecanet34": _resnet(False, (3, 4, 6, 3), (3, 3, 5, 7), (21.80, 3.68), 74.21),
        "ecanet50": _resnet(True, (3, 4, 6, 3), (3, 5, 5, 7), (25.56, 4.14), 77.42),
        "ecanet101": _resnet(True, (3, 4, 23, 3), (3, 3, 5, 7), (44.55, 7.89), 78.65),
        "ecanet152": _resnet(True, (3, 8, 36, 3), (3, 3, 5, 7), (60.19, 11.63), 78.92),
        "ecanet_test": Variant({"depths": (1, 2), "kernels": (3, 5), "width": 8}, 32),
        "ecanet_basic_test": Variant(
            {"depths": (1, 2), "kernels": (3, 5), "width": 8, "bottleneck": False}, 32
        ),
    },
)
_NOTE = "published as 3.34 M, in units of 2^20; the published operations count norms and activations as well"
register_backbone(
    ECAMobileNetV2,
    MOBILE_CARD,
    {
        "ecanet_mobilenetv2_100": Variant({}, 224, 3.50, 0.3199, 72.56, note=_NOTE, counted=0.3008),
        "ecanet_mobilenetv2_test": Variant({"width": 0.25, "last": 64}, 32),
    },
)
