"""What the attention kernels are launched with: plan, settings, and numbers per pair."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import interpreting
from ..configs import AttentionConfig, attention_config, padded
from ..patterns import Pattern, TilePlan, decode
from ..remembered import kept
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
    """What every kernel of one call needs; ``settings`` are their constant arguments."""

    plan: TilePlan
    config: AttentionConfig
    bias: Pairs
    times: Pairs
    penalty: float
    settings: dict[str, Any]

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


class Layout(NamedTuple):
    """How a tensor lies in memory: all that a launch depends on, but for its numbers."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def span(self) -> int:
        """How far the elements of one batch entry and head lie apart."""
        last = zip(self.shape[-2:], self.stride[-2:], strict=True)
        return sum((size - 1) * step for size, step in last)


def layout(x: Tensor) -> Layout:
    """A tensor's layout."""
    return Layout(x.shape, x.stride(), x.dtype)


Layouts = tuple[Layout, Layout, Layout, Layout | None, Layout | None]
"""Of q, k, v, bias and times."""


class Places(NamedTuple):
    """Of numbers per pair, all but the numbers."""

    kind: int
    steps: tuple[int, int, int, int]
    q_place: Tensor
    k_place: Tensor

    def of(self, values: Tensor) -> Pairs:
        """The pairs whose numbers are ``values``."""
        return Pairs(self.kind, values, self.steps, self.q_place, self.k_place)


def _places(
    values: Layout | None, window: str, pattern: Pattern, lengths: tuple[int, int], device: torch.device
) -> Places:
    nowhere = torch.zeros(1, dtype=torch.int32, device=device)
    if values is None:
        return Places(0, (0, 0, 0, 0), nowhere, nowhere)
    b, h, i, j = (step if size > 1 else 0 for step, size in zip(values.stride, values.shape, strict=True))
    if not window:
        return Places(1, (b, h, i, j), nowhere, nowhere)
    here, there = flat_places(pattern, tuple(map(int, window.split(","))), *lengths, device)
    return Places(2, (b, h, i, values.shape[3]), here.int(), there.int())


def _constants(
    plan: TilePlan, config: AttentionConfig, layouts: Layouts, kinds: tuple[int, int], penalty: float
) -> dict[str, Any]:
    q, _, v, *_ = layouts
    return {
        "BIAS": kinds[0],
        "TIMES": kinds[1],
        "SOFT": plan.soft is not None and penalty != 0,
        "BM": config.bm,
        "BN": config.bn,
        "BD": padded(q.shape[3]),
        "BE": padded(v.shape[3]),
        "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32",
        "INTERPRET": interpreting(),
        "WIDE": any(one.span >= 1 << 31 for one in layouts if one is not None),
        "num_warps": config.warps,
        "num_stages": config.stages,
    }


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
    """Plan, settings and pairs of one call; see :func:`graphrec.kernels.attention.triton.tile_attention`.

    For a pattern that is a value everything but the numbers of ``bias`` and ``times`` is remembered.
    """
    bias, times = (
        one.contiguous() if one is not None and window and one.stride(3) != 1 else one
        for one, window in zip((bias, times), windows.split(";"), strict=True)
    )
    layouts = (
        layout(q), layout(k), layout(v),
        None if bias is None else layout(bias), None if times is None else layout(times),
    )  # fmt: skip
    config = attention_config(max(q.shape[3], v.shape[3]), q.dtype, interpreting())
    if tensors:
        made = _prepared(config, layouts, tensors, text, windows, flat, q.device)
    else:
        made = _remembered(config, layouts, text, windows, flat, q.device)
    plan, pairs, penalty, settings = made
    of_bias, of_times = (
        one.of(q if values is None else values) for one, values in zip(pairs, (bias, times), strict=True)
    )
    return Launch(plan, config, of_bias, of_times, penalty, settings)


Prepared = tuple[TilePlan, tuple[Places, Places], float, dict[str, Any]]


def _prepared(
    config: AttentionConfig,
    layouts: Layouts,
    tensors: Sequence[Tensor],
    text: str,
    windows: str,
    flat: bool,
    device: torch.device,
) -> Prepared:
    pattern, lengths = decode(text, tensors), (layouts[0].shape[2], layouts[1].shape[2])
    plan = plan_of(pattern, text, tensors, (*lengths, config.bm, config.bn), device)
    first, second = (
        _places(one, window, pattern, lengths, device)
        for one, window in zip(layouts[3:], windows.split(";"), strict=True)
    )
    penalty = 0.0 if flat else pattern.penalty_value
    settings = _constants(plan, config, layouts, (first.kind, second.kind), penalty)
    return plan, (first, second), penalty, settings


@lru_cache(maxsize=256)
@kept
def _remembered(
    config: AttentionConfig, layouts: Layouts, text: str, windows: str, flat: bool, device: torch.device
) -> Prepared:
    return _prepared(config, layouts, (), text, windows, flat, device)


def row_products(grad: Tensor, out: Tensor, lse_grad: Tensor | None) -> Tensor:
    """What the gradient of every logit of a query subtracts, float32 (B, H, Lq).

    Args:
        grad: of the output, (B, H, Lq, Dv), contiguous.
        out: the output, likewise.
        lse_grad: of the log-sum-exp, (B, H, Lq) float32, or None.
    """
    from . import triton_kernels

    delta = torch.empty(out.shape[:3], dtype=torch.float32, device=out.device)
    rows, width = delta.numel(), out.shape[3]
    if rows:
        held = delta if lse_grad is None else lse_grad.contiguous()
        size = padded(width)
        count = max(16, 4096 // size)
        triton_kernels.row_products[(-(-rows // count),)](
            grad, out, held, delta, rows, width, HAS_LSE=lse_grad is not None, BM=count, BE=size
        )
    return delta


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
