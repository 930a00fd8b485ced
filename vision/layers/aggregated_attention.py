"""TransNeXt's attention: cosine similarity, near and pooled keys under one softmax (arXiv:2311.17132)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels import RelativeBias, Source, attention, joint_attention
from graphrec.kernels.patterns import Halo
from graphrec.kernels.registering import listened_to
from graphrec.kernels.remembered import kept

from .conv import Conv2d
from .normed import Linear
from .pieces import mlp_in_pieces
from .wide import wide_product

Size = tuple[int, int]


def axis_distances(queries: int, keys: int, trained: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """On one axis, the distances that occur, (n,), and which each query has to each key, (queries, keys).

    A key is the mean of the positions that adaptive pooling gives it. Distances are measured in eighths of
    the map that the model was trained on, and compressed by a logarithm.
    """
    make = _axis_distances.__wrapped__ if torch.compiler.is_compiling() else _axis_distances
    return make(queries, keys, trained, device)


@lru_cache(maxsize=64)
@kept
def _axis_distances(queries: int, keys: int, trained: int, device: torch.device) -> tuple[Tensor, Tensor]:
    centres = [key * queries // keys + -(-(key + 1) * queries // keys) - 1 for key in range(keys)]  # doubled
    step = 2 if len({one % 2 for one in centres}) == 1 else 1
    low, high = -centres[-1], 2 * (queries - 1) - centres[0]
    values = torch.arange(low, high + 1, step, device=device, dtype=torch.float32) / 2
    values = values / max(trained - 1, 1) * 8
    places = 2 * torch.arange(queries, device=device)[:, None] - torch.tensor(centres, device=device)
    return values.sign() * (values.abs() + 1).log2() / 3, (places - low) // step


def local_keys(size: Size, window: int, device: torch.device) -> Tensor:
    """How many keys each query sees in its window, (L, 1)."""
    make = _local_keys.__wrapped__ if torch.compiler.is_compiling() else _local_keys
    return make(size, window, device)


@lru_cache(maxsize=64)
@kept
def _local_keys(size: Size, window: int, device: torch.device) -> Tensor:
    far, counts = window // 2, []
    for one in size:
        place = torch.arange(one, device=device)
        counts.append((place + far).clamp(max=one - 1) - (place - far).clamp(min=0) + 1)
    return (counts[0][:, None] * counts[1]).reshape(-1, 1)


class _Answer(NamedTuple):
    """What a module was given, and found."""

    given: tuple[Tensor, ...]
    found: Tensor


_ANSWERS: WeakKeyDictionary[nn.Module, _Answer] = WeakKeyDictionary()
"""Beside the modules, so that saving or copying one takes no answer along."""


def _same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Whether all are the same numbers in the same dtype."""
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


class CosineAttention(nn.Module):
    """What both kinds of attention share: temperature, query embedding, and the MLP that makes biases."""

    def __init__(self, dim: int, heads: int, trained: Size, drop: float) -> None:
        super().__init__()
        self.heads, self.trained = heads, trained
        start = math.log(math.exp(1 / 0.24) - 1)  # softplus of it is 1 / 0.24
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), start))
        self.query_embedding = nn.Parameter(torch.empty(heads, 1, dim // heads))
        trunc_normal_(self.query_embedding, std=0.02)
        self.cpb_fc1 = Linear(2, 512)
        self.cpb_fc2 = Linear(512, heads)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)

    def split(self, x: Tensor) -> Tensor:
        """(B, ..., C) to (B, heads, L, C / heads)."""
        return x.flatten(1, -2).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def scaled(self, q: Tensor, keys: Tensor) -> Tensor:
        """Queries of length 1 with embedding, for so many keys; ``keys`` broadcasts to (L, 1)."""
        return (q + self.query_embedding) * F.softplus(self.temperature) * keys.log()

    def bias(self, queries: Size, keys: Size, device: torch.device) -> Tensor:
        """The bias of every pair, (heads, queries, keys), from distances alone (eq. 8)."""
        (rows, row), (columns, column) = (
            axis_distances(*sizes, device) for sizes in zip(queries, keys, self.trained, strict=True)
        )
        found = self._by_distance(rows, columns)  # [heads, rows * columns]
        number = row[:, None, :, None] * len(columns) + column[None, :, None, :]  # [Hq, Wq, Hk, Wk]
        pairs = found.gather(1, number.flatten().expand(self.heads, -1))
        return pairs.view(self.heads, queries[0] * queries[1], -1)

    def _by_distance(self, rows: Tensor, columns: Tensor) -> Tensor:
        """What the MLP gives for every pair of distances, (heads, rows * columns).

        Without gradients on a CPU the last answer is used again while distances and weights are the same
        numbers, which is quickly compared; the MLP takes a seventh of the forward pass of one image.
        """
        given = (rows, columns, *self.cpb_fc1.parameters(), *self.cpb_fc2.parameters())
        compared = not torch.is_grad_enabled() and rows.device.type == "cpu" and not listened_to()
        if compared and (known := _ANSWERS.get(self)) is not None and _same(known.given, given):
            return known.found
        pairs = torch.cartesian_prod(rows, columns).to(self.cpb_fc1.weight.dtype)
        found = mlp_in_pieces(pairs, self.cpb_fc1, self.cpb_fc2)
        if compared:
            _ANSWERS[self] = _Answer(tuple(one.detach().clone() for one in given), found)
        return found

    def put_together(self, mixed: Tensor, size: Size) -> Tensor:
        """(B, heads, L, D) to the projected map (B, H, W, C)."""
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2).unflatten(1, size)))


