"""Names as people type them: ``swin_tiny`` for ``swin_tiny_patch4_window7_224``."""

from __future__ import annotations

import difflib
import re

from graphrec.errors import ConfigError

from .models import family, list_models
from .timm_entries import PREFIX

_SIZES = re.compile(r"(?:_(?:patch\d+|window\d+|tf|\d+))+$")
"""What a name may leave out: patch, window and image size, and whose weights they are."""


def find_variant(name: str) -> str:
    """The variant that a name means.

    An exact name is itself. A name that only leaves out sizes means the variant for the smallest images,
    ``volo_d1`` is ``volo_d1_224``. Otherwise a beginning that a single variant has means that one.

    Raises:
        ConfigError: There is none, or the name is the beginning of several; the message lists them.
    """
    plain = str(name).removeprefix(PREFIX)
    if plain in list_models() or plain in list_models(tests=True):
        return plain
    begun = [one for one in list_models() if one.startswith(plain)] if plain else []
    same = [one for one in begun if _SIZES.fullmatch(one[len(plain) :])]
    if same:
        return min(same, key=lambda one: family(one).card.variants[one].size)
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise ConfigError(f"model: {name!r} is the beginning of {', '.join(begun)}; name one of them")
    short = {_SIZES.sub("", one) for one in list_models()}
    near = difflib.get_close_matches(plain, sorted(short | set(list_models())), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "graphrec.vision.list_models() lists all"
    raise ConfigError(f"model: there is no {name!r}; {hint}")
