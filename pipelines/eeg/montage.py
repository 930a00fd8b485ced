"""Montages: which electrodes form a region, which neighbour which, and where they are on the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

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

        Raises:
            ConfigError: A region's electrodes are no list of names, or see `Montage`.
        """
        for region, listed in regions.items():
            if isinstance(listed, str) or not all(isinstance(one, str) for one in listed):
                raise ConfigError(
                    f"montage {name}: region {region!r} should be a list of electrodes, found {listed!r}"
                )
        made = tuple(
            Region(r, tuple(c), tuple((edges or {}).get(r, tuple(pairwise(c))))) for r, c in regions.items()
        )
        names = list(regions)
        ring = (
            list(zip(names, names[1:] + names[:1], strict=True)) if len(names) > 2 else list(pairwise(names))
        )
        return cls(name, made, tuple(ring if region_edges is None else region_edges), positions)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Montage:
        """From what `to_dict` gave, or a mapping of that form in YAML or JSON.

        Raises:
            ConfigError: It is not of that form, or see `Montage`.
        """
        try:
            regions = tuple(
                Region(r["name"], tuple(r["channels"]), tuple((a, b) for a, b in r["edges"]))
                for r in values["regions"]
            )
            found = values.get("positions")
            positions = None if found is None else {k: (float(x), float(y)) for k, (x, y) in found.items()}
            return cls(values["name"], regions, tuple((a, b) for a, b in values["edges"]), positions)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"montage: must hold name, regions (each name, channels, edges), edges and positions "
                f"({type(error).__name__}: {error})"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and texts."""
        return {
            "name": self.name,
            "regions": [
                {"name": r.name, "channels": list(r.channels), "edges": [list(e) for e in r.edges]}
                for r in self.regions
            ],
            "edges": [list(e) for e in self.edges],
            "positions": None if self.positions is None else {k: list(v) for k, v in self.positions.items()},
        }

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
