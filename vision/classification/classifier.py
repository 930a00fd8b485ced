"""`ImageClassifier`: the backbones of this package as a scikit-learn classifier of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from torch import nn

from graphrec import runs
from graphrec.module_estimator import ModuleEstimator, remember_arguments
from graphrec.pipelines.images import Augment, Preprocess
from graphrec.run_writer import RunWriter
from graphrec.training import TrainConfig

from ..backbone import Backbone
from ..layers.fuse import fuse, is_fused
from . import settings
from .data import labels_of, open_labelled, open_parts, open_unlabelled, weights_of
from .fitting import Trained, predict, train
from .folder import train_into
from .scores import evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graphrec.pipelines.index_splits import IndexSplit

PREPROCESS_FILE = "preprocess.yaml"


class ImageClassifier(ModuleEstimator):
    """Classifies images by a published backbone, trained from the start or from published weights.

    Args:
        model: A variant of `graphrec.vision.list_models`; sizes can be left out, ``"swin_tiny"``.
        pretrained: Start from the published weights (True), or from an official checkpoint (a path, a URL or
            a hub repository); False for random ones.
        model_options: Keyword arguments of the system's class, such as ``{"patch_size": 2}``.
        image_size: Side, or height and width, that images are brought to; the variant's when None.
        freeze: What keeps its weights: ``"stem"``, a number n for the stem and the first n stages, or
            ``"all-but-head"``.
        layer_decay: Rate of a block as a part of that of the block after it; 1 for one rate.
        drop_path: Largest rate at which a block is left out of a step; the variant's when None.
        augment: How training images are changed: an `Augment`, its settings as a dict, or ``"imagenet"``,
            ``"small"``, ``"none"``. None: ``"small"`` up to 64 pixels, ``"imagenet"`` above.
        mixup: Parameter of mixup, 0 for none; over that of ``augment``.
        cutmix: Parameter of cutmix, 0 for none; over that of ``augment``. With both, a batch draws one.
        label_smoothing: Share of the probability of the label that is spread over all classes.
        class_weight: ``"balanced"`` or a weight by class: factors of the loss.
        ema: Decay of a moving average of the weights, such as 0.9998; the average is what is evaluated and
            kept. None for none.
        epochs: Passes over the training images, at most.
        batch_size: Images in a step, over all devices.
        learning_rate: Largest one, of the head; it rises from zero and falls as a cosine.
        weight_decay: Of matrices and kernels; vectors and the model's tables of positions have none.
        warmup_epochs: Epochs in which the rate rises, at most a fifth of all.
        patience: Stop after so many epochs without a better one; 0 or None for never.
        monitor: Validation metric that decides which weights are kept.
        precision: ``"32-true"`` or ``"bf16-mixed"``.
        compile: Compile the model with `torch.compile`.
        accelerator: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        devices: How many devices to train on.
        workers: Processes that read images while the model computes.
        cache: How images in files are kept between epochs. None: decoded in memory where that changes nothing
            but the time, which is up to 64 pixels, and where it takes at most 1 GiB; they are read anew
            otherwise. False: always read anew. True, or a folder: decoded once into a memory-mapped file that
            later fits find again (`graphrec.pipelines.images.cache_images`), at the size from which
            evaluation cuts, so that random crops see the square in the middle alone.
        train_options: Further fields of `graphrec.training.TrainConfig`.
        validation: Share of the images held out to choose the weights by, when ``fit`` is given none.
        random_state: Seed of the split, the weights, the orders and the augmentation.
        verbose: 1 for a progress bar.

    Attributes:
        classes_: (C,) labels, by column of `predict_proba`.
        module_: The fitted `Backbone`, on the CPU.
        preprocess_: The `Preprocess` of its input.
        history_: A dict per evaluation.
        metrics_: Metrics by part, ``{"valid": {"accuracy": ...}}``.

    Example:
        >>> model = ImageClassifier("swin_tiny", pretrained=True, freeze=2, epochs=5)
        >>> model.fit("photos/").predict("cat.jpg")  # doctest: +SKIP
    """

    preprocess_: Preprocess

    def __init__(
        self,
        model: str = "convnext_tiny",
        *,
        pretrained: bool | str = False,
        model_options: dict[str, Any] | None = None,
        image_size: int | tuple[int, int] | None = None,
        freeze: int | str | None = None,
        layer_decay: float = 1.0,
        drop_path: float | None = None,
        augment: str | dict[str, Any] | Augment | None = None,
        mixup: float | None = None,
        cutmix: float | None = None,
        label_smoothing: float = 0.0,
        class_weight: str | dict[Any, float] | None = None,
        ema: float | None = None,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 5e-4,
        weight_decay: float = 0.05,
        warmup_epochs: float = 1.0,
        patience: int | None = None,
        monitor: str = "accuracy",
        precision: str = "32-true",
        compile: bool = False,
        accelerator: str = "auto",
        devices: int | str = 1,
        workers: int = 0,
        cache: bool | str | None = None,
        train_options: dict[str, Any] | None = None,
        validation: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.pretrained = pretrained
        self.model_options = model_options
        self.image_size = image_size
        self.freeze = freeze
        self.layer_decay = layer_decay
        self.drop_path = drop_path
        self.augment = augment
        self.mixup = mixup
        self.cutmix = cutmix
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.ema = ema
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.patience = patience
        self.monitor = monitor
        self.precision = precision
        self.compile = compile
        self.accelerator = accelerator
        self.devices = devices
        self.workers = workers
        self.cache = cache
        self.train_options = train_options
        self.validation = validation
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        label: str | None = None,
        image: str | None = None,
        split: str | IndexSplit | None = None,
        group: str | None = None,
        weight: str | None = None,
        root: str | Path | None = None,
        on_corrupt: str = "raise",
        validation: Any = None,
        test: Any = None,
        run_dir: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """Fit.

        Args:
            X: A folder with a folder per class, or an archive of one; a manifest (parquet, CSV, Arrow, or a
                frame) with a column of paths or encoded images; an array (N, H, W, 3) uint8, a list of paths
                or of PIL images, with ``y``; or an `ImageSet`.
            y: (N,) labels of arrays and lists.
            sample_weight: (N,) weights, from 0 up, where there is no column of them.
            label: Column of the labels; found when None.
            image: Column of the images; found when None.
            split: Column that says of every image which part it is in, or an `IndexSplit`.
            group: Column of what must not be divided, such as a patient.
            weight: Column of weights. They count in the loss and in all metrics but those of every class.
            root: What the relative paths of a manifest are relative to.
            on_corrupt: ``"raise"`` refuses images that cannot be read, by name; ``"skip"`` leaves them out
                with a warning.
            validation: Share of the images, or images of their own; None for the constructor's share.
            test: Share of the images, or images of their own, that training never sees.
            run_dir: Write a run folder there: model, preprocessing, metrics, history and report.
            resume: Continue the unfinished run of that folder.
            overwrite: Replace that folder.

        Raises:
            DataError: The data cannot be used; the message names file, column or image.
            ConfigError: An argument is wrong.
            RunError: The run folder exists, or a checkpoint is of another model.
        """
        seed = self._seed()
        settings.check(self)
        writer = None
        if run_dir is not None:
            writer = RunWriter(run_dir, resume=resume, overwrite=overwrite)
        validation = self.validation if validation is None else validation
        source = {"label": label, "image": image, "group": group, "weight": weight, "root": root}
        columns = {key: value for key, value in source.items() if value is not None}
        if on_corrupt != "raise":
            columns["on_corrupt"] = on_corrupt
        if isinstance(split, str):
            columns["split"] = split
        parts = open_parts(
            X,
            y,
            validation=validation,
            test=test,
            seed=seed,
            split=None if isinstance(split, str) else split,
            sample_weight=sample_weight,
            columns=columns,
        )
        remember_arguments(self)
        self.classes_ = parts.classes
        self.facts_ = {"variant": settings.variant(self), "classes": len(parts.classes), "seed": seed}
        asked = {"data": X, "validation": validation, "test": test, **columns}
        self._source = {key: runs.plain_source(value) for key, value in asked.items()}
        if writer is None:
            self._keep(train(self, parts))
        else:
            train_into(self, writer, parts)
        return self

    def _keep(self, trained: Trained) -> None:
        self.module_, self.preprocess_ = trained.module, trained.preprocess
        self.history_, self.metrics_ = trained.history.rows, trained.metrics

    def predict_proba(self, X: Any, **columns: Any) -> NDArray[np.float32]:
        """Probabilities (images, classes).

        Args:
            X: As for ``fit``, without labels; also a single image: a path, a PIL image, an array (H, W, 3).
            columns: ``image`` and ``root`` of a manifest, and ``on_corrupt``, as for ``fit``; what is left
                out has no row.
        """
        check_is_fitted(self, "module_")
        return predict(self, open_unlabelled(X, columns=columns))

    def predict(self, X: Any, **columns: Any) -> NDArray[Any]:
        """The most probable class of each image; see `predict_proba`."""
        best = self.predict_proba(X, **columns).argmax(1)  # says first where nothing is fitted
        return self.classes_[best]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **columns: Any) -> float:
        """Accuracy on labelled images, or on images and ``y``."""
        labels, p, weights = self._labelled(X, y, sample_weight, columns)
        return float(accuracy_score(labels, p.argmax(1), sample_weight=weights))

    def evaluate(self, X: Any, y: Any = None, sample_weight: Any = None, **columns: Any) -> dict[str, Any]:
        """Accuracy, top-5 accuracy (of more than five classes), log loss and macro F1.

        Beside them ``per_class``: precision, recall, F1 and number of images by class, and ``confusion``: of
        each true class (row) how many images were given each class (column).

        Args:
            X: As for ``fit``.
            y: (N,) labels of arrays and lists.
            sample_weight: (N,) weights for the metrics before ``per_class``.
            columns: ``label``, ``image``, ``weight``, ``root`` and ``on_corrupt``, as for ``fit``.
        """
        labels, p, weights = self._labelled(X, y, sample_weight, columns)
        return evaluation(labels, p, self.classes_, weights)

    def draw_attention(self, X: Any, *, method: str = "auto", path: str | Path | None = None) -> Figure:
        """Draw what the model looks at, at most 16 images; see `graphrec.vision.explain.draw_attention`.

        Args:
            X: As for `predict`.
            method: ``"rollout"``, ``"layer"``, ``"activation"`` or ``"auto"``.
            path: File to write the figure to.
        """
        from ..explain import draw_attention

        check_is_fitted(self, "module_")
        names = [str(name) for name in self.classes_]
        module, images = cast(Backbone, self.module_), open_unlabelled(X)
        return draw_attention(module, images, method=method, prep=self.preprocess_, classes=names, path=path)

    def export(self, path: str | Path) -> dict[str, Any]:
        """Write the model for a server: from uint8 pictures of its size to probabilities.

        Args:
            path: ``name.onnx`` or ``name.pt2``.

        Returns:
            What is written into the file's metadata; see `graphrec.vision.export`.
        """
        from ..exporting import export

        check_is_fitted(self, "module_")
        names = [str(name) for name in self.classes_]
        module = cast(Backbone, self.module_)
        return export(module, path, normalise=self.preprocess_, softmax=True, classes=names)

    def _labelled(
        self, X: Any, y: Any, sample_weight: Any, columns: dict[str, Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]:
        """Labels (N,), probabilities (N, classes) and weights (N,) or None."""
        check_is_fitted(self, "module_")
        images, _ = open_labelled(X, y, classes=self.classes_, columns=columns, sample_weight=sample_weight)
        return labels_of(images), predict(self, images), weights_of(images)

    def _config(self, seed: int, **changes: Any) -> TrainConfig:
        return settings.train_config(self, seed, **changes)

    def _build(self, **facts: Any) -> nn.Module:
        model = settings.build(self, facts["variant"], facts["classes"], pretrained=False)
        return fuse(model) if facts.get("fused") else model

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        return info | {"facts": info["facts"] | {"fused": True}} if is_fused(self.module_) else info

    def _arguments(self) -> dict[str, Any]:
        return settings.run_config(self)

    def _write_more(self, folder: Path) -> None:
        runs.write_yaml(folder / PREPROCESS_FILE, self.preprocess_.to_dict())

    def _read_more(self, folder: Path) -> None:
        self.preprocess_ = Preprocess.from_dict(runs.read_yaml(folder / PREPROCESS_FILE))
