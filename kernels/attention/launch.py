"""What the attention kernels are launched with: plan, settings, and numbers per pair."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import interpreting
from ..configs import AttentionConfig, attention_config, padded
from ..patterns import Pattern, TilePlan, decode
from .bias import RelativeBias, flat_places
from .source import Weights


class Pairs(NamedTuple):
    """A number per pair as kernels read it.

    ``kind`` is 0 for none, 1 for a dense tensor (B or 1, H or 1, Lq, Lk), 2 for a table (B or 1, H or 1, Lq
    or 1, columns), whose last stride is its number of columns. Places are int32 (Lq,) and (Lk,).
    """

    kind: int
    values: Tensor
    steps: tuple[int, int, int, int]
    q_place: Tensor
    k_place: Tensor


class Launch(NamedTuple):
    """What every kernel of one call needs."""

    plan: TilePlan
    config: AttentionConfig
    bias: Pairs
    times: Pairs
    penalty: float

    def settings(self, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
        """Constant arguments of the kernels."""
        given = (q, k, v, self.bias.values, self.times.values)
        return {
            "BIAS": self.bias.kind,
            "TIMES": self.times.kind,
            "SOFT": self.plan.soft is not None and self.penalty != 0,
            "BM": self.config.bm,
            "BN": self.config.bn,
            "BD": padded(q.shape[3]),
            "BE": padded(v.shape[3]),
            "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32",
            "INTERPRET": interpreting(),
            "WIDE": any(span(one) >= 1 << 31 for one in given),
            "num_warps": self.config.warps,
            "num_stages": self.config.stages,
        }

    def plan_arguments(self, transposed: bool = False) -> tuple[Tensor, ...]:
        """Rows, lists and bits, with the places of relative numbers."""
        plan = self.plan
        lists = (plan.t_ptr, plan.t_row, plan.t_slot) if transposed else (plan.ptr, plan.col, plan.slot)
        soft = plan.bits if plan.soft is None else plan.soft
        places = (self.bias.q_place, self.bias.k_place, self.times.q_place, self.times.k_place)
        return (plan.q_rows, plan.k_rows, *lists, plan.bits, soft, *places)


def span(x: Tensor) -> int:
    """How far the elements of one batch entry and head lie apart in memory."""
    return sum((size - 1) * step for size, step in zip(x.shape[-2:], x.stride()[-2:], strict=True))


def split_pairs(pairs: Weights | None, q_len: int, k_len: int) -> tuple[Tensor | None, str]:
    """A tensor of four axes and the window of a table as text, empty for a dense tensor."""
    if isinstance(pairs, RelativeBias):
        return pairs.whole(), ",".join(map(str, pairs.window))
    return (None if pairs is None else pairs.expand(*pairs.shape[:2], q_len, k_len)), ""


def _prepare_pairs(values: Tensor | None, window: str, pattern: Pattern, q: Tensor, k_len: int) -> Pairs:
    place = q.new_zeros(1, dtype=torch.int32)
    if values is None:
        return Pairs(0, q, (0, 0, 0, 0), place, place)
    b, h, i, j = (step if size > 1 else 0 for step, size in zip(values.stride(), values.shape, strict=True))
    if not window:
        return Pairs(1, values, (b, h, i, j), place, place)
    if values.stride(3) != 1:
        return _prepare_pairs(values.contiguous(), window, pattern, q, k_len)
    here, there = flat_places(pattern, tuple(map(int, window.split(","))), q.shape[2], k_len, q.device)
    return Pairs(2, values, (b, h, i, values.shape[3]), here.int(), there.int())


def prepare(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    times: Tensor | None,
    tensors: Sequence[Tensor],
    text: str,
    windows: str,
    flat: bool,
) -> Launch:
    """Plan, settings and pairs of one call; see :func:`graphrec.kernels.attention.triton.tile_attention`."""
    pattern = decode(text, tensors)
    config = attention_config(max(q.shape[3], v.shape[3]), q.dtype, interpreting())
    plan = plan_of(pattern, text, tensors, (q.shape[2], k.shape[2], config.bm, config.bn), q.device)
    both = [
        _prepare_pairs(one, window, pattern, q, k.shape[2])
        for one, window in zip((bias, times), windows.split(";"), strict=True)
    ]
    return Launch(plan, config, both[0], both[1], 0.0 if flat else pattern.penalty_value)


_KEPT = 8
_lock = Lock()
_recent: OrderedDict[tuple[Any, ...], tuple[tuple[Tensor, ...], TilePlan]] = OrderedDict()


def plan_of(
    pattern: Pattern,
    text: str,
    tensors: Sequence[Tensor],
    sizes: tuple[int, int, int, int],
    device: torch.device,
) -> TilePlan:
    """The pattern's tile plan; for patterns that hold tensors the last few are kept.

    So the backward finds the plan of its forward, and layers that share a pattern share its plan. The tensors
    are recognised by place and version, and kept alive for as long as the plan is, so that neither another
    tensor nor a change by an operation of torch is taken for the same.
    """
    if pattern.static or any(one.is_inference() for one in tensors):
        return pattern.tiles(*sizes, device)
    marks = tuple((one.data_ptr(), one._version, one.shape, one.stride(), one.dtype) for one in tensors)
    key = (text, sizes, device, marks)
    with _lock:
        if key in _recent:
            _recent.move_to_end(key)
            return _recent[key][1]
    plan = pattern.tiles(*sizes, device)
    with _lock:
        _recent[key] = tuple(tensors), plan
        while len(_recent) > _KEPT:
            _recent.popitem(last=False)
    return plan
