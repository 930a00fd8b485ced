"""The cards of BioIE and of the networks that it is compared with; importing this fills the registry.

A name builds `BioIE` with some options preset.
"""

from __future__ import annotations

import inspect
from typing import Any

from graphrec.registry import Card, register_model

from .bioie import BioIE

_TESTS = "tests/graph/test_bioie.py"
_PLAIN: dict[str, Any] = {
    "mark_dim": 0,
    "place_dim": 0,
    "pieces": False,
    "bag": False,
    "pools": (),
    "dropout": 0.5,
    "word_dropout": 0.04,
    "label_smoothing": 0.0,
}
"""The baselines have words and maxima alone."""
_PROPERTIES = {
    "an instance alone equals itself in any batch": f"{_TESTS}::test_batch_independence",
    "the order of a batch's instances changes nothing": f"{_TESTS}::test_order_of_a_batch",
}


def _register(card: Card, preset: dict[str, Any]) -> None:
    def build(words: int, pos: int, deps: int, entities: int, classes: int, **options: Any) -> BioIE:
        return BioIE(words, pos, deps, entities, classes, **{**preset, **options})

    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            one.replace(default=preset.get(one.name, one.default))
            for one in inspect.signature(BioIE).parameters.values()
        ]
    )
    register_model(card)(build)


_register(
    Card(
        name="bioie",
        task="relation",
        title=(
            "BioIE: Biomedical information extraction with multi-head attention enhanced graph convolutional "
            "network (a reconstruction)"
        ),
        paper="https://arxiv.org/abs/2110.13683",
        verified={
            "its formulas, written out for one text": f"{_TESTS}::test_formulas",
            "it learns what only the tree tells": f"{_TESTS}::test_learns_what_only_the_tree_tells",
            **_PROPERTIES,
        },
        differs=(
            "A reconstruction: of the paper only the abstract was at hand, and no official code is known. "
            "Made after AGGCN, with a BiLSTM below and attention weights on the tree's own edges; and, for "
            "small training sets, with marks of the entities and distances from them, pieces of words, the "
            "shortest stretch among what is pooled, and a bag of words. Word vectors begin with those of the "
            "training texts, unless a file is given."
        ),
        multi_label=False,
    ),
    {},
)
_register(
    Card(
        name="aggcn",
        task="relation",
        title="AGGCN: Attention guided graph convolutional networks for relation extraction (ACL 2019)",
        paper="https://arxiv.org/abs/1906.07510",
        code="https://github.com/Cartus/AGGCN",
        licence="MIT",
        published={
            "n-ary ternary accuracy, five classes": 0.797,
            "n-ary binary accuracy, five classes": 0.774,
        },
        verified={
            "the official formulas on dense matrices": f"{_TESTS}::test_aggcn_on_dense_matrices",
            **_PROPERTIES,
        },
        differs=(
            "The text's maximum is over all tokens, where the official code leaves detached ones out; no "
            "dropout on attention weights; Adam instead of SGD; word vectors are learned from scratch unless "
            "a file is given, where the published figures start from GloVe."
        ),
        multi_label=False,
    ),
    {
        "encoder": "linear",
        "tree": "mean",
        **_PLAIN,
        "pool_penalty": 0.002,
        "pos_dim": 30,
        "word_dim": 300,
        "hidden": 300,
        "sublayers": 4,
        "heads": 2,
    },
)
_register(
    Card(
        name="cgcn",
        task="relation",
        title=(
            "C-GCN without pruning: Graph convolution over pruned dependency trees improves relation "
            "extraction"
        ),
        paper="https://arxiv.org/abs/1809.10185",
        code="https://github.com/qipeng/gcn-over-pruned-trees",
        licence="Apache-2.0",
        verified=_PROPERTIES,
        differs=(
            "The whole tree instead of paths pruned around the entities, and AGGCN's dense block in place of "
            "two plain layers: the family's floor, not a reproduction."
        ),
        multi_label=False,
    ),
    {**_PLAIN, "tree": "mean", "guided": 0},
)
_register(
    Card(
        name="bilstm",
        task="relation",
        title="A BiLSTM with entity pooling and no graph, a floor (as in Zhang, Qi, Manning, EMNLP 2018)",
        paper="https://arxiv.org/abs/1809.10185",
        verified=_PROPERTIES,
        multi_label=False,
    ),
    {**_PLAIN, "tree": "none", "guided": 0},
)
