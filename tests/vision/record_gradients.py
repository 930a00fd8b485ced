"""Adds gradients that the official code makes to the recordings in ``recorded``, and maps that they lack.

A recording that is new has its images, logits and maps from here as well (``NEW``).

``python tests/vision/record_gradients.py FOLDER [RECORDING ...]``, where FOLDER holds clones of the official
repositories under their own names, each at the commit that the recording's metadata name. einops must be
installed besides what graphrec needs. Nothing of the official code is copied: it is imported, given the
weights that :func:`vision_tools.random_value` draws, and run in float64 on the recorded images. Its logits
must be the recorded ones, which shows that the options are too. NATTEN, CUDA code that the official DiNAT
calls, is written out in ``official_natten.py``.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from official_natten import NeighborhoodAttention2D
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from vision_tools import (
    IMAGE_STEP,
    MAP_STEP,
    RECORDED,
    gradient_summary,
    mixed_gradients,
    random_value,
    relative,
)


def stand_in(name: str, **content: object) -> None:
    """A module that the official code imports and that what is recorded does not need."""
    path = name.split(".")
    for depth in range(1, len(path) + 1):
        sys.modules.setdefault(".".join(path[:depth]), ModuleType(".".join(path[:depth])))
    vars(sys.modules[name]).update(content)


def not_installed(name: str) -> None:
    raise LookupError(name)


@contextmanager
def importing_from(folder: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Imports from a folder, forgotten afterwards: repositories share names as ``models``."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in OFFICIAL_MODULES:
                del sys.modules[name]


OFFICIAL_MODULES = {
    "models",
    "model",
    "ops",
    "pvt",
    "nat",
    "dinats",
    "isotropic",
    "transnext",
    "attention_native",
}
Make = Callable[[Callable[[str], ModuleType]], nn.Module]


def biformer(load: Callable[[str], ModuleType]) -> nn.Module:
    return load("models.biformer").BiFormer(
        depth=[1, 1, 2, 1],
        embed_dim=[8, 8, 16, 16],
        mlp_ratios=[3, 3, 3, 3],
        n_win=2,
        kv_downsample_mode="identity",
        topks=[1, 2, 3, -2],
        qk_dims=[8, 8, 16, 16],
        head_dim=4,
        auto_pad=True,
        num_classes=11,
    )


def biformer_stl(
    load: Callable[[str], ModuleType], module: str = "biformer_stl", name: str = "BiFormerSTL", last: int = -2
) -> nn.Module:
    return getattr(load(f"models.{module}"), name)(
        depth=[1, 1, 2, 1],
        embed_dim=[8, 8, 16, 16],
        mlp_ratios=[3, 3, 3, 3],
        head_dim=4,
        norm_layer=nn.BatchNorm2d,
        n_wins=(2, 2, 2, 2),
        topks=(1, 2, 3, last),
        num_classes=11,
    )


def cswin(load: Callable[[str], ModuleType], **options: object) -> nn.Module:
    return load("models.cswin").CSWinTransformer(
        embed_dim=8, num_heads=[2, 2, 2, 4], num_classes=11, **options
    )


def pvt(load: Callable[[str], ModuleType]) -> nn.Module:
    return load("pvt").PyramidVisionTransformer(
        img_size=64,
        patch_size=4,
        embed_dims=[16, 24, 32, 40],
        num_heads=[1, 2, 2, 4],
        mlp_ratios=[2, 2, 2, 2],
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        depths=[1, 1, 1, 1],
        sr_ratios=[8, 4, 2, 1],
        num_classes=11,
    )


def dinat(load: Callable[[str], ModuleType]) -> nn.Module:
    return load("nat").NAT(
        embed_dim=8,
        mlp_ratio=3,
        depths=[2, 2],
        num_heads=[1, 2],
        kernel_size=3,
        dilations=[[1, 2], [1, 1]],
        layer_scale=1e-5,
        num_classes=11,
    )


def dinat_s(load: Callable[[str], ModuleType]) -> nn.Module:
    return load("dinats").DiNAT_s(
        embed_dim=8,
        depths=[2, 2],
        num_heads=[1, 2],
        kernel_size=3,
        dilations=[[1, 2], [1, 2]],
        num_classes=11,
    )


def isotropic(load: Callable[[str], ModuleType], layer: str, **options: object) -> nn.Module:
    module = load("isotropic")
    return module.NATIsotropic(
        patch_size=8,
        embed_dim=8,
        depth=2,
        num_heads=2,
        layer=getattr(module, layer),
        num_classes=11,
        **options,
    )


def ecanet(load: Callable[[str], ModuleType], block: str) -> nn.Module:
    module = load("models.eca_resnet")
    model = module.ResNet(getattr(module, block), [1, 2, 1, 1], num_classes=11, k_size=[3, 5, 5, 7])
    model.avgpool = nn.AdaptiveAvgPool2d(1)  # as the official constructors set it
    return model


def ecanet_mobilenetv2(load: Callable[[str], ModuleType]) -> nn.Module:
    return load("models.eca_mobilenetv2").ECA_MobileNetV2(width_mult=0.25, num_classes=11)


def transnext(load: Callable[[str], ModuleType], **options: object) -> nn.Module:
    return load("transnext").TransNeXt(
        patch_size=4,
        embed_dims=[8, 8, 12, 16],
        num_heads=[1, 2, 2, 2],
        mlp_ratios=[3, 3, 2, 2],
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        depths=[1, 1, 2, 1],
        num_classes=11,
        **options,
    )


def convnext_isotropic(load: Callable[[str], ModuleType]) -> nn.Module:
    return load("models.convnext_isotropic").ConvNeXtIsotropic(depth=2, dim=8, num_classes=11)


def shvit(load: Callable[[str], ModuleType]) -> nn.Module:
    return load("model.shvit").SHViT(
        embed_dim=[16, 24, 32],
        partial_dim=[4, 9, 12],
        depth=[1, 2, 1],
        types=["i", "s", "s"],
        num_classes=11,
    )


MAKERS: dict[str, tuple[str, Make]] = {
    "biformer": ("", biformer),
    "biformer_stl": ("", biformer_stl),
    "biformer_stl_nchw": (
        "",
        partial(biformer_stl, module="biformer_stl_nchw", name="nchwBiFormerSTL", last=-1),
    ),
    "convnext_isotropic": ("", convnext_isotropic),
    "cswin": ("", partial(cswin, img_size=64, depth=[1, 1, 2, 1], split_size=[1, 2, 2, 2])),
    "cswin_whole": ("", partial(cswin, img_size=32, depth=[1, 1, 1, 1], split_size=[2, 4, 1, 1])),
    "dinat": ("classification", dinat),
    "dinat_s": ("classification", dinat_s),
    "dinat_isotropic": (
        "classification",
        partial(isotropic, layer="NATransformerLayer", img_size=56, kernel_size=3, dilation=2),
    ),
    "vitrpb": ("classification", partial(isotropic, layer="VisionTransformerLayer", img_size=32)),
    "ecanet": ("", partial(ecanet, block="ECABottleneck")),
    "ecanet_basic": ("", partial(ecanet, block="ECABasicBlock")),
    "ecanet_mobilenetv2": ("", ecanet_mobilenetv2),
    "pvt": ("classification", pvt),
    "shvit": ("", shvit),
    "transnext": ("classification", partial(transnext, img_size=64, sr_ratios=[8, 4, 2, 1])),
    "transnext_96": (
        "classification",
        partial(transnext, img_size=96, pretrain_size=64, sr_ratios=[8, 4, 2, 1]),
    ),
    "transnext_aaaa": (
        "classification",
        partial(transnext, img_size=64, sr_ratios=[16, 8, 4, 2], window_size=[3, 3, 3, 3]),
    ),
}
"""For each recording the folder of the repository to import from, and the model with the recorded options."""


MAPS = {
    "biformer_stl_nchw": ("stages", 0),
    "ecanet": ("layer", 1),
    "ecanet_basic": ("layer", 1),
    "transnext_96": ("norm", 1),
    "transnext_aaaa": ("norm", 1),
}
"""Which modules give the feature maps, for recordings that lack them, and the number of the first stage."""

NEW = {
    "biformer_stl_nchw": {
        "repository": "https://github.com/rayleizhu/BiFormer",
        "commit": "1697bbbeafb8680524898f1dcaac10defd0604be",
        "options": "nchwBiFormerSTL: depth=[1,1,2,1], embed_dim=[8,8,16,16], mlp_ratios=[3,3,3,3], "
        "head_dim=4, norm_layer=BatchNorm2d, n_wins=(2,2,2,2), topks=(1,2,3,-1), num_classes=11",
        "seed": "0",
        "sizes": "1x3x64x64 1x3x52x75",
    },
}
"""What is said of recordings that this script begins, and the sizes of their images."""


def as_map(output: Tensor) -> Tensor:
    """Feature maps (B, C, H, W) as they are; tokens (B, H * W, C) of a square as such a map."""
    if output.dim() == 4:
        return output
    side = round(output.shape[1] ** 0.5)
    return output.transpose(1, 2).unflatten(2, (side, side))


def hear_maps(model: nn.Module, name: str, first: int) -> dict[int, Tensor]:
    """Where the maps of a model's four stages will be after it ran."""
    maps: dict[int, Tensor] = {}
    for stage in range(4):
        number = stage + first
        module = model.get_submodule(f"{name}.{number}" if first == 0 else f"{name}{number}")
        module.register_forward_hook(
            lambda module, given, output, stage=stage: maps.update({stage: as_map(output.detach().clone())})
        )
    return maps