class CosineFullAttention(CosineAttention):
    """Every position sees all of the map: the last stage."""

    def __init__(self, dim: int, heads: int, trained: Size, qkv_bias: bool, drop: float) -> None:
        super().__init__(dim, heads, trained, drop)
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        size = (x.shape[1], x.shape[2])
        q, k, v = (self.split(one) for one in self.qkv(x).chunk(3, -1))
        q = self.scaled(F.normalize(q, dim=-1), q.new_full((), size[0] * size[1]))
        bias = self.bias(size, size, x.device).unsqueeze(0)
        k = F.normalize(k, dim=-1)
        return self.put_together(attention(q.to(v.dtype), k.to(v.dtype), v, bias=bias, scale=1.0), size)


class AggregatedAttention(CosineAttention):
    """The ``window`` x ``window`` keys around each query and the pooled map under one softmax (eq. 4)."""

    def __init__(
        self, dim: int, heads: int, trained: Size, qkv_bias: bool, drop: float, *, window: int, pooling: int
    ) -> None:
        super().__init__(dim, heads, trained, drop)
        self.window, self.pooling = window, pooling
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias)
        self.sr = Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim)
        self.relative_pos_bias_local = nn.Parameter(torch.empty(heads, window**2))
        self.learnable_tokens = nn.Parameter(torch.empty(heads, dim // heads, window**2))
        self.learnable_bias = nn.Parameter(torch.zeros(heads, 1, window**2))
        trunc_normal_(self.relative_pos_bias_local, std=0.0004)
        trunc_normal_(self.learnable_tokens, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        size = (x.shape[1], x.shape[2])
        pooled = (max(size[0] // self.pooling, 1), max(size[1] // self.pooling, 1))
        q = F.normalize(self.split(self.q(x)), dim=-1)
        reach = self.window // 2 + 1
        # The official order is that of the key around its query, a RelativeBias counts query minus key.
        tokens = (wide_product(q, self.learnable_tokens) + self.learnable_bias).flip(-1)
        local = RelativeBias(self.relative_pos_bias_local.flip(-1), (reach, reach))
        pattern = Halo(size, 1, self.window // 2)
        near, far = self._keys_values(x), self._keys_values(self._pool(x, pooled))
        many = local_keys(size, self.window, x.device) + pooled[0] * pooled[1]
        mixed = joint_attention(
            self.scaled(q, many).to(near[1].dtype),
            [
                Source(*near, pattern, bias=local, plus=RelativeBias(tokens, (reach, reach))),
                Source(*far, bias=self.bias(size, pooled, x.device).unsqueeze(0)),
            ],
            scale=1.0,
        )
        return self.put_together(mixed, size)

    def _keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys of length 1, and values, of a map or of its pooled positions."""
        k, v = (self.split(one) for one in self.kv(x).chunk(2, -1))
        return F.normalize(k, dim=-1).to(v.dtype), v

    def _pool(self, x: Tensor, size: Size) -> Tensor:
        """The pooled map (B, h, w, C): convolution, GELU, mean, norm."""
        found = F.adaptive_avg_pool2d(F.gelu(self.sr(x.permute(0, 3, 1, 2))), size)
        return self.norm(found.permute(0, 2, 3, 1))
