"""A variant of every system that is small enough for tests."""

from __future__ import annotations

import pytest
from vision_tools import randomized

from graphrec import vision
from graphrec.vision import Backbone

TINY = vision.list_models(tests=True)
every = pytest.mark.parametrize("name", TINY)


def tiny(name: str, **options: object) -> Backbone:
    """A tiny variant, in evaluation mode, with weights that show what is broken."""
    model = vision.create_model(name, num_classes=options.pop("num_classes", 7), **options)
    return randomized(model)
