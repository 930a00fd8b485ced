"""`NodeClassifier`: the networks for nodes as a scikit-learn estimator."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError
from graphrec.metrics import class_metrics
from graphrec.metrics.classes import accuracy
from graphrec.module_estimator import (
    check_split,
    check_two_classes,
    chosen,
    judged_parts,
    remember_arguments,
)
from graphrec.pipelines.graphs import from_pyg, node_split
from graphrec.pipelines.graphs.pyg_graphs import MOST_CLASSES
from graphrec.pipelines.index_splits import IndexSplit
from graphrec.training import TrainConfig
from graphrec.training.arguments import check_training

from .batches import FullBatch, GraphBatch
from .classifying import NetworkClassifier, frozen_history
from .drawing import draw_attention
from .models import Network, NodeNetwork
from .rows import Features, compact
from .topology import Topology


class NodeClassifier(NetworkClassifier):
    """Classifies the nodes of one graph, with all of its edges at hand (transductively or on another graph).

    Weights and features of edges (``edge_weight``, ``edge_attr``) are not read.

    Args:
        model: ``"histograph"``, or a baseline such as ``"gcn"``: ``list_models(task="node")`` lists them
            under names that begin with ``node_``.
        model_options: Keyword arguments of the model; see `NodeModel`.
        mode: ``"end_to_end"``, or ``"frozen"``: a plain network is trained first, or given to ``fit``, then
            the readout and head on its cached activations, beginning where it is (if it has as many
            classes). A tenth of ``learning_rate`` suits the second stage: fit the plain network and give it.
        epochs: Steps on the whole graph, at most; in mode "frozen" of either stage.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        patience: Stop after so many epochs without a better one on the validation nodes; 0 or None for never.
        monitor: Validation metric that decides: ``"accuracy"``, ``"logloss"``, ``"f1_macro"``, ``"auc"``.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        train_options: Further fields of `graphrec.training.TrainConfig`.
        random_state: Seed of weights and dropout.
        verbose: 1 for a progress bar.

    Attributes:
        classes_: Class numbers, by column of `predict_proba`.
        module_: The fitted network, on the CPU.
        history_: A dict per epoch.
        metrics_: ``{"valid": {...}, "test": {...}}`` of the split's parts.
        split_: The split that was used.
    """

    _task = "node"
    split_: IndexSplit

    def __init__(
        self,
        model: str = "histograph",
        *,
        model_options: dict[str, Any] | None = None,
        mode: str = "end_to_end",
        epochs: int = 200,
        learning_rate: float = 0.01,
        weight_decay: float = 5e-4,
        patience: int | None = 100,
        monitor: str = "accuracy",
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
            batch_size=1,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            patience=patience,
            monitor=monitor,
            accelerator=accelerator,
            train_options=train_options,
            random_state=random_state,
            verbose=verbose,
        )

    def fit(
        self,
        data: Data,
        y: Any = None,
        *,
        split: IndexSplit | int = 0,
        backbone: NodeClassifier | None = None,
    ) -> Self:
        """Train on one graph.

        Args:
            data: With x (N, F), edge_index (2, E), and y int64 (N,) unless ``y`` is given; -1 is no label.
            y: Classes of the nodes.
            split: Which nodes train, validate and test, or which of the graph's own splits (masks).
            backbone: A fitted classifier whose backbone mode "frozen" takes.

        Raises:
            DataError: The graph is not in order, labels are missing, or all that train are the same.
            ConfigError: An argument is wrong, or the split is of another graph.
        """
        check_training(self.get_params(deep=False))
        data = _one_graph(data)
        labels = _node_labels(data, y)
        split = node_split(data, split) if isinstance(split, int) else split
        self.split_ = check_split(split, len(labels), "nodes")
        used = torch.cat([split.train, split.valid, split.test])
        if bool((labels[used] < 0).any()):
            raise DataError(f"{split.name}: node {int(used[labels[used] < 0][0])} has no label; leave it out")
        check_two_classes(labels[split.train], range(int(labels.max()) + 1), split.name, "nodes")
        seed = self._seed()
        self.classes_ = np.arange(int(labels.max()) + 1)
        sizes = {"in_features": data.num_features, "classes": len(self.classes_)}
        backbone = copy.copy(backbone)  # it may be this very one
        remember_arguments(self)
        self.facts_ = {**sizes, "seed": seed}
        module, source = self._new(backbone)
        topology = Topology.of(data.edge_index, data.num_nodes)
        self.history_ = []
        if source is not None:
            if backbone is None:
                self.history_ += self._fit_on(source, _features(source, data), topology, labels)
            self._take_backbone(module, source)
            if isinstance(module, NodeNetwork) and isinstance(source, NodeNetwork) and module.fits(source):
                module.begin_as(source)
            everything = FullBatch(_features(module, data), topology, torch.arange(len(labels)), labels).batch
            self.history_ += self._fit_on(module, frozen_history(module, everything), None, labels)
        else:
            self.history_ = self._fit_on(module, _features(module, data), topology, labels)
        self.module_ = module
        scores = self.predict_proba(data)
        self.metrics_ = {
            name: class_metrics(labels[index].numpy(), scores[index.numpy()])
            for name, index in judged_parts(split).items()
        }
        return self

    def _config(self, seed: int, **changes: Any) -> TrainConfig:
        if "batch_size" in (self.train_options or {}):
            raise ConfigError("batch_size: every step takes the whole graph; leave it out")
        return super()._config(seed, **changes)

    def _fit_on(
        self, module: nn.Module, x: Features, topology: Topology | None, labels: Tensor
    ) -> list[dict[str, Any]]:
        split = self.split_
        train = FullBatch(x, topology, split.train, labels[split.train])
        valid = FullBatch(x, topology, split.valid, labels[split.valid]) if len(split.valid) else None
        return self._train(module, train, valid, self._config(self.facts_["seed"]))

    def predict_proba(self, data: Data) -> NDArray[np.float32]:
        """Probabilities (N, classes) of all nodes of a graph."""
        batch = self._batch(data)
        assert batch.nodes is not None
        return self._predict(FullBatch(batch.x, batch.topology, batch.nodes, batch.labels))

    def score(self, data: Data, y: Any = None, sample_weight: Any = None, *, nodes: Any = None) -> float:
        """Accuracy on some nodes: those given, else those of ``test_mask``, else all that have a label.

        Raises:
            DataError: A node has no label, or ``test_mask`` is of several splits.
        """
        labels = _node_labels(data, y)
        if nodes is None:
            mask = data.get("test_mask")
            if mask is not None and mask.dim() != 1:
                raise DataError(
                    f"test_mask: is of {mask.shape[-1]} splits; give one, such as nodes=data.test_mask[:, 0]"
                )
            nodes = labels >= 0 if mask is None else mask
        judged = chosen(nodes, len(labels), "nodes", argument="nodes")
        if not len(judged):
            raise DataError(f"nodes: names none of the numbers from 0 to {len(labels) - 1}")
        if (unknown := judged[labels.numpy()[judged] < 0]).size:
            raise DataError(f"y: node {unknown[0]} has no label; leave it out of nodes")
        guess = self.predict(data)[judged]
        return accuracy(labels.numpy()[judged], guess, sample_weight)

    def attention(self, data: Data) -> tuple[NDArray[Any], NDArray[Any]]:
        """What HISTOGRAPH looks at: weight of every layer (L,), and of every node (N,).

        Raises:
            ConfigError: The model has no such attention.
        """
        layers, nodes = self._attention(self._batch(data))
        return layers[0], nodes

    def plot_attention(self, data: Data, *, seed: int = 0) -> Figure:
        """Attention over layers, and over nodes (of large graphs the most attended 200)."""
        layers, nodes = self.attention(data)
        return draw_attention(data.edge_index, layers, nodes, embedded=self._embedded, seed=seed)

    def _batch(self, data: Data) -> GraphBatch:
        check_is_fitted(self, "module_")
        data, wanted = _one_graph(data), self.facts_["in_features"]
        if data.num_features != wanted:
            raise DataError(f"the graph has {data.num_features} node features, fitted were {wanted}")
        nodes = torch.arange(data.num_nodes)
        topology = Topology.of(data.edge_index, data.num_nodes)
        x = _features(self.module_, data)  # type: ignore[arg-type]
        return FullBatch(x, topology, nodes, torch.zeros_like(nodes)).batch


def _one_graph(data: Data) -> Data:
    if not isinstance(data, Data):
        raise DataError(
            f"the graph should be one torch_geometric.data.Data, found {type(data).__name__}; "
            "from_networkx and read_graph make one"
        )
    return from_pyg(data, name="the graph")


def _features(module: Network, data: Data) -> Features:
    """Dense or sparse, whichever the network multiplies faster."""
    return compact(data.x) if getattr(module.backbone, "takes_sparse", False) else data.x


def _node_labels(data: Data, y: Any) -> Tensor:
    """Class of every node, int64 (N,)."""
    labels = np.asarray(data.y if y is None else y)
    if labels.shape != (data.num_nodes,) or labels.dtype.kind not in "iub":
        found = f"{labels.dtype} of {labels.shape}" if labels.dtype != object else "none"
        raise DataError(
            f"y: the graph needs an integer label for each of its {data.num_nodes} nodes (-1: none), found "
            f"{found}"
        )
    if len(labels) and int(labels.min()) < -1:
        node = int(labels.argmin())
        raise DataError(
            f"y: node {node} is of class {labels[node]}; classes are numbered from 0 on, -1 is no label"
        )
    if len(labels) and int(labels.max()) >= MOST_CLASSES:
        node = int(labels.argmax())
        raise DataError(
            f"y: node {node} is of class {labels[node]}; classes are numbered from 0 on, without gaps"
        )
    return torch.from_numpy(labels.astype(np.int64))
