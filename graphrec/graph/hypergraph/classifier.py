"""`HypergraphClassifier`: classes of vertices, by networks on hypergraphs or by students that need none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError
from graphrec.module_estimator import check_two_classes, remember_arguments
from graphrec.pipelines.hypergraphs import Hypergraph
from graphrec.pipelines.index_splits import IndexSplit, random_parts
from graphrec.training.arguments import check_number, check_training, check_whole, seed_of
from graphrec.training.seeding import seeded

from ..rows import compact
from .hgnn import TEACHERS
from .incidence import Incidence
from .labels import check_split, check_teacher, labels_of, real_numbers, truth_of
from .lighthgnn import LightStudent, Reliability, hyperedge_reliability
from .stages import MODELS, STUDENTS, Light, Plan, Steps, Task, carry_out, logits_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


class HypergraphClassifier(ClassifierMixin, BaseEstimator):
    """Classifies the vertices of a hypergraph, trained on all of it at once.

    ``lighthgnn`` and ``lighthgnnp`` (LightHGNN and LightHGNN+, arXiv:2402.04296) train a teacher and distil
    it into a perceptron; what predicts is the perceptron, from features alone. The defaults are the official
    protocol's.

    Args:
        model: ``"hgnn"``, ``"hgnnp"`` (HGNN+), ``"hnhn"``, ``"unigcn"``, ``"mlp"``, ``"lighthgnn"`` or
            ``"lighthgnnp"``.
        teacher: The network that a student learns from: one of the first four.
        hidden: Width of a network's hidden layers.
        student_hidden: Width of a student's or perceptron's hidden layer.
        layers: Layers of a network.
        dropout: Share of the hidden numbers that training leaves out.
        epochs: Steps, of the teacher and again of the student. Features that were divided by their sum are
            so small that a student's running averages need about a hundred.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        label_weight: Share of the labels in a student's loss, lambda.
        temperature: Of the soft labels.
        noise: Factor on the disturbed features by which LightHGNN+ judges hyperedges.
        official_arithmetic: Minimise what the official code does instead of KL; see
            `graphrec.graph.hypergraph.lighthgnn`.
        normalize: ``"l1"`` divides each vertex's features by the sum of their magnitudes; None takes them
            as they are.
        singletons: Whether a vertex in no hyperedge gets one of its own.
        validation: Share of the labelled vertices that choose the best epoch where ``fit`` is given no split.
        device: Where to train and predict.
        random_state: Seed.

    Attributes:
        classes_: (C,) the classes, text or numbers as the labels were.
        n_features_in_: Width of the features.
        module_: What predicts.
        teacher_: What the student learned from, or None.
        reliability_: Of the training hypergraph's hyperedges, after ``lighthgnnp``; else None.
        history_: A row per stage and epoch.
        metrics_: Validation accuracy by stage.

    Example:
        >>> from graphrec.pipelines.hypergraphs import from_edge_lists
        >>> graph = from_edge_lists(torch.eye(4), [[0, 1], [2, 3]], torch.tensor([0, 0, 1, 1]))
        >>> split = IndexSplit.of([0, 2], [], [1, 3], 4)
        >>> model = HypergraphClassifier("hgnn", epochs=30, random_state=0).fit(graph, split=split)
        >>> model.predict(graph)
        array(['0', '0', '1', '1'], dtype='<U1')
    """

    classes_: NDArray[Any]
    n_features_in_: int
    module_: nn.Module
    teacher_: nn.Module | None
    reliability_: Reliability | None

    def __init__(
        self,
        model: str = "lighthgnn",
        *,
        teacher: str = "hgnn",
        hidden: int = 32,
        student_hidden: int = 128,
        layers: int = 2,
        dropout: float = 0.5,
        epochs: int = 200,
        learning_rate: float = 0.01,
        weight_decay: float = 5e-4,
        label_weight: float = 0.0,
        temperature: float = 1.0,
        noise: float = 1.0,
        official_arithmetic: bool = False,
        normalize: str | None = "l1",
        singletons: bool = True,
        validation: float = 0.2,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.teacher = teacher
        self.hidden = hidden
        self.student_hidden = student_hidden
        self.layers = layers
        self.dropout = dropout
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_weight = label_weight
        self.temperature = temperature
        self.noise = noise
        self.official_arithmetic = official_arithmetic
        self.normalize = normalize
        self.singletons = singletons
        self.validation = validation
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: Hypergraph,
        y: Any = None,
        *,
        split: IndexSplit | None = None,
        teacher: HypergraphClassifier | None = None,
    ) -> Self:
        """Fit on a hypergraph whose labels outside ``split.train`` are not learned from.

        For LightHGNN's production setting pass ``observed`` and ``observed_split`` of `production_split`.

        Args:
            X: With labels, or ``y``.
            y: (N,) classes; None takes those of X. The number -1 is no label, in either.
            split: Which vertices train and which choose the best epoch; None draws the latter from the
                labelled ones.
            teacher: A fitted classifier of a network to distil, instead of training one.

        Raises:
            ConfigError: An argument is wrong.
            DataError: Labels are missing, those that train are all the same, or the split belongs to another
                hypergraph.
        """
        self.check(teacher)
        seed = seed_of(self.random_state)
        codes, classes = labels_of(X, y)
        given = None
        if teacher is not None:
            check_teacher(teacher.n_features_in_, teacher.classes_, X, classes)
            given = teacher.module_, teacher._shape(teacher.model)
        remember_arguments(self)
        self.classes_ = classes
        split = split or random_parts(codes.numpy(), valid=self.validation, test=0, seed=seed)
        check_split(X, codes, split)
        check_two_classes(codes[split.train], self.classes_, split.name, "vertices")
        self.n_features_in_ = X.num_features
        x, incidence = self._inputs(X)
        device = torch.device(self.device)
        task = Task(compact(x), incidence, codes.to(device), split, len(self.classes_))
        with seeded(seed, device):
            found = carry_out(self._plan(), task, given)
        self.module_, self.teacher_, self._teacher_shape = found.module, found.teacher, found.teacher_shape
        self.reliability_, self.history_, self.metrics_ = found.reliability, found.history, found.metrics
        self._facts: dict[str, Any] = {"seed": seed, "data": X.name}
        return self

    def check(self, teacher: HypergraphClassifier | None = None) -> None:
        """Refuse arguments that cannot be right, before any data are there.

        Raises:
            ConfigError: Names the argument.
        """
        if self.model not in MODELS:
            raise ConfigError(f"model: there is no {self.model!r}; choose one of {', '.join(MODELS)}")
        if self.teacher not in TEACHERS:
            raise ConfigError(f"teacher: there is no {self.teacher!r}; choose one of {', '.join(TEACHERS)}")
        if self.normalize not in (None, "l1"):
            raise ConfigError(f"normalize={self.normalize!r}: must be 'l1' or None")
        self._check_numbers()
        if teacher is None:
            return
        if not isinstance(teacher, HypergraphClassifier):
            raise ConfigError(f"teacher: must be a fitted HypergraphClassifier, got {type(teacher).__name__}")
        check_is_fitted(teacher, "module_")
        if self.model not in STUDENTS or isinstance(teacher.module_, LightStudent):
            raise ConfigError(
                f"teacher: {self.model} cannot learn from {teacher.model}; a student learns from a network"
            )

    def _check_numbers(self) -> None:
        check_training(self.get_params(deep=False))
        for name in ("hidden", "student_hidden", "layers"):
            check_whole(name, getattr(self, name))
        check_number("dropout", self.dropout, 0.0, 1.0)
        for name in ("label_weight", "noise"):
            check_number(name, getattr(self, name), 0.0, math.inf)
        check_number("temperature", self.temperature, 0.0, math.inf, positive=True)
        if self.label_weight > 1:
            raise ConfigError(f"label_weight={self.label_weight}: must lie between 0 and 1")
        try:
            torch.zeros(0, device=torch.device(self.device))
        except (AssertionError, RuntimeError, TypeError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError(
                f"device={self.device!r}: must be cpu, cuda or such as cuda:0, and there ({reason})"
            ) from None

    def _plan(self) -> Plan:
        return Plan(
            self._shape(self.model),
            None if self.model not in STUDENTS else self._shape(self.teacher),
            Steps(self.epochs, self.learning_rate, self.weight_decay),
            Light(self.label_weight, self.temperature, self.noise, self.official_arithmetic),
        )

    def _shape(self, name: str) -> dict[str, Any]:
        """What `build` takes besides widths."""
        return {
            "name": name,
            "hidden": self.hidden,
            "student_hidden": self.student_hidden,
            "layers": self.layers,
            "dropout": self.dropout,
        }

    def _features(self, X: Any) -> Tensor:
        x = real_numbers(X.x if isinstance(X, Hypergraph) else X).to(self.device, torch.float32)
        if x.dim() != 2 or x.shape[1] != self.n_features_in_:
            raise DataError(
                f"features have shape {tuple(x.shape)}, must be (vertices, {self.n_features_in_}) as in fit"
            )
        if not bool(torch.isfinite(x).all()):
            row = int((~torch.isfinite(x)).any(1).nonzero()[0])
            raise DataError(f"features: row {row} is not finite; fill it or leave it out")
        return x if self.normalize is None else nn.functional.normalize(x, p=1.0, dim=1)

    def _inputs(self, X: Hypergraph) -> tuple[Tensor, Incidence]:
        graph = X.with_singletons() if self.singletons else X
        return self._features(graph), Incidence.of(graph).to(self.device)

    @property
    def needs_hypergraph(self) -> bool:
        """Whether predictions need incidences; a student or perceptron takes features alone."""
        check_is_fitted(self, "module_")
        return not isinstance(self.module_, LightStudent)

    @torch.no_grad()
    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Logits, (N, C); see `predict_proba`."""
        check_is_fitted(self, "module_")
        if not self.needs_hypergraph:
            return logits_of(self.module_.eval(), self._features(X), None).cpu().numpy()
        if not isinstance(X, Hypergraph):
            raise ConfigError(f"{self.model} predicts from a Hypergraph, got {type(X).__name__}")
        return logits_of(self.module_.eval(), *self._inputs(X)).cpu().numpy()

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes, (N, C).

        Args:
            X: Hypergraph; for a student or perceptron also features alone, an array (N, F).

        Raises:
            ConfigError: The model needs a hypergraph.
            DataError: The features have another width than in ``fit``.
        """
        logits = torch.from_numpy(self.decision_function(X)).double()
        return logits.softmax(1).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of every vertex, (N,), one of ``classes_``."""
        codes = self.decision_function(X).argmax(1)  # first: says so where nothing was fitted
        return self.classes_[codes]

    def evaluate(self, X: Hypergraph, y: Any = None, *, index: Any = None) -> Mapping[str, float]:
        """Accuracy, macro and micro F1.

        Args:
            X: Hypergraph, or features with ``y``.
            y: (N,) classes; None takes those of X.
            index: Vertices to judge; None for all that are labelled.

        Raises:
            DataError: There are no labels, a vertex of ``index`` has none, or a class was not fitted.
        """
        guess = self.decision_function(X).argmax(1)
        judged, true = truth_of(X, y, self.classes_, index, len(guess))
        found = guess[judged]
        if not len(true):
            raise DataError("evaluate: no vertex is labelled")
        return {
            "accuracy": float(accuracy_score(true, found)),
            "f1_macro": float(f1_score(true, found, average="macro")),
            "f1_micro": float(f1_score(true, found, average="micro")),
        }

    def score(self, X: Any, y: Any = None, *, index: Any = None) -> float:
        """Accuracy; see `evaluate`."""
        return self.evaluate(X, y, index=index)["accuracy"]

    def reliability(self, X: Hypergraph) -> Reliability:
        """How far the teacher, or the network itself, can be trusted on each hyperedge of X.

        Raises:
            ConfigError: A perceptron knows no hyperedges, and a student saved alone has no teacher.
        """
        check_is_fitted(self, "module_")
        judge = self.module_ if self.needs_hypergraph else self.teacher_
        if judge is None:
            raise ConfigError(f"{self.model} has no teacher to judge hyperedges by")
        with seeded(self._facts["seed"], torch.device(self.device)):
            return hyperedge_reliability(judge, *self._inputs(X), noise=self.noise)

    def plot_reliability(self, X: Hypergraph, path: str | Path | None = None) -> Figure:
        """Picture of `reliability`, also written to ``path`` if given; see `pictures`."""
        from .pictures import reliability_figure

        graph = X.with_singletons() if self.singletons else X
        figure = reliability_figure(self.reliability(X), graph.edge_sizes)
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        return figure

    def save(self, folder: str | Path, *, teacher: bool = True, overwrite: bool = False) -> Path:
        """Write a folder of plain files; `load` reads it.

        Args:
            folder: To make.
            teacher: Whether a student's teacher and reliability go with it; without them the folder holds
                what is deployed and nothing else.
            overwrite: Replace the folder.

        Raises:
            RunError: The folder exists.
        """
        from .files import save

        check_is_fitted(self, "module_")
        return save(self, Path(folder), teacher=teacher, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The fitted classifier of a folder.

        Raises:
            RunError: It is not one, or not of this version.
        """
        from .files import load

        return load(cls, Path(folder))
