"""The fused table gives each field what a table of its own would, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphrec.ctr.embedding import FusedEmbedding
from graphrec.ctr.row_gather import group_ids, sum_rows
from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec, Field

SPEC = FeatureSpec(
    (
        Field("price", "numeric"),
        Field("item", "categorical", size=9),
        Field("history", "sequence", size=7, length=4, vocabulary="item"),
        Field("user", "categorical", size=5),
        Field("tags", "multi", size=6, length=3, pooling="max"),
        Field("age", "numeric"),
    )
)


def batch(rows: int = 11, spec: FeatureSpec = SPEC) -> Features:
    torch.manual_seed(1)
    ids = [torch.randint(0, f.size, (rows,), dtype=torch.int32) for f in spec.categorical]
    lists = [torch.randint(0, f.size, (rows, f.length), dtype=torch.int32) for f in spec.lists]
    for items in lists:
        items[0] = 0  # an empty list
    numeric = torch.randn(rows, len(spec.numeric))
    if len(spec.numeric):
        numeric[-1, 0] = math.nan
    categorical = torch.stack(ids, 1) if ids else torch.empty(rows, 0, dtype=torch.int32)
    return Features(categorical, numeric, tuple(lists))


def expected(embedding: FusedEmbedding, features: Features) -> Tensor:
    """The same by a loop over fields and rows."""
    spec, out, position = embedding.spec, [], {"categorical": 0, "numeric": 0, "list": 0}
    for field in spec.fields:
        kind = field.kind.value if field.kind.value in position else "list"
        i = position[kind]
        position[kind] += 1
        table = None if kind == "numeric" else embedding.weight[embedding.rows(field)]
        if kind == "numeric":
            rows = [
                embedding.numeric_missing[i] if math.isnan(v) else v * embedding.numeric_weight[i]
                for v in features.numeric[:, i].tolist()
            ]
        elif kind == "categorical":
            rows = [table[k] for k in features.categorical[:, i].tolist()]
        else:
            rows = []
            for ids in features.lists[i].tolist():
                items = [table[k] for k in ids if k]
                stack = torch.stack(items) if items else torch.zeros(1, embedding.dim)
                rows.append(stack.amax(0) if field.pooling == "max" else stack.mean(0))
        out.append(torch.stack(rows))
    return torch.stack(out, 1)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("rows", [1, 7])
def test_equals_a_loop_over_fields(sparse: bool, rows: int) -> None:
    embedding, features = FusedEmbedding(SPEC, 4, sparse=sparse), batch(rows)
    found, wanted = embedding(features), expected(embedding, features)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(found)
    parameters = list(embedding.parameters())
    ours = torch.autograd.grad((found * weight).sum(), parameters)
    loop = torch.autograd.grad((wanted * weight).sum(), parameters)
    assert ours[0].is_sparse is sparse
    for a, b in zip(ours, loop, strict=True):
        torch.testing.assert_close(a.to_dense(), b)


def test_a_gradient_has_one_entry_per_touched_row() -> None:
    embedding = FusedEmbedding(FeatureSpec((Field("item", "categorical", size=1000),)), 2)
    ids = torch.tensor([[5], [7], [5]], dtype=torch.int32)
    embedding(Features(ids, torch.empty(3, 0))).sum().backward()
    assert embedding.weight.grad._indices().tolist() == [[5, 7]]
    assert embedding.weight.grad._values().tolist() == [[2.0, 2.0], [1.0, 1.0]]


def test_shared_vocabulary_has_rows_once() -> None:
    assert FusedEmbedding(SPEC, 4).weight.shape == (9 + 5 + 6, 4)


def test_sequences_can_be_left_out_and_read_by_item() -> None:
    embedding, features = FusedEmbedding(SPEC, 4, sequences=False), batch()
    assert embedding(features).shape == (11, 5, 4)
    items, real = embedding.sequence(features, 0)
    ids = features.lists[0].long()
    torch.testing.assert_close(items, embedding.weight[ids])
    assert torch.equal(real, ids != 0)
    torch.testing.assert_close(
        embedding.field_vector(features, "user"), embedding.weight[9 + features.categorical[:, 1].long()]
    )


def test_quotient_remainder_is_a_product_of_two_rows() -> None:
    spec = FeatureSpec((Field("id", "categorical", size=100, quotient=7), Field("b", "categorical", size=3)))
    embedding = FusedEmbedding(spec, 4)
    assert len(embedding.weight) == 7 + 15 + 3
    ids = torch.tensor([[99, 2], [0, 0], [8, 1]], dtype=torch.int32)
    out = embedding(Features(ids, torch.empty(3, 0)))
    w = embedding.weight
    torch.testing.assert_close(out[:, 0], w[torch.tensor([1, 0, 1])] * w[7 + torch.tensor([14, 0, 1])])
    torch.testing.assert_close(out[:, 1], w[22 + ids[:, 1].long()])
    out.sum().backward()
    assert w.grad.is_sparse
    assert abs(float(w[7:22].detach().mean()) - 1) < 0.05


def test_quotient_fields_beside_others_are_pulled_once_per_occurrence() -> None:
    spec = FeatureSpec((Field("id", "categorical", size=100, quotient=7), Field("b", "categorical", size=3)))
    embedding = FusedEmbedding(spec, 4)
    embedding.regularise({"id": torch.ones(100), "b": torch.ones(3)}, l2=1.0)
    ids = torch.tensor([[99, 2], [0, 0], [8, 1]], dtype=torch.int32)
    (0 * embedding(Features(ids, torch.empty(3, 0)))).sum().backward()
    grad, w = embedding.weight.grad.to_dense(), embedding.weight.detach()
    torch.testing.assert_close(grad[22:], w[22:] / 3)  # each of the three ids in one of three rows


@pytest.mark.parametrize(
    "fields",
    [
        (Field("a", "numeric"),),
        (Field("a", "categorical", size=4),),
        (Field("a", "sequence", size=4, length=2),),
        (Field("a", "multi", size=4, length=0),),
    ],
)
def test_a_single_field_of_any_kind(fields: tuple[Field, ...]) -> None:
    spec = FeatureSpec(fields)
    assert FusedEmbedding(spec, 3)(batch(5, spec)).shape == (5, 1, 3)


def test_ids_that_were_grouped_before_and_ids_that_changed_in_place() -> None:
    ids = torch.tensor([5, 2, 5, 9], dtype=torch.int32)
    first = group_ids(ids)
    assert group_ids(ids.clone()) is first
    ids[1] = 5
    rows, counts, order = group_ids(ids)
    assert rows.tolist() == [5, 9]
    assert counts.tolist() == [3, 1]
    assert order.tolist() == [0, 1, 2, 3]
    assert group_ids(ids.long()).rows.dtype == torch.int64


def test_sum_rows_of_nothing() -> None:
    rows, sums, counts = sum_rows(torch.empty(0, dtype=torch.int32), torch.empty(0, 3))
    assert counts.shape == (0,)
    assert rows.shape == (0,)
    assert sums.shape == (0, 3)


def test_regularise_applies_the_prior_once_per_pass() -> None:
    """Summed over the data, the extra gradient times the rows is l2 * row for each row that occurs."""
    torch.manual_seed(0)
    spec = FeatureSpec(
        (Field("a", "categorical", size=6), Field("h", "sequence", size=6, length=2, vocabulary="a"))
    )
    embedding = FusedEmbedding(spec, 3)
    ids = torch.randint(0, 5, (40, 3), dtype=torch.int32)
    counts = torch.bincount(ids.reshape(-1).long(), minlength=6).numpy()
    embedding.regularise({"a": counts}, 0.7)
    total = torch.zeros_like(embedding.weight)
    for rows in ids.split(10):
        embedding.weight.grad = None
        out = embedding(Features(rows[:, :1], torch.empty(10, 0), (rows[:, 1:],)))
        (out * 0.0).sum().backward()
        total += 10 * embedding.weight.grad.to_dense()
    wanted = 0.7 * embedding.weight.detach()
    wanted[5] = 0.0  # never occurs
    torch.testing.assert_close(total, wanted)


def test_regularise_refuses_wrong_counts() -> None:
    embedding = FusedEmbedding(FeatureSpec((Field("a", "categorical", size=6),)), 3)
    with pytest.raises(ConfigError, match="counts: 'a' needs 6 numbers, one per id, got 5"):
        embedding.regularise({"a": torch.ones(5)}, 1.0)
    with pytest.raises(ConfigError, match="embedding_l2: -1 is negative"):
        embedding.regularise({"a": torch.ones(6)}, -1)
