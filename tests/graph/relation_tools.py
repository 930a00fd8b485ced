"""Small relation sets, made without a file."""

from __future__ import annotations

from typing import Any

import torch

from graphrec.graph.relations import BioIE, TextBatch, TextBatches
from graphrec.pipelines.relations import RelationSet
from graphrec.pipelines.relations.builder import Builder

TEXTS: list[tuple[list[str], list[int], list[list[tuple[int, int, int]]]]] = [
    # words; heads, -1 for roots and detached tokens; the entity mentions of each instance
    (["drug"], [-1], [[(0, 0, 1), (1, 0, 1)]]),
    (
        ["drug", "helps", "gene", "and", "gene2"],
        [1, -1, 1, -1, 2],
        [[(0, 0, 1), (1, 2, 3)], [(0, 0, 1), (1, 4, 5), (1, 2, 3)]],
    ),
    (["a", "b", "c", "d"], [-1, -1, -1, -1], [[(0, 0, 2), (1, 3, 4)]]),
    (
        ["it", "is", "so", ".", "x", "hits", "y"],
        [1, -1, 1, -1, 5, -1, 5],
        [[(0, 4, 5), (1, 6, 7)], [(1, 6, 7)]],
    ),
]


def some_relations() -> RelationSet:
    """Six instances over four texts: of one token, with two roots, detached, and an unmentioned entity."""
    builder = Builder("some", 2)
    for words, heads, instances in TEXTS:
        dep = ["root" if h < 0 else f"d{i % 2}" for i, h in enumerate(heads)]
        text = builder.add_text(words, ["N"] * len(words), dep, heads)
        for spans in instances:
            builder.add_instance(text, spans, "yes" if spans[-1][1] % 2 else "None")
    return builder.finish(["None", "yes"])


def model_for(relations: RelationSet, **options: Any) -> BioIE:
    """A small network in evaluation mode, from a seed."""
    torch.manual_seed(0)
    options = {"hidden": 8, "word_dim": 6, "pos_dim": 2, "mark_dim": 3, "place_dim": 2, "heads": 2, **options}
    sizes = [len(names) for names in (relations.words, relations.pos_names, relations.dep_names)]
    model = BioIE(*sizes, relations.num_entities, len(relations.classes), **options).eval()
    if model.edges is not None:
        torch.nn.init.normal_(model.edges.kind.weight)
    if model.bag is not None:  # which begins at zero
        for one in model.bag.parameters():
            torch.nn.init.normal_(one, std=0.3)
    return model


def batch_of(relations: RelationSet, index: Any = None, **options: Any) -> TextBatch:
    """These instances as a batch."""
    chosen = torch.arange(len(relations)) if index is None else torch.as_tensor(index)
    options = {"edges": "tree", "reach": 3, **options}
    return TextBatches(relations, chosen, 100, **options).cut(chosen)


def tree_task(count: int, seed: int) -> RelationSet:
    """Whether the second entity hangs on the first: words, places and marks alone do not tell."""
    rng = torch.Generator().manual_seed(seed)
    builder = Builder("trees", 2)
    for _ in range(count):
        words = [f"w{i}" for i in torch.randint(0, 20, (9,), generator=rng).tolist()]
        related = bool(torch.rand(1, generator=rng) < 0.5)
        heads = [-1, *(int(torch.randint(0, i, (1,), generator=rng)) for i in range(1, 9))]
        first, second = sorted(torch.randperm(9, generator=rng)[:2].tolist())
        others = [h for h in range(9) if h not in (first, second)]
        heads[second] = first if related else others[int(torch.randint(0, 7, (1,), generator=rng))]
        if heads[first] == second:
            heads[first] = -1
        text = builder.add_text(words, ["N"] * 9, ["d"] * 9, heads)
        builder.add_instance(
            text, [(0, first, first + 1), (1, second, second + 1)], "yes" if related else "None"
        )
    return builder.finish(["None", "yes"])