def check_commit(clone: Path, commit: str) -> None:
    """Raises unless a clone is at a commit, without changes to the files that can be imported."""
    git = partial(subprocess.run, cwd=clone, check=True, capture_output=True, text=True)
    found = git(["git", "rev-parse", "HEAD"]).stdout.strip()
    changed = git(["git", "diff", "--name-only", "--diff-filter=MA", "HEAD", "--", "*.py"]).stdout.split()
    if found != commit or changed:
        raise SystemExit(f"{clone}: at {found} with changes in {changed}; check out {commit}")


def begin(sizes: str) -> dict[str, Tensor]:
    """Images for a new recording."""
    generator = torch.Generator().manual_seed(1)
    shapes = [[int(side) for side in one.split("x")] for one in sizes.split()]
    return {f"image.{number}": torch.randn(one, generator=generator) for number, one in enumerate(shapes)}


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What is said in a recording, and its tensors."""
    if path.stem in NEW:
        about = dict(NEW[path.stem])
        return about, begin(about["sizes"])
    with safe_open(path, "pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping


def record(name: str, clones: Path) -> None:
    """Writes a recording, or writes it again with gradients."""
    path = RECORDED / f"{name}.safetensors"
    about, content = read(path)
    clone = clones / about["repository"].rpartition("/")[2]
    check_commit(clone, about["commit"])
    folder, make = MAKERS[name]
    with importing_from(clone / folder) as load:
        model = make(load).eval()
        learned = {key for key, _ in model.named_parameters()}
        state = {
            key: random_value(key, value, int(about["seed"]))
            if key in learned or "running_" in key
            else value
            for key, value in model.state_dict().items()
        }
        model.load_state_dict(state)
        model.double()
        maps = hear_maps(model, *MAPS[name]) if name in MAPS else {}
        for number in [key.removeprefix("image.") for key in content if key.startswith("image.")]:
            logits, of_image, grads = mixed_gradients(model, content[f"image.{number}"].double())
            error = relative(logits, content.setdefault(f"logits.{number}", logits.float()))
            if error > 1e-5:
                raise SystemExit(f"{name}: logits {number} differ by {error:.1e} from the recorded ones")
            for stage, one in maps.items():
                content[f"map_sample.{number}.{stage}"] = one.flatten()[::MAP_STEP].float()
            content[f"gradient.{number}"] = gradient_summary(grads)
            content[f"image_gradient.{number}"] = of_image.flatten()[::IMAGE_STEP].float()
    about["parameters"] = " ".join(sorted(grads))
    about["gradients"] = "in float64, by tests/vision/record_gradients.py"
    save_file(content, path, about)
    print(f"{name}: {len(grads)} parameters, {path.stat().st_size // 1000} kB")


def main(arguments: list[str]) -> None:
    if not arguments or set(arguments[1:]) - set(MAKERS):
        raise SystemExit(f"usage: record_gradients.py FOLDER [{' | '.join(MAKERS)} ...]")
    stand_in("natten", NeighborhoodAttention2D=NeighborhoodAttention2D)
    stand_in("fairscale.nn.checkpoint", checkpoint_wrapper=None)
    stand_in("pkg_resources", get_distribution=not_installed, DistributionNotFound=LookupError)
    for name in arguments[1:] or MAKERS:
        record(name, Path(arguments[0]))


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    main(sys.argv[1:])
