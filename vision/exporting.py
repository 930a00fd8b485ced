"""Backbones to ONNX and torch.export, compared with the original after writing."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphrec import runs, tracing
from graphrec.errors import ConfigError, RunError
from graphrec.pipelines.images import Preprocess

from .backbone import Backbone
from .layers.fuse import fuse

FORMATS = {".onnx": "onnx", ".pt2": "torch"}
TOLERANCE = 1e-4
"""Largest difference between exported and original logits that is accepted, relative to the largest logit."""
CHECK_ROWS = 3


class Deployed(nn.Module):
    """A backbone as it is served: perhaps with the normalisation before it and the softmax after it.

    Args:
        model: The backbone; it is copied.
        prep: Where given, the input is uint8 (B, C, H, W) and normalised by its mean and deviation.
        softmax: Whether to return probabilities in place of logits.
    """

    def __init__(self, model: Backbone, prep: Preprocess | None, softmax: bool) -> None:
        super().__init__()
        # Without gradients the kernel layer takes plain operations, which exporters understand.
        self.model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        self.softmax = softmax
        self.scale: Tensor | None
        self.shift: Tensor | None
        for name, values in _factors(prep).items():
            self.register_buffer(name, values)

    def forward(self, image: Tensor) -> Tensor:
        """(B, classes) of pictures (B, C, H, W)."""
        if self.scale is not None and self.shift is not None:
            image = image.float() * self.scale - self.shift
        logits = self.model(image)
        return logits.softmax(-1) if self.softmax else logits


def _factors(prep: Preprocess | None) -> dict[str, Tensor | None]:
    """What uint8 pixels are multiplied with, and what is taken off then, (1, C, 1, 1) each."""
    if prep is None:
        return {"scale": None, "shift": None}
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (prep.mean, prep.std))
    return {"scale": 1 / (255 * std), "shift": mean / std}


def _preprocess(model: Backbone, normalise: bool | Preprocess) -> Preprocess | None:
    """Mean and deviation of the model's pictures; None where it takes something else than pictures."""
    if isinstance(normalise, Preprocess):
        return normalise
    if not normalise and model.in_chans not in (1, 3):
        return None
    return Preprocess.of_model(model, img_size=model.img_size)


def export(
    model: Backbone,
    path: str | os.PathLike[str],
    *,
    normalise: bool | Preprocess = False,
    softmax: bool = False,
    fused: bool = True,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write a model for a server, for any number of pictures of its size, and check what was written.

    Args:
        model: A backbone with a classifier or without.
        path: ``name.onnx`` or ``name.pt2`` (for `torch.export.load`); nothing is written when the check
            fails.
        normalise: Have the file take uint8 pictures (B, C, H, W) and normalise them, by the mean and
            deviation of the model's configuration or of a `Preprocess`; else it takes what the model takes.
        softmax: Return probabilities.
        fused: Fold batch norms and parallel branches into convolutions first, as `fuse` does.
        classes: Names of the classes, to be written along.

    Returns:
        What the file's metadata say under "graphrec" (input, output, classes; mean and deviation are those of
        the pictures to feed), and under ``check`` the largest difference that was found.

    Raises:
        ConfigError: The suffix is neither, or ``classes`` does not fit.
        MissingExtraError: The ONNX packages are not installed.
        RunError: The model cannot be exported to this format, or the file computes something else.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ConfigError(f"path: {path.name!r} must end in {' or '.join(FORMATS)}")
    if classes is not None and len(classes) != model.num_classes:
        raise ConfigError(f"classes: {len(classes)} names for a model of {model.num_classes} classes")
    kind = FORMATS[path.suffix]
    if kind == "onnx":
        tracing.need_onnx()
    prep = _preprocess(model, normalise)
    served = Deployed(fuse(model) if fused else model, prep if normalise else None, softmax)
    inputs = _pictures(model, uint8=bool(normalise))
    with torch.no_grad():
        expected = Deployed(model, prep if normalise else None, softmax)(inputs)
    facts = _facts(model, kind, prep, bool(normalise), softmax, classes)
    with runs.atomic_file(path) as temporary:
        facts["check"] = _write(served, inputs, expected, kind, temporary, facts, path)
    return facts


def _pictures(model: Backbone, uint8: bool) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    shape = (CHECK_ROWS, model.in_chans, *model.img_size)
    if uint8:
        return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    return torch.randn(shape, generator=draw)


def _write(
    served: Deployed,
    inputs: Tensor,
    expected: Tensor,
    kind: str,
    file: Path,
    facts: dict[str, Any],
    path: Path,
) -> dict[str, Any]:
    """Write and run the file; what the check found."""
    output = facts["output"]["name"]
    try:
        if kind == "torch":
            tracing.write_torch(tracing.traced(served, (inputs,)), file, facts)
        else:
            tracing.write_onnx(served, (inputs,), file, names=["image"], output=output, facts=facts)
    except Exception as error:  # exporters raise whatever the first thing that they do not know leads to
        raise RunError(f"{path}: cannot be exported ({_why(error)})") from error
    worst = 0.0
    for rows in (CHECK_ROWS, 1):
        part = inputs[:rows]
        made = (
            tracing.run_torch(file, (part,))
            if kind == "torch"
            else tracing.run_onnx(file, {"image": part}, output)
        )
        worst = max(worst, float((torch.from_numpy(made) - expected[:rows]).abs().max()))
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not worst <= allowed:
        raise RunError(
            f"{path}: what was exported differs by {worst:.2g}, more than {allowed:.2g}; not written"
        )
    return {"pictures": CHECK_ROWS, "origin": "random", "max_abs_difference": worst}


def _why(error: BaseException) -> str:
    """The first line of the exception at the bottom of the chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _facts(
    model: Backbone,
    kind: str,
    prep: Preprocess | None,
    uint8: bool,
    softmax: bool,
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    from graphrec import __version__

    cfg = getattr(model, "default_cfg", None) or {}
    return {
        "graphrec": __version__,
        "torch": torch.__version__,
        "format": kind,
        "model": cfg.get("architecture", type(model).__name__),
        "input": {
            "name": "image",
            "dtype": "uint8" if uint8 else "float32",
            "shape": ["rows", model.in_chans, *model.img_size],
            "normalised_inside": uint8,
            "mean": None if prep is None else list(prep.mean),
            "std": None if prep is None else list(prep.std),
        },
        "output": {"name": "probability" if softmax else "logits", "classes": model.num_classes},
        "classes": None if classes is None else list(classes),
    }
