"""`GraphClassifier` and `NodeClassifier`: the graph networks of this package as scikit-learn estimators."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch_geometric.data import Data

from graphrec.errors import DataError
from graphrec.metrics import class_metrics
from graphrec.metrics.classes import accuracy
from graphrec.module_estimator import check_split, check_two_classes, judged_parts, remember_arguments
from graphrec.pipelines.array_labels import label_codes
from graphrec.pipelines.graphs import GraphSet
from graphrec.pipelines.index_splits import IndexSplit, random_parts
from graphrec.training.arguments import check_training

from .batches import GraphBatches
from .classifying import NetworkClassifier, frozen_history
from .drawing import draw_attention
from .models import Network
from .node_classifier import NodeClassifier

__all__ = ["GraphClassifier", "NodeClassifier"]

Graphs = GraphSet | Sequence[Data]


class GraphClassifier(NetworkClassifier):
    """Classifies graphs.

    Weights and features of edges (``edge_weight``, ``edge_attr``) are not read.

    Args:
        model: ``"histograph"``, or a baseline: ``list_models(task="graph")`` lists them.
        model_options: Keyword arguments of the model; see `GraphModel`.
        mode: ``"end_to_end"``, or ``"frozen"``: a backbone is trained first with the mean of its last layer
            (or given to ``fit``), then frozen, and the readout and head are trained on its cached
            activations.
        epochs: Passes over the training graphs, at most; in mode "frozen" of either stage.
        batch_size: Graphs in a step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        patience: Stop after so many epochs without a better one on the validation graphs; 0 or None for
            never.
        monitor: Validation metric that decides: ``"logloss"``, ``"accuracy"``, ``"f1_macro"``, ``"auc"``.
        validation: Share of the graphs held out for that when ``fit`` is given no split.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        train_options: Further fields of `graphrec.training.TrainConfig`, but for ``compile``: every batch
            of graphs has another size.
        random_state: Seed of weights, dropout and orders.
        verbose: 1 for a progress bar.

    Attributes:
        classes_: Labels, by column of `predict_proba`.
        module_: The fitted network, on the CPU.
        history_: A dict per epoch.
        metrics_: ``{"valid": {...}, "test": {...}}`` of the split's parts.
        split_: The split that was used.

    Example:
        >>> from graphrec.pipelines.graphs import read_tu_text
        >>> graphs = read_tu_text("MUTAG/MUTAG.txt")  # doctest: +SKIP
        >>> GraphClassifier("histograph", epochs=20).fit(graphs).metrics_  # doctest: +SKIP
    """

    _batch_source = GraphBatches
    split_: IndexSplit

    def __init__(
        self,
        model: str = "histograph",
        *,
        model_options: dict[str, Any] | None = None,
        mode: str = "end_to_end",
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        patience: int | None = 20,
        monitor: str = "logloss",
        validation: float = 0.1,
        accelerator: str = "cpu",
        train_options: dict[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            model,
            model_options=model_options,
            mode=mode,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            patience=patience,
            monitor=monitor,
            accelerator=accelerator,
            train_options=train_options,
            random_state=random_state,
            verbose=verbose,
        )
        self.validation = validation

    def fit(
        self,
        graphs: Graphs,
        y: Any = None,
        *,
        split: IndexSplit | None = None,
        backbone: GraphClassifier | None = None,
    ) -> Self:
        """Train.

        Args:
            graphs: A `GraphSet`, or PyG graphs.
            y: Labels in place of the set's own.
            split: Which graphs train, validate and test; graphs in no part are not looked at. Without a
                validation part nothing stops early.
            backbone: A fitted classifier whose backbone mode "frozen" takes.

        Raises:
            DataError: The labels are no classes, some are missing, or all that train are the same.
            ConfigError: An argument is wrong, or the split is of another set.
        """
        check_training(self.get_params(deep=False))
        graphs = _graph_set(graphs, y is None)
        names, codes = _codes(graphs, y)
        graphs = _with_labels(graphs, codes)
        seed = self._seed()
        if split is None:
            split = random_parts(codes, valid=self.validation, test=0.0, seed=seed)
        self.split_ = check_split(split, len(graphs), "graphs")
        check_two_classes(codes[split.train], names, split.name, "graphs")
        self.classes_ = names
        backbone = copy.copy(backbone)  # it may be this very one
        remember_arguments(self)
        self.facts_ = {"in_features": graphs.num_features, "classes": len(names), "seed": seed}
        module, source = self._new(backbone)
        config = self._config(seed)
        self.history_ = []
        if source is not None:
            if backbone is None:
                self.history_ += self._train(source, *self._sources(graphs, split, seed), config)
            self._take_backbone(module, source)
            self.history_ += self._fit_readout(module, graphs, split, seed)
        else:
            self.history_ = self._train(module, *self._sources(graphs, split, seed), config)
        self.module_ = module
        self.metrics_ = {
            name: class_metrics(codes[index].numpy(), self.predict_proba(graphs.select(index)))
            for name, index in judged_parts(split).items()
        }
        return self

    def _sources(
        self, graphs: GraphSet, split: IndexSplit, seed: int, history: Tensor | None = None
    ) -> tuple[GraphBatches, GraphBatches | None]:
        def source(index: Tensor, shuffle: bool) -> GraphBatches:
            part = graphs.select(index)
            own = None if history is None else history[_nodes_of(graphs, index)]
            return GraphBatches(part, self.batch_size, shuffle=shuffle, seed=seed, history=own)

        valid = source(split.valid, False) if len(split.valid) else None
        return source(split.train, True), valid

    def _fit_readout(
        self, module: Network, graphs: GraphSet, split: IndexSplit, seed: int
    ) -> list[dict[str, Any]]:
        """Train readout and head on activations that are computed once."""
        source = GraphBatches(graphs, self.batch_size)
        cached = torch.cat([frozen_history(module, batch) for batch in source.epoch(0)])
        return self._train(module, *self._sources(graphs, split, seed, cached), self._config(seed))

    def predict_proba(self, graphs: Graphs) -> NDArray[np.float32]:
        """Probabilities (graphs, classes).

        Raises:
            DataError: The graphs have other features than those fitted.
        """
        return self._predict(GraphBatches(self._checked(graphs), self.batch_size))

    def score(self, graphs: Graphs, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy on labelled graphs; ``y`` in place of their own labels.

        Raises:
            DataError: There are no graphs, a label is missing, or none is a class that was fitted.
        """
        graphs = self._checked(graphs, labels=y is None)
        if not len(graphs):
            raise DataError(f"{graphs.name}: there are no graphs to judge")
        names, codes = _codes(graphs, y)
        texts, known = _texts(names), _texts(self.classes_)  # the text of a class decides
        if not np.isin(texts[codes.unique().numpy()], known).any():
            raise DataError(
                f"{graphs.name}: no label is a class that was fitted ({_few(self.classes_)}); found "
                f"{_few(names)}"
            )
        return accuracy(texts[codes.numpy()], _texts(self.predict(graphs)), sample_weight)

    def attention(self, graphs: Graphs) -> tuple[NDArray[Any], NDArray[Any]]:
        """What HISTOGRAPH looks at: weight of every layer (G, L), and of every node in its graph (N,).

        Raises:
            ConfigError: The model has no such attention.
        """
        source = GraphBatches(self._checked(graphs), self.batch_size)
        parts = [self._attention(batch) for batch in source.epoch(0)]
        layers, nodes = zip(*parts, strict=True)
        return np.concatenate(layers), np.concatenate(nodes)

    def plot_attention(self, graph: Data, *, seed: int = 0) -> Figure:
        """One graph's attention over layers and nodes, drawn side by side."""
        layers, nodes = self.attention([graph])
        return draw_attention(graph.edge_index, layers[0], nodes, embedded=self._embedded, seed=seed)

    def _checked(self, graphs: Graphs, *, labels: bool = False) -> GraphSet:
        check_is_fitted(self, "module_")
        graphs, wanted = _graph_set(graphs, labels), self.facts_["in_features"]
        if graphs.num_features != wanted:
            raise DataError(f"{graphs.name}: has {graphs.num_features} node features, fitted were {wanted}")
        return graphs


