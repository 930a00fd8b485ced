"""A backbone while it learns: its loss, its frozen parts, and the moving average of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional

from ..backbone import Backbone
from .freezing import freeze, hold

if TYPE_CHECKING:
    from graphrec.pipelines.images import ImageBatch


class ImagePredictor(nn.Module):
    """What the trainer sees of a classifier of images that has learned.

    Args:
        model: Used as it is.
    """

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    @property
    def predictor(self) -> Backbone:
        """The network that predicts."""
        return self.model

    def predict(self, batch: ImageBatch) -> Tensor:
        """Probabilities."""
        return self.predictor(batch.images).float().softmax(1)


class ImageNetwork(ImagePredictor):
    """What the trainer sees of one that learns.

    Args:
        model: Trained in place.
        frozen: What of it stays as it is; see `freeze`.
        label_smoothing: Share of the probability that is spread over all classes.
        class_weight: (C,) factors of the loss of each class, or None.
        ema: Decay of the moving average of all weights and statistics, or None for none. After step t it is
            at most 1 - t^(-2/3), so that the average of a short run is not that of its beginning (timm's
            `ModelEmaV3`). Predictions are those of the average.

    Shapes:
        Images are (B, C, H, W), labels (B,), mixed targets (B, K), predictions (B, K).
    """

    updates: Tensor
    class_weight: Tensor | None

    def __init__(
        self,
        model: Backbone,
        *,
        frozen: int | str | None = None,
        label_smoothing: float = 0.0,
        class_weight: Tensor | None = None,
        ema: float | None = None,
    ) -> None:
        super().__init__(model)
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weight", class_weight, persistent=False)
        self.average = None
        if ema is not None:
            self.average = ModelEmaV3(model, decay=ema, use_warmup=True).requires_grad_(False)
            self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._frozen = freeze(model, frozen)
        self.train()

    @property
    def predictor(self) -> Backbone:
        """The network that predicts and is kept: the average where there is one."""
        return self.model if self.average is None else cast(Backbone, self.average.module)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what learns; the rest stays in evaluation mode."""
        super().train(mode)
        hold(self._frozen)
        if self.average is not None:
            self.average.eval()
        return self

    def training_loss(self, batch: ImageBatch) -> Tensor:
        """Mean cross-entropy; images count by ``batch.weights``."""
        wanted = batch.labels if batch.targets is None else batch.targets
        assert wanted is not None, "what is trained on has labels"
        losses = functional.cross_entropy(
            self.model(batch.images).float(),
            wanted,
            weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            reduction="mean" if batch.weights is None else "none",
        )
        if batch.weights is None:
            return losses
        counts = batch.weights  # what torch's mean divides by: the weights of labels, but not of targets
        if batch.targets is None and self.class_weight is not None:
            counts = counts * self.class_weight[wanted]
        return (batch.weights * losses).sum() / counts.sum()

    def constrain(self) -> None:
        """Let the average follow the weights; called after every step."""
        if self.average is not None:
            self.updates += 1
            self.average.update(self.model, step=int(self.updates))
