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

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec, Field, FieldKind
from graphrec.registry import Card, register_model

from .base import CTRModel
from .layers import MLP, xavier_normal

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


def match_targets(spec: FeatureSpec, targets: Mapping[str, str] | None) -> dict[str, str]:
    """The categorical field that each sequence attends from, by the sequence's name.

    Args:
        spec: All fields.
        targets: Target by sequence; where None, the categorical field of the same vocabulary.

    Raises:
        ConfigError: No sequence has a target, or a given name is not of its kind.
    """
    sequences = [f for f in spec.fields if f.kind is FieldKind.SEQUENCE]
    if not sequences:
        raise ConfigError(
            "din: the table has no sequence field; give a list column the role 'sequence' in the schema, "
            "or choose a model without sequences such as dcnv2"
        )
    if targets is not None:
        return _check_targets(spec, sequences, targets)
    by_vocabulary = {f.vocabulary: f.name for f in spec.categorical}
    matched = {f.name: by_vocabulary[f.vocabulary] for f in sequences if f.vocabulary in by_vocabulary}
    if not matched:
        raise ConfigError(
            f"din: no categorical field shares the vocabulary of {', '.join(f.name for f in sequences)}; "
            "set 'shares' of the sequence column to the item column in the schema, or pass targets="
        )
    return matched


def _check_targets(spec: FeatureSpec, sequences: list[Field], targets: Mapping[str, str]) -> dict[str, str]:
    names = {f.name for f in sequences}, {f.name for f in spec.categorical}
    for pair in targets.items():
        for name, known, kind in zip(pair, names, ("sequence", "categorical"), strict=True):
            if name not in known:
                raise ConfigError(
                    f"targets: {name!r} is not a {kind} field; use one of {', '.join(sorted(known))}"
                )
    if not targets:
        raise ConfigError("targets: empty; map at least one sequence field to a categorical field")
    return dict(targets)


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
        self.targets = match_targets(spec, targets)
        self._groups = _group(spec, self.targets, joint)
        self._pooled = [
            i for i, f in enumerate(spec.lists) if f.kind is FieldKind.SEQUENCE and f.name not in self.targets
        ]
        self.attention = nn.ModuleList(
            TargetAttention(embedding_dim * len(g), attention_units, attention_activation, softmax)
            for g in self._groups
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
        vectors = self.embedding(features)  # [B, F, d] without the sequences
        parts = [vectors.flatten(1)]
        for attention, group in zip(self.attention, self._groups, strict=True):
            parts.append(self._attend(attention, group, vectors, features))
        for position in self._pooled:
            items, mask = self.embedding.sequence(features, position)
            real = mask.to(items.dtype)
            total = torch.einsum("bl,bld->bd", real, items)
            parts.append(total / real.sum(1, keepdim=True).clamp(min=1.0))
        return self.mlp(torch.cat(parts, dim=1))

    def _attend(self, attention: nn.Module, group: list[int], vectors: Tensor, features: Features) -> Tensor:
        order = [f.name for f in self.embedding.fields]
        columns = [order.index(self.targets[self.spec.lists[position].name]) for position in group]
        target = vectors[:, columns].flatten(1)
        items, masks = zip(*(self.embedding.sequence(features, position) for position in group), strict=True)
        return attention(target, torch.cat(items, dim=-1), masks[0])


def _group(spec: FeatureSpec, targets: Mapping[str, str], joint: bool) -> list[list[int]]:
    """Positions in ``spec.lists`` of the sequences that share an attention."""
    attended = [i for i, f in enumerate(spec.lists) if f.name in targets]
    if not joint:
        return [[i] for i in attended]
    lengths = dict.fromkeys(spec.lists[i].length for i in attended)
    return [[i for i in attended if spec.lists[i].length == length] for length in lengths]
