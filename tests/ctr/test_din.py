"""DIN: which field a sequence attends from, and what attention does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ctr_tables import CATEGORICAL, HISTORY, ITEM, NUMERIC, make_batch, make_features, make_spec

from graphrec.ctr import DIN
from graphrec.ctr.din import TargetAttention
from graphrec.ctr.targets import match_targets
from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Field

COLOURS = Field("colours", "sequence", size=7, length=4, vocabulary="colour")
OTHER = Field("other", "sequence", size=5, length=2)


def test_targets_come_from_shared_vocabularies() -> None:
    spec = make_spec(CATEGORICAL, ITEM, HISTORY, COLOURS, OTHER)
    assert match_targets("din", spec, None) == {"history": "item", "colours": "colour"}
    assert match_targets("din", spec, {"other": "colour"}) == {"other": "colour"}


@pytest.mark.parametrize(
    ("fields", "targets", "message"),
    [
        (
            (CATEGORICAL, NUMERIC),
            None,
            "the table has no sequence field; give a list column the role 'sequence'",
        ),
        ((CATEGORICAL, OTHER), None, "no categorical field shares the vocabulary of other"),
        ((ITEM, HISTORY), {"past": "item"}, "targets: 'past' is not a sequence field; use one of history"),
        (
            (ITEM, HISTORY),
            {"history": "price"},
            "targets: 'price' is not a categorical field; use one of item",
        ),
        ((ITEM, HISTORY), {}, "targets: empty"),
    ],
)
def test_mistakes_are_named(fields: Any, targets: dict[str, str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DIN(make_spec(*fields), targets=targets)


@pytest.mark.parametrize("joint", [False, True])
def test_all_kinds_of_sequences_learn(joint: bool) -> None:
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, ITEM, HISTORY, COLOURS, OTHER, labels=2)
    model = DIN(spec, joint=joint, embedding_std=0.3)
    assert len(model.attention) == (1 if joint else 2)
    batch = make_batch(spec, 20)
    model.training_loss(batch).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.mlp[0].in_features == 5 * 16


@pytest.mark.parametrize("softmax", [False, True])
def test_attention_is_a_weighted_sum_of_real_items(softmax: bool) -> None:
    torch.manual_seed(0)
    attention = TargetAttention(4, (6,), "relu", softmax).eval()
    target, items = torch.randn(3, 4), torch.randn(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    found = attention(target, items, mask)
    for row in range(3):
        real = items[row, mask[row]]
        weights = (
            torch.stack(
                [attention.mlp(torch.cat([target[row], e, target[row] - e, target[row] * e])) for e in real]
            )
            if len(real)
            else torch.empty(0, 1)
        )
        weights = weights.softmax(0) if softmax else weights
        torch.testing.assert_close(found[row], (weights * real).sum(0))


def test_the_target_changes_what_is_attended() -> None:
    spec = make_spec(ITEM, HISTORY)
    torch.manual_seed(0)
    model = DIN(spec, embedding_std=1.0).eval()
    features = make_features(spec, 6)
    vectors = model.embedding(features)
    target, *history = model.sequences.group(model.embedding, features, vectors, [0])
    attended, other = (model.attention[0](one, *history) for one in (target, target.flip(0)))
    assert (attended - other)[:-1].abs().max() > 1e-3
    assert attended[-1].eq(0).all()  # no history


def test_padding_does_not_matter() -> None:
    spec = make_spec(ITEM, HISTORY)
    torch.manual_seed(0)
    model = DIN(spec, embedding_std=1.0).eval()
    features = make_features(spec, 6)
    longer = torch.cat([features.lists[0], torch.zeros(6, 3, dtype=torch.int32)], dim=1)
    torch.testing.assert_close(model(features._replace(lists=(longer,))), model(features))
