"""Behaviour sequences and the candidate that they are seen from, for models that attend over them.

Symbols: B batch, L list length, d embedding width, g sequences that are read together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec, Field, FieldKind

from .embedding import FusedEmbedding


class MatchedSequences:
    """Which categorical field each sequence is seen from, and what of a batch the network behind it reads.

    Args:
        model: The model's name, for messages.
        spec: All fields.
        targets: Categorical field by sequence; by shared vocabulary when None.
        joint: Read sequences of one length together, their vectors side by side.

    Attributes:
        targets: Categorical field by sequence, of those that have one.
        groups: Positions in ``spec.lists`` of the sequences that are read together.
        pooled: Positions of the sequences without a target, which are mean-pooled.

    Raises:
        ConfigError: No sequence has a target, or a given name is not of its kind.
    """

    def __init__(
        self, model: str, spec: FeatureSpec, targets: Mapping[str, str] | None, joint: bool = False
    ) -> None:
        self.targets = match_targets(model, spec, targets)
        self.groups = _group(spec, self.targets, joint)
        self.pooled = [
            i for i, f in enumerate(spec.lists) if f.kind is FieldKind.SEQUENCE and f.name not in self.targets
        ]

    def read(self, embedding: FusedEmbedding, features: Features, attentions: Iterable[nn.Module]) -> Tensor:
        """The other fields, each group as its attention reads it, and the means of the rest, side by side.

        Args:
            embedding: Of all fields, without sequences in its output.
            features: A batch.
            attentions: One per group: target (B, g d), items (B, L, g d) and which are real, (B, L) bool, to
                a vector (B, n).

        Returns:
            (B, the widths of all).
        """
        vectors = embedding(features)  # [B, F, d]
        parts = [vectors.flatten(1)]
        for attention, group in zip(attentions, self.groups, strict=True):
            parts.append(attention(*self.group(embedding, features, vectors, group)))
        parts += [_mean(*embedding.sequence(features, position)) for position in self.pooled]
        return torch.cat(parts, dim=1)

    def group(
        self, embedding: FusedEmbedding, features: Features, vectors: Tensor, group: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A group's target (B, g d), its items (B, L, g d) and which are real, (B, L) bool."""
        order, lists = [f.name for f in embedding.fields], embedding.spec.lists
        columns = [order.index(self.targets[lists[position].name]) for position in group]
        items, masks = zip(*(embedding.sequence(features, position) for position in group), strict=True)
        return vectors[:, columns].flatten(1), torch.cat(items, dim=-1), masks[0]


def match_targets(model: str, spec: FeatureSpec, targets: Mapping[str, str] | None) -> dict[str, str]:
    """The categorical field that each sequence attends from, by the sequence's name.

    Args:
        model: The model's name, for messages.
        spec: All fields.
        targets: Target by sequence; where None, the categorical field of the same vocabulary.

    Raises:
        ConfigError: No sequence has a target, or a given name is not of its kind.
    """
    sequences = [f for f in spec.fields if f.kind is FieldKind.SEQUENCE]
    if not sequences:
        raise ConfigError(
            f"{model}: the table has no sequence field; give a list column the role 'sequence' in the "
            "schema, or choose a model without sequences such as dcnv2"
        )
    if targets is not None:
        return _check_targets(spec, sequences, targets)
    by_vocabulary = {f.vocabulary: f.name for f in spec.categorical}
    matched = {f.name: by_vocabulary[f.vocabulary] for f in sequences if f.vocabulary in by_vocabulary}
    if not matched:
        raise ConfigError(
            f"{model}: no categorical field shares the vocabulary of {', '.join(f.name for f in sequences)}; "
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


def _group(spec: FeatureSpec, targets: Mapping[str, str], joint: bool) -> list[list[int]]:
    """Positions in ``spec.lists`` of the sequences that share an attention."""
    attended = [i for i, f in enumerate(spec.lists) if f.name in targets]
    if not joint:
        return [[i] for i in attended]
    lengths = dict.fromkeys(spec.lists[i].length for i in attended)
    return [[i for i in attended if spec.lists[i].length == length] for length in lengths]


def _mean(items: Tensor, mask: Tensor) -> Tensor:
    """(B, L, d) over the items where mask (B, L) is true: (B, d), zeros where there are none."""
    real = mask.to(items.dtype)
    return torch.einsum("bl,bld->bd", real, items) / real.sum(1, keepdim=True).clamp(min=1.0)
