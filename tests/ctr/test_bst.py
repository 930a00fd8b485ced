"""BST against its equations, item by item, and what its positions are for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ctr_tables import CATEGORICAL, HISTORY, ITEM, dense, make_batch, make_features, make_spec
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from graphrec.ctr import BST
from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Batch, Features, Field

COLOURS = Field("colours", "sequence", size=7, length=4, vocabulary="colour")
OTHER = Field("other", "sequence", size=5, length=2)


def transformer(module: Any, target: Tensor, items: list[Tensor], heads: int, pooling: str) -> Tensor:
    """One row of a `SequenceTransformer`, by the paper's equations."""
    tokens = [torch.cat([e, module.position[len(items) - i]]) for i, e in enumerate([*items, target])]
    for block in module.blocks:
        width, found = len(target) + module.position.shape[1], []
        to_key, to_value = block.key_value.weight.split(width)
        for token in tokens:
            parts = []
            for h in range(heads):
                part = slice(h * width // heads, (h + 1) * width // heads)
                query = (block.query.weight @ token)[part]
                scores = torch.stack([query @ (to_key @ t)[part] for t in tokens]) / len(query) ** 0.5
                values = torch.stack([(to_value @ t)[part] for t in tokens])
                parts.append(scores.softmax(0) @ values)
            first, second = block.norms
            s = first(token + block.join.weight @ torch.cat(parts))
            found.append(second(s + block.feed_forward[2](nn.LeakyReLU()(block.feed_forward[0](s)))))
        tokens = found
    return tokens[-1] if pooling == "target" else torch.stack(tokens).mean(0)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("pooling", ["target", "mean"])
@pytest.mark.parametrize("joint", [False, True])
def test_paper_equations(joint: bool, pooling: Any, blocks: int) -> None:
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, ITEM, HISTORY, COLOURS, OTHER, labels=2)
    options: dict[str, Any] = {"joint": joint, "pooling": pooling, "num_blocks": blocks, "num_heads": 2}
    model = BST(spec, embedding_dim=4, embedding_std=1.0, hidden_units=(6,), **options)
    for name, parameter in model.named_parameters():
        if "norms" in name or name.endswith("bias"):
            nn.init.normal_(parameter)
    assert len(model.transformers) == (1 if joint else 2)
    features = make_features(spec, 5)
    real = [1, 1, 0, 1]  # joint sequences are of the same clicks, so what is missing is missing in both
    lists = [items.clamp(min=1) * torch.tensor(real) for items in features.lists[:2]]
    lists = [items * (torch.arange(5) < 4)[:, None] for items in lists]  # and the last row has none
    features = features._replace(lists=(*(items.int() for items in lists), features.lists[2]))
    vectors = model.embedding(features)
    history, colours, other = ([x, m] for x, m in (model.embedding.sequence(features, i) for i in range(3)))
    rows = []
    for b in range(5):
        colour, item = vectors[b]
        items, shades, rest = (list(x[b, m[b]]) for x, m in (history, colours, other))
        pairs = [(item, items), (colour, shades)]
        if joint:
            together = [torch.cat(pair) for pair in zip(items, shades, strict=True)]
            pairs = [(torch.cat([item, colour]), together)]
        parts = [
            transformer(module, target, own, 2, pooling)
            for module, (target, own) in zip(model.transformers, pairs, strict=True)
        ]
        mean = sum(rest, torch.zeros(4)) / max(len(rest), 1)
        rows.append(model.mlp(torch.cat([colour, item, *parts, mean])[None])[0])
    expected = torch.stack(rows)
    assert expected.std() > 0.05
    torch.testing.assert_close(model(features), expected, atol=1e-5, rtol=1e-5)


def first_or_last(rows: int, seed: int) -> Batch:
    """Histories of the same items in two orders: clicked where the candidate is the latest, not the first."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.stack([torch.randperm(8, generator=generator)[:4] + 1 for _ in range(rows)])
    latest = torch.rand(rows, generator=generator) < 0.5
    length = torch.randint(2, 5, (rows,), generator=generator)
    target = torch.where(latest, items.gather(1, length[:, None] - 1)[:, 0], items[:, 0])
    items = items * (torch.arange(4) < length[:, None])
    features = Features(target[:, None].int(), torch.empty(rows, 0), (items.int(),))
    return Batch(features, latest[:, None].float())


def auc_on_order(forget: bool) -> float:
    torch.manual_seed(0)
    model = BST(make_spec(ITEM, HISTORY), embedding_dim=8, embedding_std=0.1, hidden_units=(32,))
    if forget:
        nn.init.zeros_(model.transformers[0].position).requires_grad_(False)
    train, test = first_or_last(512, seed=0), first_or_last(500, seed=1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        model.training_loss(train).backward()
        model.embedding.weight.grad = dense(model.embedding.weight.grad)
        optimizer.step()
    return float(roc_auc_score(test.labels, model.eval().predict(test).detach()))


def test_the_order_of_the_history_is_learned() -> None:
    assert auc_on_order(forget=False) > 0.95
    assert auc_on_order(forget=True) < 0.6  # the items alone say nothing


@pytest.mark.parametrize("pooling", ["target", "mean"])
def test_padding_does_not_matter(pooling: Any) -> None:
    spec = make_spec(ITEM, HISTORY)
    torch.manual_seed(0)
    model = BST(spec, embedding_std=1.0, pooling=pooling).eval()
    features = make_features(spec, 6)
    zeros = torch.zeros(6, 3, dtype=torch.int32)
    for longer in ([features.lists[0], zeros], [zeros, features.lists[0]]):
        padded = features._replace(lists=(torch.cat(longer, dim=1),))
        torch.testing.assert_close(model(padded), model(features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["target", "mean"])
def test_all_kinds_of_sequences_learn(pooling: Any) -> None:
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, ITEM, HISTORY, COLOURS, OTHER, labels=2)
    model = BST(spec, pooling=pooling, num_blocks=2, embedding_std=0.3)
    model.training_loss(make_batch(spec, 20)).backward()
    for name, parameter in model.named_parameters():
        assert dense(parameter.grad).abs().sum() > 0, name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ((CATEGORICAL,), {}, "bst: the table has no sequence field"),
        ((CATEGORICAL, OTHER), {}, "bst: no categorical field shares the vocabulary of other"),
        ((ITEM, HISTORY), {"targets": {"history": "price"}}, "targets: 'price' is not a categorical field"),
        ((ITEM, HISTORY), {"num_heads": 3}, "num_heads: 3 does not divide 32, the width of an item with"),
        ((ITEM, HISTORY), {"num_blocks": 0}, "num_blocks: 0 is too few"),
        ((ITEM, HISTORY), {"pooling": "sum"}, "pooling: there is no 'sum'; use target, mean"),
    ],
)
def test_mistakes_are_named(fields: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BST(make_spec(*fields), **options)
