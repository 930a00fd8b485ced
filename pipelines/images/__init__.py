"""Images: from folders, archives, manifests and arrays to batches. Importing this loads no torch, no PIL."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augment import Augment
    from .cache import cache_images, decode_images
    from .container import ImageSet
    from .decoding import decode
    from .generated import shape_images
    from .loader import ImageBatch, ImageLoader
    from .opening import open_images
    from .plots import plot_images
    from .preprocess import Preprocess
    from .splits import split_images

_MODULES = {
    "augment": ("Augment",),
    "cache": ("cache_images", "decode_images"),
    "container": ("ImageSet",),
    "decoding": ("decode",),
    "generated": ("shape_images",),
    "loader": ("ImageBatch", "ImageLoader"),
    "opening": ("open_images",),
    "plots": ("plot_images",),
    "preprocess": ("Preprocess",),
    "splits": ("split_images",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Augment",
    "ImageBatch",
    "ImageLoader",
    "ImageSet",
    "Preprocess",
    "cache_images",
    "decode",
    "decode_images",
    "open_images",
    "plot_images",
    "shape_images",
    "split_images",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
