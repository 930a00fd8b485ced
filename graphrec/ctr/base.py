"""What every CTR model shares: the embedding of its fields, its loss, its probabilities.

Symbols: B batch, F fields, d embedding width, D = F d, T labels (tasks), L list length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Batch, Features, FeatureSpec
from graphrec.training.blockwise import blockwise_sum

from .embedding import FusedEmbedding


class CTRModel(nn.Module):
    """Base of the CTR models: a subclass builds its layers and gives logits in `forward`.

    Args:
        spec: Fields and labels of the encoded table.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' normal initialisation.
        sequences: Whether `embedding` mean-pools sequence fields; models that attend over them pass False.
        label_weights: Weight of each label's loss; equal when None.

    Attributes:
        embedding: The `FusedEmbedding` of all fields.
        n_fields: Fields F of the embedding's output.
        flat_dim: Width D = F d of the flattened embeddings.
        n_labels: Labels T.
        block_rows: On a CPU, train on blocks of this many rows (see `graphrec.training.blockwise`), four
            times as many under autocast; 0 for the whole batch at once. Only for models whose rows do not see
            each other and that have `interact`.

    Raises:
        ConfigError: The table has no feature or no label, or ``label_weights`` does not fit the labels.
    """

    block_rows: int = 0

    _label_share: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int,
        embedding_std: float,
        sequences: bool = True,
        label_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _check(spec, embedding_dim, label_weights)
        self.spec = spec
        self.n_labels = len(spec.labels)
        self.embedding_dim = embedding_dim
        self.embedding = FusedEmbedding(spec, embedding_dim, init_std=embedding_std, sequences=sequences)
        self.n_fields = len(self.embedding.fields)
        self.flat_dim = self.n_fields * embedding_dim
        share = torch.tensor(label_weights or [1.0] * self.n_labels, dtype=torch.float32)
        self.register_buffer("_label_share", share / share.sum(), persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        raise NotImplementedError

    def interact(self, vectors: Tensor) -> Tensor:
        """Logits (B, T) from the embeddings (B, F, d); models with ``block_rows`` have it."""
        raise NotImplementedError

    def training_loss(self, batch: Batch) -> Tensor:
        """The scalar to minimise: binary cross-entropy, averaged over rows by weight and over labels."""
        block = self.block_rows * (4 if torch.is_autocast_enabled("cpu") else 1)  # best at 39 fields
        if 0 < block < len(batch.labels) and _in_cache(batch.labels):
            return self._blockwise_loss(batch, block)
        return self.average_labels(label_losses(self(batch.features), batch))

    def _blockwise_loss(self, batch: Batch, block: int) -> Tensor:
        labels, weights = known_labels(batch)
        shares = weights / weights.sum(0).clamp(min=torch.finfo(torch.float32).tiny) * self._label_share
        vectors = self.embedding(batch.features)
        embedding = {id(p) for p in self.embedding.parameters()}
        others = [p for p in self.parameters() if id(p) not in embedding]

        def block_loss(vectors: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(
                self.interact(vectors).float(), labels, weight=shares, reduction="sum"
            )

        return blockwise_sum(block_loss, (vectors, labels, shares), others, block)

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities (B, T), float32."""
        logits = self(batch.features)
        wide = torch.float32 if logits.device.type == "mps" else torch.float64
        return torch.sigmoid(logits.to(wide)).float()  # in float32 a last bit depends on the rows beside it

    def regularise(self, counts: Mapping[str, Any], l2: float, rows: int = 0) -> None:
        """Give every embedding row a Gaussian prior; see `FusedEmbedding.regularise`.

        Args:
            counts: Occurrences of each id in the training data, by vocabulary (`EncodedTable.counts`).
            l2: The prior's precision; 0 for none.
            rows: Training rows; 0 leaves the curves of numeric fields without a prior.
        """
        for module in self.modules():
            if isinstance(module, FusedEmbedding):
                module.regularise(counts, l2, rows)

    def field_interactions(self, features: Features) -> Tensor | None:
        """Importance of each pair of fields on these rows: (F, F), not negative; None if there is none.

        Row and column i are ``spec.fields[i]``. The scale differs between models.
        """
        return None

    def average_labels(self, losses: Tensor) -> Tensor:
        """Average of one loss per label, (T,), by ``label_weights``."""
        return (losses * self._label_share).sum()


def label_losses(logits: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy of each label, in float32.

    Args:
        logits: (B, T).
        batch: Labels that are NaN are left out; rows count by ``batch.weights``.

    Returns:
        (T,) weighted means over the rows that have the label; 0 for a label that no row of weight has.
    """
    labels, weights = known_labels(batch)
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits.float(), labels, weight=weights, reduction="none"
    )
    return losses.sum(0) / weights.sum(0).clamp(min=torch.finfo(torch.float32).tiny)


def known_labels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Labels (B, T) with 0 where missing, and weights (B, T), the rows' weights with 0 where missing."""
    missing = batch.labels.isnan()
    weights = (~missing).float()
    if batch.weights is not None:
        weights = weights * batch.weights[:, None]
    return batch.labels.masked_fill(missing, 0.0), weights


def _in_cache(tensor: Tensor) -> bool:
    """Whether blocks of rows pay: on a CPU, outside of tracing, when gradients are wanted."""
    return tensor.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _check(spec: FeatureSpec, embedding_dim: int, label_weights: Sequence[float] | None) -> None:
    if not spec.fields:
        raise ConfigError("spec: the table has no feature column; give at least one besides the label")
    if not spec.labels:
        raise ConfigError("spec: the table has no label; name one with label=")
    width: Any = embedding_dim
    if isinstance(width, bool) or not isinstance(width, Integral) or int(width) < 1:
        raise ConfigError(f"embedding_dim: {embedding_dim!r} is not a width; use a whole number such as 16")
    if label_weights is None:
        return
    if len(label_weights) != len(spec.labels):
        raise ConfigError(
            f"label_weights: {len(label_weights)} weights for {len(spec.labels)} labels; "
            f"give one for each of {', '.join(spec.labels)}"
        )
    if min(label_weights) < 0 or sum(label_weights) <= 0:
        raise ConfigError(
            f"label_weights: {list(label_weights)} must not be negative and must not all be zero"
        )
