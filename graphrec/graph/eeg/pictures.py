"""A head seen from above, with what HiSTN weights how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import ConfigError, MissingExtraError
from graphrec.figures.names import short_name
from graphrec.pipelines.eeg import Montage
from graphrec.report.plots import GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Positions = Mapping[str, tuple[float, float]]
_FONT = 8.5
_HALO = 0.16
_INSIDE = 4
"""Letters of an electrode's name that its dot has room for; longer names stand below."""
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center"}


def positions_of(montage: Montage) -> Positions:
    """Electrode to (x, y), nose up, ears at x = -1 and 1: the montage's own, else the 10-05 system's by MNE.

    Raises:
        MissingExtraError: The montage has none and MNE is not installed.
        ConfigError: MNE does not know an electrode.
    """
    if montage.positions is not None:
        return montage.positions
    try:
        import mne
    except ImportError as error:
        raise MissingExtraError(
            f"montage {montage.name} has no positions; give it some, or pip install 'graphrec[eeg]'"
        ) from error
    built_in = mne.channels.get_builtin_montages()
    name = "colin27_1005" if "colin27_1005" in built_in else "standard_1005"  # renamed in MNE 1.13
    known = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
    places = {name.casefold(): place for name, place in known.items()}
    strange = [c for c in montage.channels if c.casefold() not in places]
    if strange:
        raise ConfigError(f"montage {montage.name}: {strange[0]} has no standard place; give positions")
    ears = (places["t7"][1] + places["t8"][1]) / 2
    return {c: _flattened(places[c.casefold()] - np.array([0, ears, 0])) for c in montage.channels}


def _flattened(place: Any) -> tuple[float, float]:
    """Distance from the top along the head, in the direction seen from above; the ears' height is 1."""
    x, y, z = (float(v) for v in place)
    away = math.hypot(x, y)
    angle = math.atan2(away, z) / (math.pi / 2)
    return (x / away * angle, y / away * angle) if away > 1e-9 else (0.0, 0.0)


def gates_figure(montage: Montage, gates: Mapping[str, Mapping[str, float]]) -> Figure:
    """Two heads: the weights of the signals, and of what the electrodes told each other.

    An electrode's colour is its weight times the number of electrodes in its region, so 1 is an equal share;
    the shade behind a region is the region's weight times the number of regions. The number at a region is
    its weight in per cent. Lines join neighbours.

    Args:
        montage: Of the network.
        gates: As `EEGClassifier.gates` gives them.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import TwoSlopeNorm

    from graphrec.figures.figure import Figure

    places = positions_of(montage)
    shares = {name: _shares(montage, gates, name) for name in ("electrodes", "electrodes_after")}
    top = max(1.5, *(v for one in shares.values() for v in one.values()))
    norm = TwoSlopeNorm(1.0, 0.0, top)
    figure = Figure(figsize=(8.6, 4.4), layout="constrained", facecolor="white")
    both = figure.subplots(1, 2)
    titles = ("signals of the electrodes", "what electrodes told their region")
    for axes, (name, share), title in zip(both, shares.items(), titles, strict=True):
        _head(axes)
        _regions(axes, montage, places, gates[name.replace("electrodes", "regions")], norm)
        _electrodes(axes, montage, places, share, norm)
        axes.set_title(title, fontsize=_FONT + 1, color=INK)
    bar = figure.colorbar(ScalarMappable(norm, "PuOr_r"), ax=both, shrink=0.75)
    bar.set_label("weight over an equal share", fontsize=_FONT, color=INK)
    bar.ax.tick_params(labelsize=_FONT)
    return figure


def _shares(montage: Montage, gates: Mapping[str, Mapping[str, float]], name: str) -> dict[str, float]:
    return {c: gates[name][c] * len(region.channels) for region in montage.regions for c in region.channels}


def _head(axes: Axes) -> None:
    from matplotlib.patches import Circle, Ellipse

    for side in (-1, 1):
        axes.add_patch(Ellipse((1.16 * side, 0), 0.12, 0.36, fill=False, color=MUTED, linewidth=1))
    axes.plot((-0.12, 0, 0.12), (1.145, 1.3, 1.145), color=MUTED, linewidth=1)
    axes.add_patch(Circle((0, 0), 1.15, facecolor="white", edgecolor=MUTED, linewidth=1, zorder=0))
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.3, 1.4), aspect="equal")
    axes.axis("off")


def _regions(
    axes: Axes, montage: Montage, places: Positions, weights: Mapping[str, float], norm: Any
) -> None:
    """A rounded shade around each region's electrodes, coloured by the region's share, and its per cent."""
    from matplotlib import colormaps
    from matplotlib.patches import Polygon

    for region in montage.regions:
        points = np.array([places[c] for c in region.channels])
        shade = colormaps["PuOr_r"](norm(min(weights[region.name] * len(montage.regions), norm.vmax)))
        outline = {"facecolor": shade, "edgecolor": shade, "alpha": 0.22, "joinstyle": "round"}
        axes.add_patch(Polygon(_around(points), closed=True, linewidth=0, zorder=1, **outline))
        # Towards the middle of the head, where a rim of electrodes has none.
        x, y = points.mean(0) * 0.42
        axes.text(
            x, y, f"{weights[region.name]:.0%}", fontsize=_FONT + 1.5, color=INK, ha="center", va="center"
        )


def _around(points: np.ndarray) -> np.ndarray:
    """Corners of the hull of circles around the points, (n, 2)."""
    from scipy.spatial import ConvexHull

    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = _HALO * np.stack([np.cos(angles), np.sin(angles)], 1)
    cloud = (points[:, None] + circle).reshape(-1, 2)
    return cloud[ConvexHull(cloud).vertices]


def _electrodes(
    axes: Axes, montage: Montage, places: Positions, share: Mapping[str, float], norm: Any
) -> None:
    for region in montage.regions:
        for a, b in region.edges:
            axes.plot(*zip(places[a], places[b], strict=True), color=MUTED, linewidth=0.8, zorder=2)
    points = np.array([places[c] for c in montage.channels])
    colours = [share[c] for c in montage.channels]
    look: dict[str, Any] = {"cmap": "PuOr_r", "norm": norm, "edgecolors": GRID, "linewidths": 1.2}
    axes.scatter(points[:, 0], points[:, 1], s=430, c=colours, zorder=3, **look)
    for name, (x, y) in zip(montage.channels, points, strict=True):
        if len(name) > _INSIDE:
            place: dict[str, Any] = {"ha": "center", "va": "top"}
            axes.text(x, y - 0.11, short_name(name, 12), fontsize=6.5, color=INK, zorder=4, **place)
            continue
        dark = abs(float(norm(share[name])) - 0.5) > 0.33
        axes.text(x, y, short_name(name), fontsize=7, color="white" if dark else INK, zorder=4, **_MIDDLE)
