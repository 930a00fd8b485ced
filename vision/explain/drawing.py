"""The picture that a model saw, and over it what it looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from graphrec.errors import ConfigError
from graphrec.figures.names import short_name
from graphrec.pipelines.images import ImageSet, Preprocess, open_images

from ..backbone import Backbone
from .attention import AttentionMap, attention_maps, attention_rollout, is_chain
from .cam import class_activation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("auto", "rollout", "layer", "activation")
_INK = "#1c2733"


def draw_attention(
    model: Backbone,
    images: Any,
    *,
    method: str = "auto",
    layer: int | str = -1,
    target: int | None = None,
    prep: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw what a model looks at: every picture, and beside it the picture under its map.

    Args:
        model: A backbone with a classifier.
        images: A PIL image, a list of them or of paths, a path, uint8 arrays or an `ImageSet`; at most 16.
        method: "rollout" draws attention through all layers (see `attention_rollout`), "layer" how much each
            place is looked at in one layer, "activation" Grad-CAM for a class. "auto" takes the rollout
            where the model has attention over the picture in every stage, and the activation elsewhere.
        layer: Number or name of the layer for "layer".
        target: Class for "activation"; the most likely if None.
        prep: How pictures are prepared; as the model's configuration says if None.
        classes: Names of the classes, for the title.
        path: A PNG, SVG or PDF file to write.

    Raises:
        ConfigError: There is no such method, layer or class, or the model has no attention over the picture.
        DataError: There is no picture, or a file is broken.
    """
    from graphrec.figures.figure import Figure

    if method not in METHODS:
        raise ConfigError(f"method={method!r}: must be one of {', '.join(METHODS)}")
    prep = Preprocess.of_model(model, img_size=model.img_size) if prep is None else prep
    opened = _opened(images)
    if len(opened) > 16:
        raise ConfigError(f"images: {len(opened)} are too many for one figure; give at most 16")
    device = next(model.parameters()).device
    pixels = prep.pixels(opened, torch.arange(len(opened)))
    inputs = prep.normalise(pixels).to(device)
    shown, what = _map(model, inputs, method, layer, target)
    titles = _predictions(model, inputs, classes)
    large = interpolate(shown[:, None].cpu(), pixels.shape[-2:], mode="bilinear")[:, 0]
    columns = 1 if len(pixels) <= 3 else 2  # a picture and its map each
    rows = -(-len(pixels) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.35 * rows + 0.6), layout="constrained", facecolor="white")
    for number in range(len(pixels)):
        left, right = (figure.add_subplot(rows, 2 * columns, 2 * number + side) for side in (1, 2))
        picture = pixels[number].permute(1, 2, 0).numpy()
        _picture(left, picture, titles[number])
        _picture(right, picture, what)
        heat = right.imshow(large[number].numpy(), cmap="inferno", alpha=0.6, vmin=0.0)
    # One for all: each map goes up to its own most.
    ticks = [0, float(large[-1].max())]
    bar = figure.colorbar(heat, ax=figure.axes, location="bottom", shrink=0.4, aspect=40, ticks=ticks)
    bar.ax.set_xticklabels(["none", "most"], fontsize=7, color=_INK)
    bar.outline.set_visible(False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(path), dpi=110)
    return figure


def _opened(images: Any) -> ImageSet:
    single = not isinstance(images, list | tuple | str | os.PathLike | ImageSet)
    if single and not hasattr(images, "dtype"):
        images = [images]
    elif single and images.ndim == 3:
        images = images[None]
    return open_images(images, labelled=False)


def _map(
    model: Backbone, inputs: Tensor, method: str, layer: int | str, target: int | None
) -> tuple[Tensor, str]:
    """(B, h, w), and what it shows."""
    if method == "activation":
        return class_activation(model, inputs, target), "class activation"
    maps = attention_maps(model, inputs)
    if method == "auto" and not _everywhere(model, maps):
        return class_activation(model, inputs, target), "class activation"
    if method == "layer":
        chosen = _layer(maps, layer)
        return chosen.received(), f"attention in {chosen.name}"
    return attention_rollout(maps), "attention through all layers"


def _everywhere(model: Backbone, maps: list[AttentionMap]) -> bool:
    """Whether every stage has attention over the picture; a rollout would else leave its mixing out."""
    if not is_chain(maps):
        return False
    return {name.split(".")[1] for name in (one.name for one in maps) if name.startswith("stages.")} >= {
        str(number) for number in range(len(model.stages))
    }


def _layer(maps: Sequence[AttentionMap], layer: int | str) -> AttentionMap:
    if not maps:
        raise ConfigError("model: no layer has attention over the picture; use method='activation'")
    if isinstance(layer, int) and -len(maps) <= layer < len(maps):
        return maps[layer]
    for one in maps:
        if one.name == layer:
            return one
    names = ", ".join(one.name for one in maps)
    raise ConfigError(f"layer={layer!r}: must be a number below {len(maps)} or one of {names}")


@torch.no_grad()
def _predictions(model: Backbone, inputs: Tensor, classes: Sequence[str] | None) -> list[str]:
    """The most likely class of each picture with its probability; nothing without a classifier."""
    if model.num_classes < 1:
        return [""] * len(inputs)
    training = model.training
    model.eval()
    shares, codes = model(inputs).softmax(1).max(1)
    model.train(training)
    names = [
        short_name(classes[code], 24) if classes is not None else f"class {code}" for code in codes.tolist()
    ]
    return [f"{name} ({share:.0%})" for name, share in zip(names, shares.tolist(), strict=True)]


def _picture(axes: Any, picture: Any, title: str) -> None:
    axes.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=8, color=_INK)
    axes.set_axis_off()
