"""Patterns that hold what was chosen from the data: blocks, lists of blocks or keys, padding."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from ..checking import checked, remember, unreadable
from .base import Pattern


def _leading(tensor: Tensor, name: str, axes: int) -> Tensor:
    """A tensor with batch and heads in front; both may be missing."""
    if not axes <= tensor.dim() <= axes + 2:
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} must have {axes} axes, "
            "or heads, or batch and heads before them"
        )
    return tensor.reshape((1,) * (axes + 2 - tensor.dim()) + tuple(tensor.shape))


def _check_index(index: Tensor, high: int, name: str) -> None:
    """Raise ValueError for an index that is neither -1 nor below ``high``."""
    if unreadable(index) or checked(index, high):
        return
    if index.numel() and (int(index.min()) < -1 or int(index.max()) >= high):
        raise ValueError(
            f"{name} holds {int(index.min())} to {int(index.max())}, must be -1 (none) or 0 to {high - 1}"
        )
    remember(index, high)


def unique_lists(index: Tensor) -> Tensor:
    """Rows sorted, -1 for none at the end, without repetitions, as short as the longest needs, at least 1."""
    if index.shape[-1] == 0:
        return index.new_full((*index.shape[:-1], 1), -1, dtype=torch.int64)
    big = torch.iinfo(torch.int64).max
    rows = torch.where(index < 0, big, index.long()).sort(-1).values
    again = torch.zeros_like(rows, dtype=torch.bool)
    again[..., 1:] = rows[..., 1:] == rows[..., :-1]
    rows = rows.masked_fill(again, big).sort(-1).values
    width = int((rows < big).sum(-1).amax()) if rows.numel() else 0
    return torch.where(rows == big, -1, rows)[..., : max(width, 1)]


@dataclass(frozen=True, repr=False, eq=False)
class _Data(Pattern):
    """What these share: the sizes of batch and heads come from a tensor with both in front."""

    def _sizes(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def batch(self) -> int:
        return self._sizes()[0]

    @property
    def heads(self) -> int:
        return self._sizes()[1]


@dataclass(frozen=True, repr=False, eq=False)
class Blocks(_Data):
    """A map of visible blocks.

    Args:
        map: bool (ceil(Lq / block), ceil(Lk / block)), with heads, or batch and heads (each 1 or its number),
            in front.
        block: positions per block, of queries and of keys.
        k_block: positions per block of keys where those differ, as where a pooled key stands for several.
    """

    map: Tensor
    block: int = 64
    k_block: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "map", _leading(self.map, "map", 2))
        if self.map.dtype != torch.bool or min(self.block, self._keys) < 1:
            raise ValueError(
                f"map must be bool, got {self.map.dtype}, and block={self.block} and k_block={self.k_block} "
                "at least 1"
            )

    @property
    def _keys(self) -> int:
        return self.block if self.k_block is None else self.k_block

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.map.shape)

    def check(self, q_len: int, k_len: int) -> None:
        want = (ceil(q_len / self.block), ceil(k_len / self._keys))
        if tuple(self.map.shape[2:]) != want:
            raise ValueError(
                f"map of shape {tuple(self.map.shape)} must end in {want} for {q_len} queries, {k_len} keys "
                f"and blocks of {self.block} and {self._keys}"
            )

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        batch, heads = b % self.batch, h % self.heads
        return self.map.to(q.device)[batch, heads, q // self.block, k // self._keys]

    def partition(self, length: int) -> Tensor | None:
        return block_partition(length, self.block)

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        seen = self.map.to(index.device)[:, :, index.clamp(min=0) // self.block] & (index >= 0).unsqueeze(-1)
        any_row = seen.any(-2)  # [B', H', N, key blocks]
        ids = torch.where(any_row, torch.arange(any_row.shape[-1], device=index.device), -1)
        return block_keys(unique_lists(ids), self._keys, k_len)


def block_partition(length: int, block: int) -> Tensor:
    """Runs of ``block`` positions, int64 (ceil(L / block), block) padded with -1."""
    padded = torch.arange(ceil(length / block) * block)
    return torch.where(padded < length, padded, -1).view(-1, block)


def block_keys(blocks: Tensor, block: int, k_len: int) -> Tensor:
    """The keys of listed blocks: (..., S) to (..., S * block), -1 where there is none."""
    keys = blocks.unsqueeze(-1) * block + torch.arange(block, device=blocks.device)
    return torch.where((blocks >= 0).unsqueeze(-1) & (keys < k_len), keys, -1).flatten(-2)


@dataclass(frozen=True, repr=False, eq=False)
class BlockLists(_Data):
    """Each block of queries sees the blocks of keys on its list (BiFormer arXiv:2303.08810, NSA
    arXiv:2502.11089).

    Args:
        index: integer (ceil(Lq / block), S), with heads, or batch and heads (each 1 or its number), in front;
            -1 for none; a block named twice counts once.
        block: positions per block, of queries and of keys.
    """

    index: Tensor
    block: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", _leading(self.index, "index", 2))
        if self.index.is_floating_point() or self.block < 1:
            raise ValueError(
                f"index must be of integers, got {self.index.dtype}, and block={self.block} at least 1"
            )

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.index.shape)

    def check(self, q_len: int, k_len: int) -> None:
        if self.index.shape[2] != ceil(q_len / self.block):
            raise ValueError(
                f"index of shape {tuple(self.index.shape)} must list {ceil(q_len / self.block)} blocks "
                f"of {self.block} queries"
            )
        _check_index(self.index, ceil(k_len / self.block), "index")

    def _map(self, k_len: int, device: torch.device) -> Tensor:
        count = ceil(k_len / self.block)
        index = self.index.to(device).long()
        seen = torch.zeros((*index.shape[:3], count + 1), dtype=torch.bool, device=device)
        return seen.scatter_(-1, torch.where(index < 0, count, index), True)[..., :count]

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        return self._map(k_len, q.device)[b % self.batch, h % self.heads, q // self.block, k // self.block]

    def partition(self, length: int) -> Tensor | None:
        return block_partition(length, self.block)

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        rows = torch.where(index < 0, self.index.shape[2], index // self.block)
        padded = torch.nn.functional.pad(self.index.to(index.device).long(), (0, 0, 0, 1), value=-1)
        first = rows[:, :1]
        same = bool(((rows == first) | (index < 0)).all())
        chosen = padded[:, :, first[:, 0]] if same else padded[:, :, rows].flatten(-2)
        return block_keys(unique_lists(chosen), self.block, k_len)


@dataclass(frozen=True, repr=False, eq=False)
class Tokens(_Data):
    """Each query sees the keys on its list: top-k, nearest neighbours.

    Args:
        index: integer (Lq, S), with heads, or batch and heads (each 1 or its number), in front; -1 for none;
        a key
            named twice counts once.
    """

    index: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", _leading(self.index, "index", 2))
        if self.index.is_floating_point():
            raise ValueError(f"index must be of integers, got {self.index.dtype}")

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.index.shape)

    def check(self, q_len: int, k_len: int) -> None:
        if self.index.shape[2] != q_len:
            raise ValueError(
                f"index of shape {tuple(self.index.shape)} lists keys for {self.index.shape[2]} queries, "
                f"there are {q_len}"
            )
        _check_index(self.index, k_len, "index")

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        b, h, q, k = torch.broadcast_tensors(b, h, q, k)
        index = self.index.to(q.device).long().sort(-1).values
        rows = index[b[..., 0] % self.batch, h[..., 0] % self.heads, q[..., 0]].contiguous()  # [..., m, S]
        keys = k.contiguous()
        if rows.shape[-1] == 0:
            return torch.zeros_like(keys, dtype=torch.bool)
        place = torch.searchsorted(rows, keys).clamp(max=rows.shape[-1] - 1)
        return rows.gather(-1, place) == keys

    def partition(self, length: int) -> Tensor | None:
        return torch.arange(length).unsqueeze(-1)

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        padded = torch.nn.functional.pad(self.index.to(index.device).long(), (0, 0, 0, 1), value=-1)
        return unique_lists(padded[:, :, torch.where(index < 0, self.index.shape[2], index)].flatten(-2))


@dataclass(frozen=True, repr=False, eq=False)
class KeyPadding(_Data):
    """Every query sees the keys that are valid: ``Causal() & KeyPadding(valid)`` for a padded batch.

    Args:
        valid: bool (B, Lk), True where the key is real.
    """

    valid: Tensor

    def __post_init__(self) -> None:
        if self.valid.dtype != torch.bool or self.valid.dim() != 2:
            raise ValueError(
                f"valid must be bool (batch, keys), got {self.valid.dtype} of shape {tuple(self.valid.shape)}"
            )

    def _sizes(self) -> tuple[int, ...]:
        return (self.valid.shape[0], 1)

    def moved(self, offset: int) -> KeyPadding:
        return self

    def check(self, q_len: int, k_len: int) -> None:
        if self.valid.shape[1] != k_len:
            raise ValueError(
                f"valid of shape {tuple(self.valid.shape)} covers {self.valid.shape[1]} keys, "
                f"there are {k_len}"
            )

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        seen = self.valid.to(q.device)[b % self.batch, k]
        return seen.expand(torch.broadcast_shapes(seen.shape, q.shape))
