"""INFNet against its equations, written as loops over rows and tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ctr_tables import CATEGORICAL, HISTORY, ITEM, NUMERIC, TAGS, make_batch, make_features, make_spec
from torch import nn

from graphrec.ctr import INFNet
from graphrec.ctr.infnet import FIELDS, ITEMS, TASKS, _plan
from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Field

SECOND = Field("viewed", "sequence", size=7, length=2, vocabulary="colour")
ALL = (CATEGORICAL, NUMERIC, HISTORY, ITEM, TAGS, SECOND)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def affine(layer: Any, x: np.ndarray) -> np.ndarray:
    y = layer.weight.detach().numpy() @ x
    return y if layer.bias is None else y + layer.bias.detach().numpy()


def perceptron(mlp: nn.Module, x: np.ndarray) -> np.ndarray:
    for layer in mlp.children():
        x = np.maximum(x, 0) if isinstance(layer, nn.ReLU) else affine(layer, x)
    return x


def attention(module: Any, queries: np.ndarray, tokens: list[np.ndarray], heads: int) -> np.ndarray:
    """CA(Q, K, K) for one row; nothing to attend to gives zeros."""
    out = np.zeros_like(queries)
    width = queries.shape[1] // heads
    for i, query in enumerate(queries):
        q = affine(module.query, query)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            if tokens:
                scores = np.array([q[part] @ affine(module.key, t)[part] for t in tokens]) / np.sqrt(width)
                out[i, part] = sum(
                    w * affine(module.value, t)[part] for w, t in zip(softmax(scores), tokens, strict=True)
                )
    return out


def logits_by_loops(model: INFNet, features: Any, heads: int, residual: bool, previous: bool) -> np.ndarray:
    """The paper's equations for each row, all proxies and gates computed in every block that has them."""
    embedded = model.embedding(features).detach().numpy()
    lists = [tuple(t.detach().numpy() for t in model.embedding.sequence(features, i)) for i in (0, 2)]
    rows = []
    for b in range(len(embedded)):
        items = [[v for v, real in zip(x[b], mask[b], strict=True) if real] for x, mask in lists]
        tokens = {
            FIELDS: list(embedded[b]),
            ITEMS: items[0] + items[1],
            TASKS: list(model.task_tokens.detach().numpy()),
        }
        flat = perceptron(model.field_proxies, embedded[b].reshape(-1))  # type: ignore[arg-type]
        pooled = [sum((affine(model.item_proxy, v) for v in s), np.zeros(flat.size // 3)) for s in items]
        proxies = {
            FIELDS: flat.reshape(3, -1),
            ITEMS: np.array(pooled),
            TASKS: model.shared_tokens.detach().numpy(),
        }
        for block in model.blocks:
            tokens, proxies = block_by_loops(block, tokens, proxies, heads, residual, previous)
        towers = zip(model.towers, tokens[TASKS], strict=True)
        rows.append([perceptron(tower, token)[0] for tower, token in towers])
    return np.array(rows)


def block_by_loops(
    block: Any, tokens: Any, proxies: Any, heads: int, residual: bool, previous: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    def gather(modules: Any, queries: np.ndarray) -> np.ndarray:
        return residual * queries + sum(attention(m, queries, tokens[g], heads) for g, m in modules.items())

    new = {group: gather(modules, proxies[group]) for group, modules in block.proxy_attention.items()}
    source = tokens | {TASKS: list(gather(block.task_attention, np.array(tokens[TASKS])))}
    gated = {}
    for group, gate in block.gates.items():
        factor = sigmoid(perceptron(gate.mlp, (proxies if previous else new)[group].reshape(-1)))
        gated[group] = [token * factor + residual * token for token in source[group]]
    return gated, new


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("previous", [True, False])
def test_paper_equations(heads: int, residual: bool, previous: bool) -> None:
    torch.manual_seed(0)
    spec = make_spec(*ALL, labels=2)
    model = INFNet(
        spec,
        embedding_dim=4,
        embedding_std=1.0,
        num_blocks=3,
        num_proxies=3,
        num_heads=heads,
        residual=residual,
        previous_proxies=previous,
        proxy_units=(5,),
        gate_units=(5,),
        tower_units=(5,),
    ).double()
    features = make_features(spec, 4)
    features = features._replace(numeric=features.numeric.double())
    expected = logits_by_loops(model, features, heads, residual, previous)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(model(features).detach().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("previous", [True, False])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("fields", [ALL, (CATEGORICAL,), (HISTORY,)], ids=["all", "fields", "items"])
def test_no_part_is_built_in_vain(fields: tuple[Field, ...], blocks: int, previous: bool) -> None:
    torch.manual_seed(0)
    spec = make_spec(*fields, labels=3)
    model = INFNet(spec, embedding_std=1.0, num_blocks=blocks, previous_proxies=previous)
    model.training_loss(make_batch(spec, 40)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_plan_renews_only_what_is_read() -> None:
    groups = [FIELDS, TASKS]
    assert _plan(groups, 2, False) == [(groups, groups), ([TASKS], [TASKS])]
    assert _plan(groups, 2, True) == [([TASKS], groups), ([], [TASKS])]


def test_padding_does_not_matter() -> None:
    spec = make_spec(*ALL)
    torch.manual_seed(0)
    model = INFNet(spec, embedding_std=1.0).eval()
    features = make_features(spec, 6)
    history, *others = features.lists
    longer = torch.cat([history, torch.zeros(6, 5, dtype=torch.int32)], dim=1)
    torch.testing.assert_close(model(features._replace(lists=(longer, *others))), model(features))


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="num_heads: 3 does not divide embedding_dim 16"):
        INFNet(make_spec(), num_heads=3)
    with pytest.raises(ConfigError, match="num_shared: 0"):
        INFNet(make_spec(), num_shared=0)
