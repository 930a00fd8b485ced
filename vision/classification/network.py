"""A backbone as the trainer sees it: its predictions, its loss, and its frozen parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

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

    def predict(self, batch: ImageBatch) -> Tensor:
        """Probabilities."""
        return self.model(batch.images).float().softmax(1)


class ImageNetwork(ImagePredictor):
    """What the trainer sees of one that learns.

    Args:
        model: Trained in place.
        frozen: What of it stays as it is; see `freeze`.
        label_smoothing: Share of the probability that is spread over all classes.
        class_weight: (C,) factors of the loss of each class, or None.

    Shapes:
        Images are (B, C, H, W), labels (B,), mixed targets (B, K), predictions (B, K).
    """

    class_weight: Tensor | None

    def __init__(
        self,
        model: Backbone,
        *,
        frozen: int | str | None = None,
        label_smoothing: float = 0.0,
        class_weight: Tensor | None = None,
    ) -> None:
        super().__init__(model)
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weight", class_weight, persistent=False)
        self._frozen = freeze(model, frozen)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Training mode for what learns; the rest stays in evaluation mode."""
        super().train(mode)
        hold(self._frozen)
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
