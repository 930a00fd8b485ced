"""Pictures of the pattern vocabulary for docs/kernels.md, as small SVG files of rectangles alone.

`docs/generate.py` writes what :func:`pictures` and :func:`gallery` give. They are drawn from
``pattern.mask``, so a picture cannot differ from what is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor

from graphrec.kernels import patterns

SIDE, GAP = 132, 12
"""Width of a panel, and space between two, in pixels."""

SEEN, SOFT, QUERY, GROUND, FRAME = "#2b6cb0", "#ed8936", "#c53030", "#edf2f7", "#a0aec0"
COLUMNS = 3


def _table(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows)


NAMES: dict[str, Any] = {
    **{name: getattr(patterns, name) for name in patterns.__all__},
    "index": _table([[0, -1], [1, -1], [0, 2], [3, 1]]),
    "keys": torch.stack([(5 * torch.arange(24) + step) % 24 for step in (0, 7, 11)], 1),
    "seen": _table([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]).bool(),
    "valid": (torch.arange(24) < 17).view(1, 24),
    "start": torch.tensor([6]),
    "near": _table([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]).bool(),
}
"""What the captions may use: the patterns, and indices as data would give them."""


@dataclass(frozen=True)
class Picture:
    """A file, the code that is drawn, and whose view is shown.

    Attributes:
        file: name without ending.
        code: an expression over :data:`NAMES`, printed below the picture.
        query: position of a grid whose keys are drawn on the grid as well.
        lengths: queries and keys.
    """

    file: str
    code: str
    query: int | None = None
    lengths: tuple[int, int] = (24, 24)


VOCABULARY = {
    "Sequences": (
        Picture("full", "Full()"),
        Picture("causal", "Causal()"),
        Picture("causal_offset", "Causal(offset=16)", lengths=(8, 24)),
        Picture("window", "Window(3, 3)"),
        Picture("streaming", "Streaming(3, 5)"),
        Picture("strided", "Strided(4) & Causal()"),
        Picture("global", "Global(2)"),
        Picture("longformer", "Window(2, 2) | Global(1)"),
        Picture("segments", "Segments((4, 9, 11))"),
        Picture("segments_scales", "Segments((1, 4, 9), causal_scales=True)", lengths=(14, 14)),
        Picture("packed", "Packed((0, 7, 10, 24)) & Causal()"),
        Picture("pooled_causal", "PooledCausal(4)", lengths=(24, 6)),
    ),
    "Grids": (
        Picture("neighborhood", "Neighborhood((9, 9), 5)", 40, (81, 81)),
        Picture("neighborhood_border", "Neighborhood((9, 9), 5)", 9, (81, 81)),
        Picture("neighborhood_dilated", "Neighborhood((9, 9), 3, dilation=2)", 40, (81, 81)),
        Picture("neighborhood_strided", "Neighborhood((9, 9), 5, stride=3)", 31, (81, 81)),
        Picture("neighborhood_causal", "Neighborhood((9, 9), 5, causal=True)", 40, (81, 81)),
        Picture("windows", "Windows((8, 8), 4)", 29, (64, 64)),
        Picture("windows_shifted", "Windows((8, 8), 4, shift=2)", 29, (64, 64)),
        Picture("windows_wrapped", 'Windows((8, 8), 4, shift=2, border="-100")', 31, (64, 64)),
        Picture("windows_grid", 'Windows((8, 8), 4, order="grid")', 29, (64, 64)),
        Picture("stripes", "stripes((8, 8), 2, 0) | stripes((8, 8), 2, 1)", 29, (64, 64)),
        Picture("halo", "Halo((8, 8), 4, 1)", 29, (64, 64)),
        Picture("regions", "Regions((8, 8), 4, near)", 29, (64, 64)),
    ),
    "Chosen from the data": (
        Picture("blocks", "Blocks(seen, 6)"),
        Picture("block_lists", "BlockLists(index, 6)"),
        Picture("block_lists_causal", "BlockLists(index, 6) & Causal()"),
        Picture("tokens", "Tokens(keys)"),
        Picture("key_padding", "KeyPadding(valid) & Causal()"),
        Picture("from_start", "FromStart(Window(3, 0), start)"),
        Picture("combined", "(Window(4, 4) | Global(1)) & Causal()"),
        Picture("per_head", "PerHead(Causal(), Streaming(2, 4))"),
    ),
}


def made(picture: Picture) -> patterns.Pattern:
    """The pattern of a picture."""
    found: patterns.Pattern = eval(picture.code, NAMES)
    return found


def _runs(cells: Tensor) -> str:
    """Unbroken runs of true cells as one path, a cell being 1 by 1; ``cells`` is bool (rows, columns)."""
    parts = []
    for row, line in enumerate(cells.tolist()):
        start = 0
        for seen, run in groupby(line):
            width = len(list(run))
            if seen:
                parts.append(f"M{start} {row}h{width}v1h-{width}z")
            start += width
    return "".join(parts)


def _panel(layers: list[tuple[Tensor, str]], left: int) -> str:
    """Layers of cells over a ground, in a square (or flatter) frame ``left`` pixels from the edge."""
    rows, columns = layers[0][0].shape
    size = SIDE / max(rows, columns)
    drawn = "".join(f'<path fill="{ink}" d="{_runs(cells)}"/>' for cells, ink in layers if cells.any())
    frame = f'width="{size * columns:.4g}" height="{size * rows:.4g}"'
    return (
        f'<g transform="translate({left + 1} 1)"><rect {frame} fill="{GROUND}"/>'
        f'<g transform="scale({size:.6g})">{drawn}</g><rect {frame} fill="none" stroke="{FRAME}"/></g>'
    )


def _heads(pattern: patterns.Pattern, lengths: tuple[int, int]) -> list[Tensor]:
    """The masks of the first batch entry, one per head that differs."""
    seen = pattern.mask(*lengths)
    seen = seen[0] if seen.dim() == 4 else seen
    return list(seen) if seen.dim() == 3 else [seen]


def panels(picture: Picture) -> list[list[tuple[Tensor, str]]]:
    """What is drawn side by side: a query's view of its grid if there is one, then all pairs of each head."""
    pattern, (q_len, k_len) = made(picture), picture.lengths
    masks = _heads(pattern, picture.lengths)
    soft = pattern.penalty(torch.arange(q_len)[:, None], torch.arange(k_len), q_len, k_len)
    soft = torch.zeros_like(masks[0]) if soft is None else soft & masks[0]
    shown = [[(mask & ~soft, SEEN), (soft, SOFT)] for mask in masks]
    if picture.query is None:
        return shown
    shape = next(one.shape for one in (pattern, *getattr(pattern, "parts", ())) if hasattr(one, "shape"))
    assert prod(shape) == q_len
    here = torch.zeros(q_len, dtype=torch.bool)
    here[picture.query] = True
    views = [(masks[0] & ~soft)[picture.query], soft[picture.query], here]
    grid = [(one.view(shape), ink) for one, ink in zip(views, (SEEN, SOFT, QUERY), strict=True)]
    return [grid, *shown]


def svg(picture: Picture) -> str:
    """The file of a picture."""
    drawn = panels(picture)
    flat = max(layers[0][0].shape[0] / max(layers[0][0].shape) for layers in drawn)
    width, height = len(drawn) * (SIDE + GAP) - GAP + 2, round(SIDE * flat) + 2
    body = "\n".join(_panel(layers, place * (SIDE + GAP)) for place, layers in enumerate(drawn))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    title = picture.code.replace("&", "&amp;").replace('"', "&quot;")
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<title>{title}</title>\n{body}\n</svg>\n'


def pictures() -> dict[str, str]:
    """File name -> content, of all pictures."""
    return {f"{one.file}.svg": svg(one) for group in VOCABULARY.values() for one in group}


def _cell(picture: Picture) -> str:
    code = picture.code.replace("|", "\\|")
    return f"![{code}](pictures/{picture.file}.svg)<br>`{code}`"


def gallery() -> str:
    """The pictures as Markdown tables."""
    parts = []
    for title, group in VOCABULARY.items():
        cells = [_cell(one) for one in group]
        cells += [""] * (-len(cells) % COLUMNS)
        rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
        lines = [[title, *[""] * (COLUMNS - 1)], ["---"] * COLUMNS, *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)
