"""`RelationExtractor`: which relation holds between entities of a text, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError
from graphrec.metrics.classes import accuracy
from graphrec.module_estimator import (
    ModuleEstimator,
    check_split,
    check_two_classes,
    chosen,
    judged_parts,
    remember_arguments,
)
from graphrec.pipelines.array_labels import label_codes
from graphrec.pipelines.index_splits import IndexSplit
from graphrec.pipelines.relations import RelationSet, split_by_text
from graphrec.registry import card, create_model
from graphrec.training import Trainer
from graphrec.training.arguments import check_training, check_whole
from graphrec.training.seeding import seeded

from .batches import TextBatches
from .bioie import BioIE
from .evaluating import relation_metrics
from .inputs import (
    COLUMNS,
    Relations,
    class_weights,
    coded_as,
    labelled,
    relation_set,
    start_vectors,
    truth,
    vocabularies,
)
from .tfidf import Blend, TfidfLogistic, fit_tfidf, marked_texts


class RelationExtractor(ModuleEstimator):
    """Classifies relations between the marked entities of texts, parsed or not.

    Args:
        model: ``"bioie"``, or a baseline: ``list_models(task="relation")`` lists the networks, and
            ``"tfidf"`` is scikit-learn's logistic regression on words and pairs of words.
        model_options: Keyword arguments of the network; see `BioIE`.
        edges: ``"tree"`` for dependency trees, ``"window"`` for edges to neighbours, ``"both"``, ``"none"``;
            ``"auto"`` takes trees where the training texts have any, else windows. ``facts_["edges"]`` says
            which it was.
        min_count: Words that fewer training texts hold are unknown.
        lower: Whether case is ignored.
        vectors: Word vectors to begin with: ``"texts"`` makes them out of the training texts (see
            `neighbour_vectors`), a path reads them from a file, of width ``word_dim`` (see `read_vectors`),
            None begins at random.
        vector_names: Words of the rows where ``vectors`` is a ``.npy`` file.
        blend: Whether the network's probabilities are averaged with those of ``"tfidf"``, fitted on the same
            instances; the shares are those of the least log loss on the validation instances, halves without
            any.
        class_weight: ``"balanced"``, or a weight for each class's text.
        negative: Class that stands for no relation; `evaluate` then tells precision, recall and F1 of the
            others. A set without such a class has none.
        epochs: Passes over the training instances, at most.
        batch_size: Instances in a step.
        learning_rate: Of Adam; falls along a cosine, unless ``train_options`` say otherwise.
        weight_decay: Of Adam.
        patience: Stop after so many epochs without a better one on the validation instances; 0 or None for
            never.
        monitor: Validation metric that decides: ``"accuracy"``, ``"logloss"``, ``"f1_macro"``, of two classes
            ``"auc"``.
        validation: Share of the texts held out for that when ``fit`` is given no split.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        train_options: Further fields of `graphrec.training.TrainConfig`, but for ``compile``: every batch
            of texts has another size.
        random_state: Seed of weights, dropout and orders.
        verbose: 1 for a progress bar.

    Attributes:
        classes_: By column of `predict_proba`: the set's texts, or the values of ``y``.
        module_: What was fitted, on the CPU.
        history_: A dict per epoch.
        metrics_: ``{"valid": {...}, "test": {...}}`` of the split's parts.
        split_: The split that was used.

    Example:
        >>> from graphrec.pipelines.relations import read_nary_folds
        >>> relations, folds = read_nary_folds("nary")  # doctest: +SKIP
        >>> RelationExtractor(epochs=5).fit(relations, split=folds[0]).metrics_  # doctest: +SKIP
    """

    _batch_source = TextBatches
    split_: IndexSplit

    def __init__(
        self,
        model: str = "bioie",
        *,
        model_options: dict[str, Any] | None = None,
        edges: str = "auto",
        min_count: int = 2,
        lower: bool = True,
        vectors: str | None = "texts",
        vector_names: str | None = None,
        blend: bool = False,
        class_weight: dict[str, float] | str | None = None,
        negative: str | None = "None",
        epochs: int = 6,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        patience: int | None = 4,
        monitor: str = "accuracy",
        validation: float = 0.1,
        accelerator: str = "cpu",
        train_options: dict[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.model_options = model_options
        self.edges = edges
        self.min_count = min_count
        self.lower = lower
        self.vectors = vectors
        self.vector_names = vector_names
        self.blend = blend
        self.class_weight = class_weight
        self.negative = negative
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.monitor = monitor
        self.validation = validation
        self.accelerator = accelerator
        self.train_options = train_options
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, relations: Relations, y: Any = None, *, split: IndexSplit | None = None) -> Self:
        """Train.

        Args:
            relations: A `RelationSet`, or a file that `read_relations` reads.
            y: Labels in place of the set's own.
            split: Which instances train, validate and test; others are not looked at, and vocabularies come
                from those that train. None holds out whole texts. Without a validation part nothing stops
                early.

        Raises:
            DataError: The file is broken, or all training instances are of one class.
            ConfigError: An argument is wrong, or the split is of another set.
        """
        check_training(self.get_params(deep=False))
        check_whole("min_count", self.min_count)
        if self.model == "tfidf":
            self._check_floor()
        relations = relation_set(relations)
        names = np.asarray(relations.classes) if y is None else label_codes(y, len(relations))[0]
        relations = labelled(relations, y)
        seed = self._seed()
        split = split or split_by_text(relations, valid=self.validation, test=0.0, seed=seed)
        self.split_ = check_split(split, len(relations), "instances")
        check_two_classes(relations.y[split.train], relations.classes, relations.name, "instances")
        self.classes_ = names
        weights = class_weights(self.class_weight, relations.y[split.train].numpy(), self.classes_)
        remember_arguments(self)
        self.facts_ = {
            "seed": seed,
            "entities": relations.num_entities,
            "classes": len(self.classes_),
        }
        fit = self._fit_tfidf if self.model == "tfidf" else self._fit_network
        fit(relations, split, weights)
        parts = judged_parts(split)
        self.metrics_ = {name: self.evaluate(relations, index=index) for name, index in parts.items()}
        return self

    def _fit_tfidf(self, relations: RelationSet, split: IndexSplit, weights: dict[int, float] | None) -> None:
        texts = marked_texts(relations, split.train, lower=self.lower)
        y = relations.y[split.train].numpy()
        self.module_, self.facts_["terms"] = fit_tfidf(
            texts, y, len(self.classes_), min_count=self.min_count, weights=weights
        )
        self.history_ = []

    def _fit_network(
        self, relations: RelationSet, split: IndexSplit, weights: dict[int, float] | None
    ) -> None:
        self.facts_ |= vocabularies(
            relations, split.train, min_count=self.min_count, lower=self.lower, edges=self.edges
        )
        with seeded(self.facts_["seed"]):
            module = self._build(**self.facts_)
        coded = coded_as(relations, self.facts_, lower=self.lower)
        start_vectors(module, coded, split.train, self.facts_, self.vectors, self.vector_names)
        if weights is not None:
            module.class_weight.copy_(torch.tensor([weights[c] for c in range(len(weights))]))  # type: ignore[operator]
        train = self._batches(module, coded, split.train, shuffle=True)
        valid = self._batches(module, coded, split.valid) if len(split.valid) else None
        config = self._config(self.facts_["seed"])
        if "scheduler" not in (self.train_options or {}):
            config = config.replace(scheduler="cosine")
        history = self._train(module, train, valid, config)
        if self.blend:
            self._fit_tfidf(relations, split, weights)
            module = self._blended(module, self.module_, relations, split.valid)
        self.module_, self.history_ = module, history

    def _blended(self, network: nn.Module, floor: nn.Module, relations: RelationSet, valid: Tensor) -> Blend:
        assert isinstance(floor, TfidfLogistic)
        found = Blend(network, floor)
        if len(valid):
            parts = self._from(network, relations, valid), self._from(floor, relations, valid)
            found.choose(*parts, relations.y[valid].numpy())
        return found

    @property
    def has_attention(self) -> bool:
        """Whether `plot_attention` has something to draw."""
        check_is_fitted(self, "module_")
        network = self._network
        return isinstance(network, BioIE) and (network.edges is not None or len(network.among) > 0)

    @property
    def _network(self) -> nn.Module:
        return self.module_.network if isinstance(self.module_, Blend) else self.module_

    def _build(self, **facts: Any) -> nn.Module:
        if self.model == "tfidf":
            self._check_floor()
            return TfidfLogistic(len(facts["terms"]), facts["classes"])
        if card(self.model).task != "relation":
            raise ConfigError(f"model={self.model!r}: is for another task; see list_models(task='relation')")
        sizes = [len(facts[names]) for names in COLUMNS.values()]
        options = self.model_options or {}
        network = create_model(self.model, *sizes, facts["entities"], facts["classes"], **options)
        if "terms" in facts:
            return Blend(network, TfidfLogistic(len(facts["terms"]), facts["classes"]))
        return network

    def _check_floor(self) -> None:
        """Refuse what only a network has a use for."""
        if self.model_options:
            raise ConfigError(
                f"model_options: model='tfidf' has none, found {', '.join(map(str, self.model_options))}; "
                "leave them out, or give {}"
            )
        if self.blend:
            raise ConfigError("blend=True: averages a network with tfidf; with model='tfidf' leave it out")

    def _batches(
        self, module: nn.Module, coded: RelationSet, index: Tensor, *, shuffle: bool = False
    ) -> TextBatches:
        return TextBatches(
            coded,
            index,
            self.batch_size,
            edges=self.facts_["edges"],
            shuffle=shuffle,
            seed=self.facts_["seed"],
            **module.reads,  # type: ignore[arg-type]
        )

    def predict_proba(self, relations: Relations, *, index: Any = None) -> NDArray[np.float32]:
        """Probabilities, a row per instance and a column per class of ``classes_``.

        Args:
            relations: A `RelationSet`, or a file that `read_relations` reads.
            index: Which instances; None for all.

        Raises:
            DataError: The file is broken, or the instances have another number of entities.
        """
        check_is_fitted(self, "module_")
        relations = relation_set(relations)
        return self._from(self.module_, relations, _chosen(relations, index))

    def _from(self, module: nn.Module, relations: RelationSet, asked: Tensor) -> NDArray[np.float32]:
        """Probabilities by one module of these instances."""
        if isinstance(module, Blend):
            parts = (self._from(one, relations, asked) for one in (module.network, module.floor))
            return module.mix(*parts)
        found = np.zeros((len(asked), len(self.classes_)), np.float32)
        coded = coded_as(relations, self.facts_, lower=self.lower)
        if not len(asked):
            return found
        if isinstance(module, TfidfLogistic):
            texts = marked_texts(relations, asked, lower=self.lower)
            return module.probabilities(texts, self.facts_["terms"])
        source = self._batches(module, coded, asked)
        trainer = Trainer(self._config(0, progress=False, compile=False))
        found[source.order.numpy()] = trainer.predict(module, source)
        return found

    def predict(self, relations: Relations, *, index: Any = None) -> NDArray[Any]:
        """The most likely class of each instance."""
        found = self.predict_proba(relations, index=index).argmax(1)
        return self.classes_[found]

    def score(self, relations: Relations, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy."""
        relations = relation_set(relations)
        true = truth(relations, y, self.classes_, _chosen(relations, None))
        guess = self.predict_proba(relations).argmax(1)
        return accuracy(true, guess, sample_weight)

    def evaluate(
        self, relations: Relations, y: Any = None, *, index: Any = None, unreachable: int = 0
    ) -> dict[str, float | None]:
        """Accuracy, log loss, F1; of the relations alone precision, recall and F1; see `relation_metrics`.

        Args:
            relations: A `RelationSet`, or a file that `read_relations` reads.
            y: Labels in place of the set's own.
            index: Instances to judge; None for all.
            unreachable: True relations without an instance.

        Raises:
            DataError: A class was not fitted.
        """
        check_whole("unreachable", unreachable, least=0)
        relations = relation_set(relations)
        judged = _chosen(relations, index)
        true = truth(relations, y, self.classes_, judged)
        if not len(true):
            raise DataError(f"{relations.name}: there are no instances to judge")
        names = [str(one) for one in self.classes_]
        negative = names.index(self.negative) if self.negative in names else None
        scores = self.predict_proba(relations, index=judged)
        return relation_metrics(true, scores, negative=negative, unreachable=unreachable)

    def plot_attention(self, relations: Relations, index: int) -> Figure:
        """What the network looks at in one instance: weights along edges, and among all tokens.

        Raises:
            ConfigError: The model has no attention.
        """
        from .pictures import attention_figure

        check_is_fitted(self, "module_")
        relations = relation_set(relations)
        shown = _chosen(relations, [index])
        if not self.has_attention:
            raise ConfigError(f"model={self.model!r}: has no attention to draw; fit model='bioie'")
        module = self._network
        batch = self._batches(module, coded_as(relations, self.facts_, lower=self.lower), shown).cut(shown)
        return attention_figure(module, batch, relations, int(shown))


def _chosen(relations: RelationSet, index: Any) -> Tensor:
    return torch.from_numpy(chosen(index, len(relations), "instances", argument=f"{relations.name}: index"))
