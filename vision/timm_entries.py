"""The functions and configurations through which timm's registry knows our models.

timm registers functions by the name that they have and looks for their configuration in the module that they
say they are from: all of ours are from this one, which timm therefore lists as the module `timm_entries`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models._pretrained import DefaultCfg
from torch import nn

PREFIX = "graphrec_"
__all__ = ["PREFIX", "add_entry"]

default_cfgs: dict[str, DefaultCfg] = {}


def add_entry(name: str, cfg: dict[str, Any], build: Callable[..., nn.Module]) -> None:
    """Register ``build(name, **kwargs)`` in timm as ``graphrec_<name>``."""

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build(name, pretrained=pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = PREFIX + name
    entry.__doc__ = f"{name} of graphrec.vision."
    default_cfgs.update(generate_default_cfgs({entry.__name__: cfg}))
    register_model(entry)
