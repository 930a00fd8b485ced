"""What a relation network looks at in a text: weights along its edges, and among all of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError
from graphrec.figures.names import short_name
from graphrec.report.plots import INK, MUTED, SERIES

from .batches import TextBatch
from .bioie import BioIE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphrec.pipelines.relations import RelationSet

_FONT = 7.5
_LETTER = 0.07
"""Inches that a bold one takes."""
_ARCS = 0.03
"""Edges of less weight are drawn as thin as these."""
_WIDEST = 24
"""Longer words are cut, to so many letters."""
_LARGEST = 60
"""Of longer texts so many tokens are drawn."""


@torch.inference_mode()
def attention_weights(model: BioIE, batch: TextBatch) -> tuple[Tensor | None, Tensor | None]:
    """Weights of the edges (E,) and among the tokens (L, L) of a single text, means over heads.

    None for what the model does not have.
    """
    x = model.context(batch)
    edges = None
    if model.edges is not None:
        edges = model.edges.weights(x, batch.topology.graph, batch.kind).mean(1)
    if model.tree_block is not None:
        x = model.along_edges(x, batch)
    first: Any = model.among[0] if len(model.among) else None
    return edges, None if first is None else first.weights(x).mean(0)


def attention_figure(model: nn.Module, batch: TextBatch, relations: RelationSet, index: int) -> Figure:
    """Arcs along a text's edges, and the matrix of attention among its tokens.

    An arc joins a token and its head (or neighbour); the wider, the more of the two tokens' weight is on it,
    both directions added. Entities' tokens are coloured. A row of the matrix is a token that looks, a column
    one that is looked at. Of a text of more than 60 tokens the entities' and the most attended are drawn.

    Args:
        model: In evaluation mode.
        batch: The instance.
        relations: For its words.
        index: Which one it is there.

    Raises:
        ConfigError: The model has neither attention.
        DataError: The text is empty.
    """
    from graphrec.figures.figure import Figure

    if not isinstance(model, BioIE) or (model.edges is None and not len(model.among)):
        raise ConfigError("the model has no attention to draw; fit model='bioie'")
    if not len(batch.texts.word):
        raise DataError(f"{relations.name}: the text of instance {index} has no tokens to draw")
    along, among = attention_weights(model, batch)
    words = [_short(word) for word in relations.tokens(index)]
    shown = _shown(batch, along, among, len(words))
    colours = _colours(batch.texts.member, batch.texts.member_ptr, len(words))
    part = "all tokens" if len(shown) == len(words) else f"{len(shown)} of {len(words)} tokens"
    words, colours = [words[i] for i in shown], [colours[i] for i in shown]
    size = max(3.0, 0.17 * len(words))
    panels = (along is not None) + (among is not None)
    margin = _LETTER * max(map(len, words))  # of the words beside and below
    wide = 3.2 * (along is not None) + size * (among is not None) + panels * margin + 0.3
    high = size + 0.6 + margin * (among is not None)
    figure = Figure(figsize=(wide, high), layout="constrained", facecolor="white")
    axes = np.atleast_1d(
        figure.subplots(1, panels, width_ratios=[3.2, size][-panels:] if panels > 1 else None)
    )
    if along is not None:
        _arcs(axes[0], batch, along, shown)
        _name(axes[0], words, colours)
    if among is not None:
        _matrix(axes[-1], among[shown][:, shown], words, colours)
        axes[-1].set_title(f"attention among {part}\n(rows look at columns)", fontsize=_FONT + 1, color=INK)
    return figure


def _short(word: str) -> str:
    """A word as it is written: none is wider than a picture, and nothing in it is invisible."""
    seen = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in word)
    return short_name(seen, _WIDEST)


def _shown(batch: TextBatch, along: Tensor | None, among: Tensor | None, tokens: int) -> list[int]:
    """Which tokens are drawn, ascending."""
    if tokens <= _LARGEST:
        return list(range(tokens))
    received = torch.zeros(tokens)
    if among is not None:
        received = among.sum(0)
    elif along is not None:
        received.index_add_(0, batch.topology.graph.index.long(), along)
    entities = batch.texts.member.unique()[:_LARGEST]
    received[entities] = torch.inf
    return sorted(received.argsort(descending=True, stable=True)[:_LARGEST].tolist())


def _colours(member: Tensor, ptr: Tensor, tokens: int) -> list[str]:
    found = [INK] * tokens
    for entity, (a, b) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)):
        for token in member[a:b].tolist():
            found[token] = SERIES[entity % len(SERIES)]
    return found


def _arcs(axes: Axes, batch: TextBatch, weights: Tensor, shown: list[int]) -> None:
    graph, place = batch.topology.graph, {token: i for i, token in enumerate(shown)}
    total: dict[tuple[int, int], float] = {}
    for i, j, w in zip(graph.row.tolist(), graph.index.tolist(), weights.tolist(), strict=True):
        if i in place and j in place:
            pair = (place[min(i, j)], place[max(i, j)])
            total[pair] = total.get(pair, 0.0) + w
    angle = np.linspace(-np.pi / 2, np.pi / 2, 30)
    for (i, j), weight in total.items():
        middle, half = (i + j) / 2, (j - i) / 2
        width = 3.2 * max(weight, _ARCS) / 2
        axes.plot(
            half**0.7 * np.cos(angle),
            middle + half * np.sin(angle),
            color=SERIES[0],
            alpha=0.75,
            linewidth=width,
        )
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(MUTED)
    axes.set_title("weights along edges", fontsize=_FONT + 1, color=INK)


def _matrix(axes: Axes, weights: Tensor, words: list[str], colours: list[str]) -> None:
    most = max(float(weights.max()), 2 / len(words))  # what is equal is pale
    axes.imshow(weights.numpy(), cmap="Blues", aspect="equal", interpolation="nearest", vmin=0, vmax=most)
    _name(axes, words, colours)
    axes.set_xticks(range(len(words)), words, rotation=90, fontsize=_FONT)
    for label, colour in zip(axes.get_xticklabels(), colours, strict=True):
        label.set_color(colour)


def _name(axes: Axes, words: list[str], colours: list[str]) -> None:
    axes.set_yticks(range(len(words)), words, fontsize=_FONT)
    axes.tick_params(length=0)
    for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
        label.set_color(colour)
        label.set_fontweight("normal" if colour == INK else "bold")
