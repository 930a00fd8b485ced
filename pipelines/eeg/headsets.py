"""The Emotiv EPOC in HiSTN's three divisions into regions, and montages by name."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from graphrec.errors import ConfigError

from .montage import Montage, Pair, Region


def _ring(names: tuple[str, ...]) -> tuple[Pair, ...]:
    return (*pairwise(names), (names[-1], names[0]))


_POSITIONS = {
    "AF3": (-0.29, 0.79),
    "F7": (-0.81, 0.67),
    "F3": (-0.41, 0.56),
    "FC5": (-0.73, 0.34),
    "T7": (-1.0, 0.02),
    "P7": (-0.78, -0.61),
    "O1": (-0.28, -0.88),
    "O2": (0.28, -0.88),
    "P8": (0.78, -0.61),
    "T8": (1.0, 0.02),
    "FC6": (0.73, 0.34),
    "F4": (0.41, 0.56),
    "F8": (0.81, 0.67),
    "AF4": (0.29, 0.79),
}

EPOC = Montage(
    "Emotiv EPOC",
    (
        Region(
            "left front",
            ("AF3", "F7", "F3", "FC5"),
            (("AF3", "F3"), ("F7", "F3"), ("F7", "FC5"), ("F3", "FC5")),
        ),
        Region("left back", ("T7", "P7", "O1"), (("T7", "P7"), ("P7", "O1"))),
        Region("right back", ("O2", "P8", "T8"), (("O2", "P8"), ("P8", "T8"))),
        Region(
            "right front",
            ("FC6", "F4", "F8", "AF4"),
            (("AF4", "F4"), ("F8", "F4"), ("F8", "FC6"), ("F4", "FC6")),
        ),
    ),
    (
        ("left front", "left back"),
        ("left back", "right back"),
        ("right back", "right front"),
        ("right front", "left front"),
    ),
    _POSITIONS,
)
"""The headset of DREAMER and of UCI's EEG Eye State, in HiSTN's regions (arXiv 2408.15255)."""

EPOC5 = Montage(
    "Emotiv EPOC, five regions",
    (
        Region("left front", ("AF3", "F7", "F3"), (("AF3", "F7"), ("AF3", "F3"), ("F7", "F3"))),
        Region("left side", ("FC5", "T7", "P7"), (("FC5", "T7"), ("T7", "P7"))),
        Region("back", ("O1", "O2"), (("O1", "O2"),)),
        Region("right side", ("P8", "T8", "FC6"), (("P8", "T8"), ("T8", "FC6"))),
        Region("right front", ("F4", "F8", "AF4"), (("F4", "F8"), ("F4", "AF4"), ("F8", "AF4"))),
    ),
    _ring(("left front", "left side", "back", "right side", "right front")),
    _POSITIONS,
)
"""The same headset in five regions, the official code's second version."""

EPOC3 = Montage(
    "Emotiv EPOC, three regions",
    (
        Region(
            "left",
            ("AF3", "F7", "F3", "FC5", "T7"),
            (("AF3", "F3"), ("F7", "F3"), ("F7", "FC5"), ("F3", "FC5"), ("FC5", "T7")),
        ),
        Region("back", ("P7", "O1", "O2", "P8"), (("P7", "O1"), ("O1", "O2"), ("O2", "P8"))),
        Region(
            "right",
            ("T8", "FC6", "F4", "F8", "AF4"),
            (("AF4", "F4"), ("F8", "F4"), ("F8", "FC6"), ("F4", "FC6"), ("FC6", "T8")),
        ),
    ),
    _ring(("left", "back", "right")),
    _POSITIONS,
)
"""The same headset in three regions, the official code's third version."""

MONTAGES = {"epoc": EPOC, "epoc3": EPOC3, "epoc5": EPOC5}


def find_montage(montage: str | Montage | Mapping[str, Any]) -> Montage:
    """A montage by name (``"epoc"``, ``"epoc3"``, ``"epoc5"``), from a mapping, or itself.

    Raises:
        ConfigError: There is none of that name, or the mapping is none.
    """
    if isinstance(montage, Montage):
        return montage
    if isinstance(montage, str):
        if montage not in MONTAGES:
            raise ConfigError(f"montage={montage!r}: must be one of {', '.join(MONTAGES)}, or a Montage")
        return MONTAGES[montage]
    if isinstance(montage, Mapping):
        return Montage.from_dict(montage)
    raise ConfigError(f"montage: must be a name, a Montage or a mapping, got {type(montage).__name__}")
