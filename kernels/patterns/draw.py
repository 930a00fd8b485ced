"""Pictures of patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _lengths(pattern: Pattern, q_len: int | None, k_len: int | None) -> tuple[int, int]:
    """Lengths given, or those that the pattern knows."""
    from math import prod

    for one in (pattern, *getattr(pattern, "parts", ())):
        if q_len is None and hasattr(one, "shape"):
            q_len = prod(one.shape)
        if q_len is None and hasattr(one, "lengths"):
            q_len, k_len = sum(one.lengths), sum(one.k_lengths or one.lengths) if k_len is None else k_len
    if q_len is None:
        raise ValueError(f"q_len must be given to draw {pattern!r}, which fits any length")
    return q_len, q_len if k_len is None else k_len


def _grid_shape(pattern: Pattern) -> tuple[int, ...] | None:
    return next(
        (one.shape for one in (pattern, *getattr(pattern, "parts", ())) if hasattr(one, "shape")), None
    )


def plot(
    pattern: Pattern,
    q_len: int | None = None,
    k_len: int | None = None,
    *,
    query: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw who sees whom: queries down, keys across; or, for one query of a grid, what it sees of the image.

    Args:
        pattern: of its heads and batch entries the first is drawn.
        q_len, k_len: lengths; grids and segments know theirs, ``k_len`` defaults to ``q_len``.
        query: draw only this query's keys, on the pattern's grid (one or two axes).
        ax: axes to draw into; a new figure otherwise.

    Returns:
        The axes; ``ax.figure.savefig(path)`` writes the picture.

    Raises:
        ValueError: a length that must be given, or a query that is not there.
    """
    from matplotlib.figure import Figure

    q_len, k_len = _lengths(pattern, q_len, k_len)
    if query is not None and query not in range(q_len):
        raise ValueError(f"query={query!r} must be 0 to {q_len - 1}")
    seen: Any = pattern.mask(q_len, k_len)
    while seen.dim() > 2:
        seen = seen[0]
    ax = Figure(figsize=(4, 4), layout="constrained").subplots() if ax is None else ax
    shape = _grid_shape(pattern)
    if query is None:
        ax.imshow(seen.numpy(), cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
        ax.set(xlabel="key", ylabel="query")
    else:
        picture = seen[query].float().view(shape if shape and len(shape) == 2 else (1, -1))
        if 0 <= (own := query + pattern.origin) < k_len:
            picture.view(-1)[own] += 0.3
        ax.imshow(picture.numpy(), cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
        ax.set(xlabel="column", ylabel="row")
    ax.set_title(repr(pattern), fontsize=8)
    return ax
