"""DIN (Zhou, Zhu, Song, Fan, Zhu, Ma, Yan, Jin, Li, Gai: Deep Interest Network, KDD 2018, arXiv 1706.06978).

Idea: the user's history is summed with weights that depend on the candidate item, so each candidate sees the
part of the history that concerns it; activations adapt to the data (Dice).

    v(A) = sum_j a(e_j, v_A) e_j,   a = MLP([v_A || e_j || v_A - e_j || v_A * e_j])            (eq. 3)
    logit = MLP([other fields || v(A)])

The weights are not normalised by default, as in the paper; ``softmax=True`` normalises them.

Official code: https://github.com/zhougr1993/DeepInterestNetwork (no licence stated), TensorFlow 1. A sequence
is matched with the categorical field whose vocabulary it shares, or by ``targets``; a sequence without such a
field is mean-pooled. With several labels the last MLP has one output per label.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .layers import MLP, xavier_normal
from .targets import MatchedSequences

_CARD = Card(
    name="din",
    task="ctr",
    title="DIN: Deep Interest Network for Click-Through Rate Prediction (KDD 2018)",
    paper="https://arxiv.org/abs/1706.06978",
    code="https://github.com/zhougr1993/DeepInterestNetwork",
    published={"Amazon Electronics AUC": 0.8818, "KuaiRand-Pure click AUC": 0.7526},
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_din"},
    uses=("sequence",),
)


class TargetAttention(nn.Module):
    """DIN's local activation unit: a history summed with weights that depend on the target.

    Args:
        width: Item width d.
        hidden: Hidden widths of the weighting MLP.
        activation: See `graphrec.ctr.layers.activation`.
        softmax: Normalise the weights over the real items.
    """

    def __init__(self, width: int, hidden: tuple[int, ...], activation: str, softmax: bool) -> None:
        super().__init__()
        self.mlp = MLP(4 * width, hidden, out=1, activation_name=activation)
        self.softmax = softmax

    def forward(self, target: Tensor, items: Tensor, mask: Tensor) -> Tensor:
        """(B, d), (B, L, d) and (B, L) bool to (B, d); a row without items gives zeros."""
        batch, length, width = items.shape
        query = target[:, None].expand(batch, length, width)
        pairs = torch.cat([query, items, query - items, query * items], dim=-1)
        scores = self.mlp(pairs.view(batch * length, 4 * width)).view(batch, length)
        if self.softmax:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
        weights = scores * mask.to(scores.dtype)
        return torch.einsum("bl,bld->bd", weights, items)


@register_model(_CARD)
class DIN(CTRModel):
    """Target attention over sequences, then an MLP.

    Args:
        spec: Fields and labels, with at least one sequence field.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        targets: Categorical field that each sequence attends from; by shared vocabulary when None.
        joint: Let sequences of one length share one attention on their concatenated items (such as the ids
            and the categories of the same clicks), as the paper does.
        attention_units: Hidden widths of the weighting MLP.
        attention_activation: Its activation.
        softmax: Normalise the attention weights.
        hidden_units: Widths of the final MLP.
        activation: Its activation.
        dropout: Dropout rate of the final MLP.
        batch_norm: Batch normalisation in the final MLP.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        targets: dict[str, str] | None = None,
        joint: bool = False,
        attention_units: tuple[int, ...] = (64,),
        attention_activation: str = "dice",
        softmax: bool = False,
        hidden_units: tuple[int, ...] = (200, 80),
        activation: str = "dice",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std, sequences=False)
        self.sequences = MatchedSequences("din", spec, targets, joint)
        self.attention = nn.ModuleList(
            TargetAttention(embedding_dim * len(g), attention_units, attention_activation, softmax)
            for g in self.sequences.groups
        )
        self.mlp = MLP(
            embedding_dim * len(spec.fields),
            hidden_units,
            out=self.n_labels,
            activation_name=activation,
            dropout=dropout,
            batch_norm=batch_norm,
        )
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        return self.mlp(self.sequences.read(self.embedding, features, self.attention))
