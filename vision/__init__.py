"""Vision backbones by name, on the kernel layer, with timm's contract and the official weights.

    from graphrec import vision

    model = vision.create_model("swin_tiny_patch4_window7_224", num_classes=10)
    pyramid = vision.create_model("convnext_tiny", features_only=True)
    vision.list_models("swin*")

Importing this package also registers every model in timm, as `graphrec_<name>`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import backbones as backbones
from .backbone import Backbone
from .counting import count_operations
from .keys import Convert, Joined, KeyMap, Rename
from .layers.fuse import fuse
from .matching import find_variant
from .models import create_model, family, list_models, register_backbone
from .weights import load_weights, official_state, read_checkpoint, save_weights

if TYPE_CHECKING:
    from .classification import ImageClassifier
    from .explain import attention_maps, attention_rollout, class_activation, draw_attention
    from .exporting import export

_HOME = {
    "ImageClassifier": "classification",
    "attention_maps": "explain",
    "attention_rollout": "explain",
    "class_activation": "explain",
    "draw_attention": "explain",
    "export": "exporting",
}
"""What is loaded when it is asked for, and the folder that it is in."""

__all__ = [
    "Backbone",
    "Convert",
    "ImageClassifier",
    "Joined",
    "KeyMap",
    "Rename",
    "attention_maps",
    "attention_rollout",
    "class_activation",
    "count_operations",
    "create_model",
    "draw_attention",
    "export",
    "family",
    "find_variant",
    "fuse",
    "list_models",
    "load_weights",
    "official_state",
    "read_checkpoint",
    "register_backbone",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
