"""Models over histories equal references that are built from FuxiCTR's layers; see `parity_links`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity_links import (
    DIM,
    FIELDS,
    HISTORY,
    WIDTH,
    Link,
    check,
    embedding_links,
    feature_map,
    fuxi,
    linear_links,
    make,
    mlp_links,
)
from torch import Tensor, nn

from graphrec.pipelines.tables.features import FeatureSpec

pytestmark = pytest.mark.parity
HEADS = 3


class Layer(nn.Module):
    """A block as FuxiCTR's BST has it, without biases in its attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4))
        self.attention = fuxi.ScaledDotProductAttention()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        query, key, value = (m(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for m in self.maps[:3])
        seen = real[:, None, None, :].expand(-1, HEADS, x.shape[1], -1)
        found, _ = self.attention(query, key, value, scale=query.shape[-1] ** 0.5, mask=seen.float())
        s = self.norms[0](self.maps[3](found.transpose(1, 2).flatten(2)) + x)
        return self.norms[1](s + self.outer(nn.functional.leaky_relu(self.inner(s))))


class Behaviour(nn.Module):
    """BST with one history, which FuxiCTR pads on the left, so that the last place is the candidate's."""

    def __init__(self, spec: FeatureSpec, blocks: int, pooling: str) -> None:
        super().__init__()
        self.embedding, self.pooling = fuxi.FeatureEmbeddingDict(feature_map(spec), DIM), pooling
        self.position = nn.Parameter(torch.zeros(HISTORY.length + 1, DIM))
        self.blocks = nn.ModuleList(Layer(2 * DIM) for _ in range(blocks))
        self.mlp = fuxi.MLP_Block(WIDTH + 2 * DIM, [8], "LeakyReLU", output_dim=1)

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        history = columns["history"]
        empty = (history == 0).sum(1, keepdim=True)
        left = history.gather(1, (torch.arange(HISTORY.length) - empty) % HISTORY.length)
        vectors = self.embedding({**columns, "history": left})
        items = torch.cat([vectors.pop("history"), vectors["item"][:, None]], dim=1)
        x = torch.cat([items, self.position.expand(len(items), -1, -1)], dim=-1)
        real = torch.cat([left != 0, torch.ones(len(left), 1).bool()], dim=1)
        for block in self.blocks:
            x = block(x, real)
        share = real / real.sum(1, keepdim=True)
        found = x[:, -1] if self.pooling == "target" else (x * share[..., None]).sum(1)
        return self.mlp(torch.cat([self.embedding.dict2tensor(vectors, flatten_emb=True), found], dim=1))


@pytest.mark.parametrize("pooling", ["target", "mean"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_bst(blocks: int, pooling: str) -> None:
    options: dict[str, Any] = {"num_blocks": blocks, "num_heads": HEADS, "pooling": pooling}
    model: Any = make("bst", fields=(*FIELDS, HISTORY), hidden_units=(8,), **options)
    reference = Behaviour(model.spec, blocks, pooling)
    links = [*embedding_links(model.embedding, reference.embedding), *mlp_links(model.mlp, reference.mlp)]
    ours = model.transformers[0]
    links.append(Link(ours.position, reference.position, list(range(HISTORY.length, -1, -1))))
    key, value = slice(0, 2 * DIM), slice(2 * DIM, None)
    for mine, other in zip(ours.blocks, reference.blocks, strict=True):
        links += linear_links(mine.query, other.maps[0])
        links += linear_links(mine.key_value, other.maps[1], key)
        links += linear_links(mine.key_value, other.maps[2], value)
        links += linear_links(mine.join, other.maps[3])
        for name, layer in (("0", other.inner), ("2", other.outer)):
            links += linear_links(mine.feed_forward.get_submodule(name), layer)
        for norm, theirs in zip(mine.norms, other.norms, strict=True):
            links += linear_links(norm, theirs)
    check(model, reference, links)
