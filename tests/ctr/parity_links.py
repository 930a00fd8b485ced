"""References built from FuxiCTR's layers: copied random weights, then equal logits and gradients.

`Link` pairs each parameter of a reference with the part of ours that it equals. Values go from ours to the
reference; logits and gradients are then compared to 1e-5. Without FuxiCTR the tests that import this skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from ctr_tables import dense
from torch import Tensor, nn

from graphrec.ctr import CTRModel
from graphrec.pipelines.tables.features import Batch, Features, FeatureSpec, Field
from graphrec.registry import create_model

fuxi = pytest.importorskip("fuxictr.pytorch.layers")
FeatureMap = pytest.importorskip("fuxictr.features").FeatureMap

ROWS, DIM = 12, 6
FIELDS = (
    Field("a", "categorical", size=7),
    Field("b", "categorical", size=5),
    Field("x", "numeric"),
    Field("item", "categorical", size=9),
    Field("tags", "multi", size=6, length=3, pooling="sum"),
)
HISTORY = Field("history", "sequence", size=9, length=4, vocabulary="item")


class Link(NamedTuple):
    """``ours[index]``, reshaped, is ``theirs``; a padded table's first row is zero and not compared."""

    ours: nn.Parameter
    theirs: nn.Parameter
    index: Any = ...
    padded: bool = False


def make_batch(spec: FeatureSpec, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(1, f.size, (ROWS,), generator=generator) for f in spec.categorical]
    lists = tuple(torch.randint(0, f.size, (ROWS, f.length), generator=generator).int() for f in spec.lists)
    lists = tuple(items.sort(descending=True).values for items in lists)  # padding on the right
    numeric = torch.randn(ROWS, len(spec.numeric), generator=generator)
    labels = torch.rand(ROWS, len(spec.labels), generator=generator).round()
    return Batch(Features(torch.stack(columns, 1).int(), numeric, lists), labels)


def columns_of(spec: FeatureSpec, features: Features) -> dict[str, Tensor]:
    """The batch as FuxiCTR takes it."""
    found = {f.name: features.categorical[:, i] for i, f in enumerate(spec.categorical)}
    found |= {f.name: features.numeric[:, i] for i, f in enumerate(spec.numeric)}
    found |= {f.name: features.lists[i] for i, f in enumerate(spec.lists)}
    return {f.name: found[f.name] for f in spec.fields}


def feature_map(spec: FeatureSpec) -> Any:
    found = FeatureMap("tiny", "")
    for f in spec.fields:
        kind = {"multi": "sequence"}.get(str(f.kind), str(f.kind))
        found.features[f.name] = {"source": "", "type": kind, "vocab_size": f.size}
        if kind == "sequence":
            found.features[f.name]["padding_idx"] = 0
        if f.kind == "multi":
            found.features[f.name]["feature_encoder"] = "layers.MaskedSumPooling()"
        if f.vocabulary != f.name:
            found.features[f.name]["share_embedding"] = f.vocabulary
    found.num_fields = len(spec.fields)
    return found


def embedding_links(ours: Any, theirs: Any, names: tuple[str, ...] = ()) -> Iterator[Link]:
    """Tables of a `FusedEmbedding` and of a FeatureEmbedding or FeatureEmbeddingDict."""
    tables = getattr(theirs, "embedding_layer", theirs).embedding_layers
    numeric = [f.name for f in ours.spec.numeric]
    for f in ours.spec.fields:
        if names and f.name not in names:
            continue
        if f.kind == "numeric":
            yield Link(ours.numeric_weight, tables[f.name].weight, numeric.index(f.name))
        elif f.vocabulary == f.name:
            table = tables[f.name]
            yield Link(ours.weight, table.weight, ours.rows(f), table.padding_idx is not None)


def mlp_links(ours: nn.Module, theirs: Any) -> Iterator[Link]:
    """Parameters of our MLP and of an MLP_Block, in order."""
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    for (name, mine), (other, reference) in pairs:
        assert name.split(".")[-1] == other.split(".")[-1]
        yield Link(mine, reference)


def linear_links(ours: Any, theirs: Any, index: Any = ...) -> Iterator[Link]:
    yield Link(ours.weight, theirs.weight, index)
    if theirs.bias is not None:
        yield Link(ours.bias, theirs.bias, index)


def check(model: CTRModel, reference: nn.Module, links: list[Link]) -> None:
    """Copy random weights from ours, then compare logits and gradients in training mode."""
    covered = {id(link.theirs) for link in links}
    learned = {id(p) for p in reference.parameters() if p.requires_grad}
    assert covered == learned, "a parameter of the reference is not linked"
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        for link in links:
            if link.padded:
                link.ours[link.index][0] = 0
        for link in links:
            link.theirs.copy_(link.ours[link.index].reshape(link.theirs.shape))
    batch = make_batch(model.spec)
    logits, expected = model(batch.features), reference(columns_of(model.spec, batch.features))
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    for found in (logits, expected):
        nn.functional.binary_cross_entropy_with_logits(found, batch.labels).backward()
    for link in links:
        assert link.ours.grad is not None
        assert link.theirs.grad is not None
        gradient = dense(link.ours.grad)[link.index].reshape(link.theirs.shape)
        rows = slice(int(link.padded), None)
        torch.testing.assert_close(gradient[rows], link.theirs.grad[rows], atol=1e-5, rtol=1e-5)


def make(name: str, labels: int = 1, fields: tuple[Field, ...] = FIELDS, **options: Any) -> CTRModel:
    spec = FeatureSpec(fields, tuple(f"y{i}" for i in range(labels)))
    return create_model(name, spec, **({} if name == "lr" else {"embedding_dim": DIM}), **options)


def embedding(spec: FeatureSpec, dim: int = DIM, **options: Any) -> Any:
    return fuxi.FeatureEmbedding(feature_map(spec), dim, **options)


class Deep(nn.Module):
    """Embeddings, then a network on the flattened vectors."""

    def __init__(self, spec: FeatureSpec, network: nn.Module) -> None:
        super().__init__()
        self.embedding, self.network = embedding(spec), network

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        return self.network(self.embedding(columns).flatten(1))


WIDTH = DIM * len(FIELDS)