def _graph_set(graphs: Graphs, labels: bool) -> GraphSet:
    if isinstance(graphs, Data) and not hasattr(graphs, "to_data_list"):
        raise DataError(
            "graphs: should be a GraphSet or a list of graphs, found one Data; put it into a list"
        )
    return graphs if isinstance(graphs, GraphSet) else GraphSet.from_data_list(graphs, labels=labels)


def _texts(names: NDArray[Any]) -> NDArray[np.str_]:
    return np.asarray([str(name) for name in names.tolist()])


def _few(names: NDArray[Any]) -> str:
    return ", ".join(str(name) for name in names[:4]) + (", ..." if len(names) > 4 else "")


def _nodes_of(graphs: GraphSet, index: Tensor) -> Tensor:
    """Nodes of some graphs of a set, graph after graph."""
    nodes = torch.arange(len(graphs.x)).tensor_split(graphs.node_ptr[1:-1])
    return torch.cat([nodes[i] for i in index.tolist()])


def _codes(graphs: GraphSet, y: Any) -> tuple[NDArray[Any], Tensor]:
    """Names of the classes, and the class of every graph, int64 (G,)."""
    if y is not None:
        return label_codes(y, len(graphs))
    if graphs.y.is_floating_point() or graphs.y.dim() != 1:
        raise DataError(
            f"{graphs.name}: its labels are {graphs.y.dtype} of {tuple(graphs.y.shape)}, so no classes; give "
            "y, or make them whole numbers from 0 on"
        )
    if bool((graphs.y < 0).any()):
        graph = int((graphs.y < 0).nonzero()[0])
        raise DataError(f"{graphs.name}: graph {graph} has no label; give y, or leave it out")
    names = np.asarray(graphs.classes) if graphs.classes else np.arange(int(graphs.y.max()) + 1)
    return names, graphs.y


def _with_labels(graphs: GraphSet, codes: Tensor) -> GraphSet:
    return replace(graphs, y=codes)
