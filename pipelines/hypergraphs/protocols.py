"""The two evaluation protocols of LightHGNN (Feng et al., ICLR 2024, arXiv 2402.04296)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ConfigError

from ..index_splits import IndexSplit, per_class
from .container import Hypergraph


def transductive_split(graph: Hypergraph, *, train: int = 20, valid: int = 100, seed: int = 0) -> IndexSplit:
    """So many vertices of each class train and validate, all others test; the whole hypergraph is seen.

    Args:
        graph: With labels.
        train: Per class.
        valid: Per class; the official code takes 100.
        seed: Of the draw.

    Raises:
        ConfigError: The hypergraph has no labels.
        DataError: A class has fewer vertices.
    """
    if graph.y is None:
        raise ConfigError(f"{graph.name}: has no labels; read it with label=")
    return per_class(graph.y, train, valid, None, valid_per_class=True, seed=seed)


@dataclass(frozen=True, eq=False)
class ProductionSplit:
    """Training sees a hypergraph without the vertices that appear later.

    Attributes:
        observed: What training sees: its vertices are ``kept``, in that order, with singletons for those that
            lost all their hyperedges.
        kept: Number in the whole hypergraph of each observed vertex, int64 (n,), ascending.
        observed_split: Train, validation and transductive test vertices, numbered as in ``observed``.
        split: The same, numbered as in the whole; its ``test`` holds the transductive and the inductive ones.
        transductive: Test vertices that training saw without labels, numbered as in the whole, int64.
        inductive: Test vertices that training never saw, numbered as in the whole, int64.
    """

    observed: Hypergraph
    kept: Tensor
    observed_split: IndexSplit
    split: IndexSplit
    transductive: Tensor
    inductive: Tensor


def production_split(
    graph: Hypergraph, *, train: int = 20, valid: int = 100, unseen: float = 0.2, seed: int = 0
) -> ProductionSplit:
    """The transductive split, with a share of the test vertices and their incidences removed for training.

    Predictions are made on the whole hypergraph; report accuracy on ``transductive``, ``inductive`` and all
    of ``split.test``.

    Args:
        graph: With labels.
        train: Per class.
        valid: Per class.
        unseen: Share of the test vertices that training never sees.
        seed: Of both draws.

    Raises:
        ConfigError: ``unseen`` is not between 0 and 1.
        DataError: A class has too few vertices.
    """
    if not 0 < unseen < 1:
        raise ConfigError(f"unseen={unseen}: must lie between 0 and 1")
    split = transductive_split(graph, train=train, valid=valid, seed=seed)
    order = torch.from_numpy(np.random.default_rng([seed, 11]).permutation(len(split.test)))
    count = round(unseen * len(split.test))
    inductive = split.test[order[:count]].sort().values
    transductive = split.test[order[count:]].sort().values
    stays = torch.ones(graph.num_vertices, dtype=torch.bool)
    stays[inductive] = False
    kept = stays.nonzero().flatten()
    number = stays.cumsum(0) - 1
    inside = IndexSplit(
        number[split.train], number[split.valid], number[transductive], len(kept), f"{split.name}, observed"
    )
    observed = graph.keep_vertices(kept).with_singletons()
    return ProductionSplit(observed, kept, inside, split, transductive, inductive)
