"""The part of a fit that comes after the images are there: build, train, measure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.module_estimator import ClassMetrics
from graphrec.pipelines.images import ImageLoader, Preprocess, cache_images, decode_images
from graphrec.training import History, Trainer
from graphrec.training.placement import place
from graphrec.training.seeding import seeded

from ..backbone import Backbone
from . import settings
from .data import Parts, labels_of, weights_of
from .network import ImageNetwork, ImagePredictor
from .optimizers import make_optimizer
from .scores import image_metrics

if TYPE_CHECKING:
    from graphrec.pipelines.images import Augment, ImageSet

    from .classifier import ImageClassifier


@dataclass(frozen=True)
class Trained:
    """What training leaves behind.

    Attributes:
        module: The network with its best weights, on the CPU.
        preprocess: What makes its input.
        history: What happened.
        metrics: By part.
        part: Name of the last part that was measured.
        labels: int64 (n,) classes of that part.
        scores: float32 (n, C) probabilities of that part.
        seconds: That training took, evaluations included.
    """

    module: Backbone
    preprocess: Preprocess
    history: History
    metrics: dict[str, dict[str, float | None]]
    part: str
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    seconds: float


def train(
    estimator: ImageClassifier, parts: Parts, run_dir: Path | None = None, *, resume: bool = False
) -> Trained:
    """Train on the train part, choose by the valid part, measure on valid and test (on train without).

    Raises:
        ConfigError: A setting cannot be met.
        RunError: The folder holds another run, or the weights are of another model.
    """
    start, seed = time.perf_counter(), estimator.facts_["seed"]
    weight = settings.class_weights(estimator, parts.counts(), parts.classes)
    with seeded(seed):
        model = settings.build(
            estimator, estimator.facts_["variant"], len(parts.classes), pretrained=estimator.pretrained
        )
    side = max(model.img_size)
    # Cutting a margin off is for photographs: a picture of 32 pixels is all subject.
    preprocess = Preprocess.of_model(model, crop_pct=1.0 if side <= settings.SMALL else None)
    network = ImageNetwork(
        model,
        frozen=estimator.freeze,
        label_smoothing=estimator.label_smoothing,
        class_weight=weight,
    )
    steps = -(-len(parts.train) // estimator.batch_size)
    trainer = Trainer(
        settings.train_config(estimator, seed, steps=steps, resume=resume),
        build_optimizers=lambda _, config: [make_optimizer(model, config, estimator.layer_decay)],
    )

    def load(images: ImageSet, augment: Augment | None = None) -> ImageLoader:
        return _loader(trainer, images, preprocess, estimator.workers, augment)

    augment = settings.augmentation(estimator, side)
    often = {name: part for name, part in parts.items() if name != "test"}
    kept = {name: _kept(estimator, part, preprocess, augment) for name, part in often.items()}
    history = trainer.fit(
        network,
        load(kept["train"], augment),
        load(kept["valid"]) if "valid" in kept else None,
        metrics=ClassMetrics(image_metrics),
        run_dir=run_dir,
        fingerprint={"data": parts.fingerprint(), "network": settings.of_network(estimator)},
    )
    measured = {name: part for name, part in parts.items() if name != "train"} or {"train": parts.train}
    scores = {name: trainer.predict(network, load(part)) for name, part in measured.items()}
    labels = {name: labels_of(part) for name, part in measured.items()}
    last = list(measured)[-1]
    return Trained(
        network.model.cpu().eval().requires_grad_(True),
        preprocess,
        history,
        {name: image_metrics(labels[name], scores[name], weights_of(measured[name])) for name in measured},
        last,
        labels[last],
        scores[last],
        time.perf_counter() - start,
    )


def _kept(estimator: ImageClassifier, images: ImageSet, preprocess: Preprocess, augment: Augment) -> ImageSet:
    """Images that are read in every epoch, as ``cache`` wants them.

    In memory only what changes nothing but the time is decoded: pictures that training takes whole, as all of
    up to `settings.SMALL` pixels are, or that are as large as the input.
    """
    cache = estimator.cache
    if cache is None:
        exact = preprocess.crop_pct == 1 and (
            augment.crop != "resized" or _sizes(images) == {preprocess.size[::-1]}
        )
        return decode_images(images, preprocess) if exact else images
    return cache_images(images, preprocess, None if cache is True else cache) if cache else images


def _sizes(images: ImageSet) -> set[tuple[int, int]]:
    """Widths and heights, as far as they are known."""
    return {images.facts.get(row, (0, 0, ""))[:2] for row in images.rows.tolist()}


def predict(estimator: ImageClassifier, images: ImageSet) -> NDArray[np.float32]:
    """Probabilities (N, C), by a single process."""
    trainer = Trainer(settings.train_config(estimator, 0, progress=False, devices=1, compile=False))
    network = ImagePredictor(cast(Backbone, estimator.module_))
    source = _loader(trainer, images, estimator.preprocess_, estimator.workers)
    try:
        return trainer.predict(network, source)
    finally:
        place(network, torch.device("cpu"))


def _loader(
    trainer: Trainer, images: ImageSet, preprocess: Preprocess, workers: int, augment: Augment | None = None
) -> ImageLoader:
    """Batches of images for a trainer's process: shuffled where they are augmented, to train on."""
    config = trainer.config
    return ImageLoader(
        images,
        preprocess,
        config.batch_size,
        augment=augment,
        shuffle=augment is not None,
        seed=config.seed,
        rank=trainer.rank,
        world_size=trainer.world_size,
        workers=workers,
    )
