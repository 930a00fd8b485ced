"""`CTRClassifier`: the models of this package as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from graphrec.errors import ConfigError
from graphrec.module_estimator import remember_arguments
from graphrec.run_writer import RunWriter
from graphrec.training.arguments import seed_of

from . import arrays, settings
from .fitting import Trained, build, train
from .persistence import load, save, train_into
from .preparing import Prepared, prepare
from .scoring import evaluate_table, explain_table, predict_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from graphrec.explain import Explanation
    from graphrec.pipelines.tables import TableSchema


class CTRClassifier(ClassifierMixin, BaseEstimator):
    """A click-through (or any binary) classifier for tables of categories, numbers and lists.

    Fits from a file of any size, ``fit("log.parquet", label="click")``, or in scikit-learn's form, ``fit(X,
    y)``. None as an argument means the package's default, which `graphrec.training.TrainConfig` documents.

    Args:
        model: Name of a registered CTR model; `list_models(task="ctr")` lists them.
        model_options: Keyword arguments of the model; ``graphrec models`` lists them.
        embedding_dim: Width of the embeddings, of models that have any; the same as
            ``model_options={"embedding_dim": ...}``.
        schema: `TableSchema` or path of its YAML; inferred from the data when None.
        roles: Roles of single columns that overrule the inferred ones, ``{"hour": "categorical"}``.
        epochs: Passes over the training rows, at most.
        batch_size: Rows per step. None: about a hundred steps per epoch, from 64 to 4096 rows.
        learning_rate: Of the ordinary parameters, and of the embeddings unless ``embedding_lr`` is given.
        weight_decay: Of the ordinary parameters.
        embedding_lr: Learning rate of the embeddings.
        embedding_l2: Precision of a Gaussian prior of the embeddings, spread over each id's occurrences, so
            that rare ids are not memorised; 40 when None. See `graphrec.ctr.FusedEmbedding.regularise`.
        scheduler: ``"plateau"``, ``"cosine"``, ``"step"`` or ``"none"``.
        patience: Stop after so many evaluations without a better one; 0 for never, 2 when None.
        monitor: Validation metric to stop by, ``"auc"`` by default.
        precision: ``"32-true"`` or ``"bf16-mixed"``.
        compile: Compile the model with `torch.compile`.
        accelerator: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        devices: How many devices to train on.
        train_options: Any further fields of `TrainConfig`. One has another default here: ``ema`` is 0.999, so
            an average of the weights is evaluated and kept; ``{"ema": 0}`` for none.
        validation: Fraction of the rows held out to stop by and to measure on, when ``fit`` is given none.
        random_state: Seed of the split, the weights and the order of rows.
        cache_dir: Where encoded tables are kept; the user's cache folder by default.
        verbose: 1 for a progress bar.

    Attributes:
        classes_: (2,) the two values of the label, negative first; a list of those for several labels.
        n_features_in_: Number of feature columns.
        feature_names_in_: Their names.
        schema_: The `TableSchema`.
        encoder_: The fitted `TableEncoder`.
        module_: The fitted `torch.nn.Module`, on the CPU.
        history_: One row per evaluation, a list of dicts.
        metrics_: Metrics by part, ``{"valid": {"auc": ...}}``.
        leaks_: What was found of columns that give the label away.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> model = CTRClassifier("lr", epochs=5, learning_rate=0.1, random_state=0).fit(X, X[:, 0] > 0)
        >>> model.predict_proba(X).shape
        (200, 2)
    """

    def __init__(
        self,
        model: str = "fcn",
        *,
        model_options: dict[str, Any] | None = None,
        embedding_dim: int | None = None,
        schema: TableSchema | str | Path | None = None,
        roles: dict[str, str] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        embedding_lr: float | None = None,
        embedding_l2: float | None = None,
        scheduler: str | None = None,
        patience: int | None = None,
        monitor: str | None = None,
        precision: str | None = None,
        compile: bool = False,
        accelerator: str | None = None,
        devices: int | str | None = None,
        train_options: dict[str, Any] | None = None,
        validation: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        cache_dir: str | Path | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.model_options = model_options
        self.embedding_dim = embedding_dim
        self.schema = schema
        self.roles = roles
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.embedding_lr = embedding_lr
        self.embedding_l2 = embedding_l2
        self.scheduler = scheduler
        self.patience = patience
        self.monitor = monitor
        self.precision = precision
        self.compile = compile
        self.accelerator = accelerator
        self.devices = devices
        self.train_options = train_options
        self.validation = validation
        self.random_state = random_state
        self.cache_dir = cache_dir
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.non_deterministic = self.random_state is None
        return tags

    def set_params(self, **params: Any) -> Self:
        """scikit-learn's; ``model_options__NAME`` and ``train_options__NAME`` set one entry of these dicts,
        as in the grid of a search.
        """
        return super().set_params(**settings.merge_options(self, params))

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        label: str | Sequence[str] | None = None,
        validation: Any = None,
        test: Any = None,
        split: str = "random",
        weight: str | None = None,
        group: str | None = None,
        time: str | None = None,
        roles: Mapping[str, str] | None = None,
        ignore: Sequence[str] = (),
        run_dir: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """Fit from a table with a label column, or from X and y.

        Args:
            X: Path, glob, folder, polars (lazy) frame, pandas frame, Arrow table or dict of columns, with the
                label among its columns; or, with ``y``, an array or frame of features.
            y: (N,) or (N, T) labels, each of two values; or the name of the label column of X.
            sample_weight: (N,) weights, with ``y``.
            label: Name of the label column, or several names.
            validation: Fraction of rows, a path or table, or a `Split`; None for the constructor's fraction.
            test: Fraction of rows, or a path or table, that training never sees.
            split: How fractions are taken: ``"random"`` (stratified), ``"order"`` (the last rows),
                ``"time:COLUMN"`` (the latest), ``"group:COLUMN"`` (whole groups).
            weight: Column of sample weights.
            group: Column that names the user or session, for group AUC.
            time: Timestamp column.
            roles: Roles of single columns, over the constructor's.
            ignore: Columns to leave out.
            run_dir: Write a run folder there: model, schema, encoder, metrics, history and report.
            resume: Continue the unfinished run of that folder.
            overwrite: Replace that folder.

        Raises:
            DataError: The data cannot be used; the message names file and column.
            ConfigError: An argument is wrong.
            RunError: The run folder exists.
        """
        seed = seed_of(self.random_state)
        settings.check(self, seed)
        writer = RunWriter(run_dir, resume=resume, overwrite=overwrite) if run_dir is not None else None
        if isinstance(y, str) and label is None:
            y, label = None, y
        data, classes = X, None
        if y is not None:
            if not (arrays.is_array(X) or arrays.is_frame(X)):
                raise ConfigError(
                    f"y: goes with an array or a data frame X, not with {type(X).__name__}; "
                    "name the label column of a file or dict with label="
                )
            frame = arrays.labelled_frame(self, X, y, sample_weight)
            data, label, weight, classes = frame.frame, frame.labels, frame.weight, frame.classes
        elif arrays.is_array(X):
            raise ConfigError("CTRClassifier requires y to be passed, but the target y is None")
        elif sample_weight is not None:
            raise ConfigError("sample_weight: goes with y; in a table, name the column with weight=")
        prepared = prepare(
            self, data, seed=seed, label=label, validation=validation, test=test, split=split, weight=weight,
            group=group, time=time, roles=roles, ignore=ignore,
        )  # fmt: skip
        return self.fit_prepared(prepared, classes=classes, writer=writer, seed=seed)

    def fit_prepared(
        self,
        prepared: Prepared,
        *,
        classes: Sequence[Any] | None = None,
        writer: RunWriter | None = None,
        seed: int | None = None,
    ) -> Self:
        """Fit on a table that is encoded already; how several models share one encoding.

        Args:
            prepared: From `prepare`.
            classes: The two values of each label, of ``fit(X, y)``; None for a table, whose schema knows
                them.
            writer: Where to write a run folder.
            seed: Drawn from ``random_state`` when None.
        """
        seed = seed_of(self.random_state) if seed is None else seed
        settings.check(self, seed)
        remember_arguments(self)
        spec, schema = prepared.encoder.spec, prepared.schema
        module = build(self.model, spec, settings.model_options(self), seed)
        rows = prepared.parts["train"]
        module.regularise(rows.counts(), settings.embedding_l2(self), rows=len(rows))
        config = settings.train_config(self, seed, rows=len(prepared.parts["train"]))
        from_arrays = classes is not None
        if classes is None:
            self.feature_names_in_ = np.asarray([c.name for c in schema.features], dtype=object)
            self.n_features_in_ = len(self.feature_names_in_)
            classes = [schema[name].classes for name in spec.labels]
        self._classes = [np.asarray(pair) for pair in classes]
        self.classes_ = self._classes[0] if len(self._classes) == 1 else self._classes
        self.schema_, self.encoder_, self.leaks_ = schema, prepared.encoder, prepared.leaks
        self.from_arrays_ = from_arrays
        self._facts: dict[str, Any] = {"seed": seed, "data": prepared.fingerprint, "source": prepared.source}
        if writer is None:
            self._keep(train(module, prepared.parts, config))
        else:
            train_into(self, writer, module, prepared, config)
        return self

    def _keep(self, trained: Trained) -> None:
        self.module_, self.history_, self.metrics_ = trained.module, trained.history.rows, trained.metrics

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, in the order of the rows.

        Args:
            X: What ``fit`` takes, without labels.

        Returns:
            (N, 2), the columns in the order of ``classes_``. Fitted on several labels: (N, T), the
            probability of the positive value of each label.
        """
        check_is_fitted(self, "module_")
        positive = predict_table(self, X)
        return positive if len(self._classes) > 1 else np.concatenate([1 - positive, positive], axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        """The more probable value of the label, (N,); of several labels (N, T)."""
        check_is_fitted(self, "module_")
        chosen = (predict_table(self, X) > 0.5).astype(np.intp)
        columns = [pair[chosen[:, t]] for t, pair in enumerate(self._classes)]
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy, as of every scikit-learn classifier; of a table with its label column when ``y`` is None.

        `evaluate` has the metrics that matter for click-through.
        """
        check_is_fitted(self, "module_")
        if y is not None:
            return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))
        found = evaluate_table(self, X, None, sample_weight)
        known = ~np.isnan(found.labels).any(axis=1)
        right = ((found.scores > 0.5) == (found.labels == 1)).all(axis=1)
        return float(
            np.average(right[known], weights=None if found.weights is None else found.weights[known])
        )

    def evaluate(self, X: Any, y: Any = None, sample_weight: Any = None) -> dict[str, float | None]:
        """All metrics, on a table with its label column or on X and y; None for what is undefined.

        See `graphrec.metrics.METRICS` for what they mean.
        """
        check_is_fitted(self, "module_")
        return evaluate_table(self, X, y, sample_weight).metrics(tuple(self.schema_.labels))

    def explain(
        self, X: Any, y: Any = None, *, rows: int = 20_000, repeats: int = 3, seed: int = 0
    ) -> Explanation:
        """Which fields, and which pairs of fields, the model uses; see `graphrec.explain`.

        Args:
            X: Rows with labels that the model was not fitted on.
            y: Their labels, when X has none.
            rows: Look at so many rows at most.
            repeats: How often each field is shuffled.
            seed: Of the sample and the shuffles.
        """
        check_is_fitted(self, "module_")
        return explain_table(self, X, y, rows=rows, repeats=repeats, seed=seed)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a run folder (without the report, which ``fit(run_dir=)`` writes); `load` reads it.

        Raises:
            RunError: The folder exists.
        """
        check_is_fitted(self, "module_")
        return save(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The fitted estimator of a run folder.

        Raises:
            RunError: It is not a run folder, or not of this version.
        """
        return load(cls, Path(folder))

    def export(self, folder: str | Path, *, format: str = "onnx", data: Any = None) -> dict[str, Any]:
        """Write the model for a server, with its encoder; see `graphrec.export.export_model`."""
        from graphrec.export import export_model

        check_is_fitted(self, "module_")
        return export_model(self, folder, format=format, data=data)
