"""Montages: which electrodes form a region, which neighbour which, and where they are on the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from graphrec.errors import ConfigError

Pair = tuple[str, str]


@dataclass(frozen=True)
class Region:
    """Electrodes that are looked at together.

    Attributes:
        name: Of the region.
        channels: Its electrodes, in order.
        edges: Pairs that neighbour each other, without direction.
    """

    name: str
    channels: tuple[str, ...]
    edges: tuple[Pair, ...]


@dataclass(frozen=True)
class Montage:
    """Regions of electrodes and how regions neighbour each other.

    Attributes:
        name: Of the montage.
        regions: In order; the montage's channels are theirs, one region after another.
        edges: Pairs of neighbouring regions, without direction.
        positions: Electrode to (x, y) on a head seen from above, nose up, the ears at x = -1 and 1.

    Raises:
        ConfigError: An electrode is in two regions, or an edge names one that is not there.
    """

    name: str
    regions: tuple[Region, ...]
    edges: tuple[Pair, ...]
    positions: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        if not self.regions or any(not r.channels for r in self.regions):
            raise ConfigError(f"montage {self.name}: every region needs an electrode")
        _refuse_repeats(self.channels, f"montage {self.name}", "electrode")
        _refuse_repeats([r.name for r in self.regions], f"montage {self.name}", "region")
        for region in self.regions:
            _refuse_strangers(region.edges, region.channels, f"montage {self.name}, region {region.name}")
        _refuse_strangers(self.edges, [r.name for r in self.regions], f"montage {self.name}")

    @classmethod
    def from_regions(
        cls,
        regions: Mapping[str, Sequence[str]],
        *,
        edges: Mapping[str, Sequence[Pair]] | None = None,
        region_edges: Sequence[Pair] | None = None,
        name: str = "montage",
        positions: Mapping[str, tuple[float, float]] | None = None,
    ) -> Montage:
        """From the electrodes of each region.

        Args:
            regions: Name to electrodes.
            edges: Name to neighbouring pairs; a region without gets a path in the order of its electrodes.
            region_edges: Neighbouring regions; by default a ring in the order of the regions.
            name: Of the montage.
            positions: See `Montage`.
        """
        made = tuple(
            Region(r, tuple(c), tuple((edges or {}).get(r, tuple(pairwise(c))))) for r, c in regions.items()
        )
        names = list(regions)
        ring = (
            list(zip(names, names[1:] + names[:1], strict=True)) if len(names) > 2 else list(pairwise(names))
        )
        return cls(name, made, tuple(ring if region_edges is None else region_edges), positions)

    @property
    def channels(self) -> tuple[str, ...]:
        """All electrodes, one region after another; ``recordings.pick(montage.channels)`` sorts a set so."""
        return tuple(c for region in self.regions for c in region.channels)

    @property
    def bounds(self) -> tuple[int, ...]:
        """Region r has the channels ``bounds[r] … bounds[r + 1] - 1``."""
        ends = [0]
        for region in self.regions:
            ends.append(ends[-1] + len(region.channels))
        return tuple(ends)

    def adjacency(self, region: int) -> Tensor:
        """Neighbours within a region, symmetric, float32 (n, n) without a diagonal."""
        return _adjacency(self.regions[region].channels, self.regions[region].edges)

    def region_adjacency(self) -> Tensor:
        """Neighbouring regions, symmetric, float32 (R, R) without a diagonal."""
        return _adjacency([r.name for r in self.regions], self.edges)


def _adjacency(names: Sequence[str], edges: Sequence[Pair]) -> Tensor:
    at = {n: i for i, n in enumerate(names)}
    matrix = torch.zeros(len(names), len(names))
    for a, b in edges:
        matrix[at[a], at[b]] = matrix[at[b], at[a]] = 1.0
    return matrix


def _refuse_repeats(names: Sequence[str], where: str, what: str) -> None:
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if twice:
        raise ConfigError(f"{where}: {what} {twice[0]} occurs twice")


def _refuse_strangers(edges: Sequence[Pair], known: Sequence[str], where: str) -> None:
    for pair in edges:
        if len(pair) != 2 or pair[0] == pair[1] or any(end not in known for end in pair):
            raise ConfigError(f"{where}: edge {pair}; must join two of {', '.join(known)}")


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
    {
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
    },
)
"""The headset of DREAMER and of UCI's EEG Eye State, in HiSTN's regions (arXiv 2408.15255)."""
