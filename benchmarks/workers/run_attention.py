"""Attention on a CPU, ours and the alternatives, interleaved in this one process; and its peak memory.

Settings: task "time" or "memory", pattern, grid, kernel, dtype, heads, dim; see ``make`` and ``main``. Every
contender starts from the same projection (1, L, 3 * heads * dim) and ends in (1, L, heads * dim), so that
layouts count for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from meter import finish, settings, status_mb
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import RelativeBias, attention, split_heads
from graphrec.kernels.patterns import Neighborhood, Pattern, Windows

Form = Callable[[Tensor], Tensor]
OURS, MASKED, NATTEN = "graphrec", "fused attention with a mask", "NATTEN"
WINDOWED, WINDOWED_FUSED = "timm's window attention", "timm's, with fused attention"


def pattern_of(case: dict[str, Any]) -> Pattern:
    """The pattern under test."""
    grid, kernel = (case["grid"],) * 2, case["kernel"]
    if case["pattern"] == "neighborhood":
        return Neighborhood(grid, kernel)
    return Windows(grid, kernel, shift=case["shift"], border="-100" if case["shift"] else "mask")


def heads_of(x: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (1, H, L, D) as views of a projection (1, L, 3HD)."""
    q, k, v = x.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def ours(case: dict[str, Any], table: Tensor | None) -> Form:
    """graphrec's attention."""
    pattern, size = pattern_of(case), (case["kernel"],) * 2

    def form(x: Tensor) -> Tensor:
        bias = None if table is None else RelativeBias(table.to(x.dtype), size)
        return attention(*split_heads(x, case["heads"]), pattern, bias=bias).transpose(1, 2).flatten(2)

    return form


def masked(case: dict[str, Any], table: Tensor | None) -> Form:
    """torch's fused attention over all pairs, hidden ones masked; the mask is made once."""
    length = case["grid"] ** 2
    pattern = pattern_of(case)
    seen = pattern.mask(length, length)

    def form(x: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(*heads_of(x, case["heads"]), attn_mask=seen)
        return out.transpose(1, 2).flatten(2)

    return form


class Windowed:
    """The arithmetic of timm's Swin block between its projections: roll, cut, attend with bias, undo.

    ``WindowAttention`` of timm 1.0.31 takes the unfused form by default; ``fused`` is its other branch.
    """

    def __init__(self, case: dict[str, Any], table: Tensor | None, fused: bool) -> None:
        self.heads, self.grid, self.side = case["heads"], case["grid"], case["kernel"]
        self.shift, self.fused, self.table = case["shift"], fused, table
        place = torch.stack(torch.meshgrid(*[torch.arange(self.side)] * 2, indexing="ij")).flatten(1)
        steps = place[:, :, None] - place[:, None] + self.side - 1
        self.index = steps[0] * (2 * self.side - 1) + steps[1]
        self.mask = self._mask() if self.shift else None

    def _mask(self) -> Tensor:
        """0 or -100 per window and pair of positions, by the region that a position was rolled from."""
        region = (torch.arange(self.grid) >= self.grid - self.side).long()
        region += torch.arange(self.grid) >= self.grid - self.shift
        parts = self._cut((region[:, None] * 3 + region).view(1, -1, 1)).squeeze(-1)
        return torch.where(parts[:, :, None] == parts[:, None], 0.0, -100.0)

    def _cut(self, x: Tensor) -> Tensor:
        """(1, L, C) to (windows, positions, C)."""
        count = self.grid // self.side
        split = x.view(count, self.side, count, self.side, -1).transpose(1, 2)
        return split.reshape(count**2, self.side**2, -1)

    def _join(self, x: Tensor) -> Tensor:
        count = self.grid // self.side
        return x.view(count, count, self.side, self.side, -1).transpose(1, 2).reshape(1, self.grid**2, -1)

    def _roll(self, x: Tensor, shift: int) -> Tensor:
        if not shift:
            return x
        return x.view(1, self.grid, self.grid, -1).roll((shift, shift), (1, 2)).view(x.shape)

    def __call__(self, x: Tensor) -> Tensor:
        windows = self._cut(self._roll(x, -self.shift))
        q, k, v = windows.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        term = None
        if self.table is not None:
            term = self.table.to(x.dtype)[:, self.index].unsqueeze(0)
        if self.mask is not None:
            mask = self.mask.to(x.dtype).unsqueeze(1)
            term = mask if term is None else term + mask
        out = self._fused(q, k, v, term) if self.fused else self._plain(q, k, v, term)
        return self._roll(self._join(out.transpose(1, 2).flatten(2)), self.shift)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, term: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=term)

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, term: Tensor | None) -> Tensor:
        logits = (q * q.shape[-1] ** -0.5) @ k.mT
        return (logits if term is None else logits + term).softmax(-1) @ v


def natten(case: dict[str, Any], _: Tensor | None) -> Form:
    """NATTEN's neighborhood attention, (1, X, Y, H, D)."""
    from natten import na2d

    def form(x: Tensor) -> Tensor:
        split = x.view(1, case["grid"], case["grid"], 3, case["heads"], -1)
        return na2d(*split.unbind(3), kernel_size=case["kernel"]).reshape(1, case["grid"] ** 2, -1)

    return form


def make(case: dict[str, Any], name: str, table: Tensor | None) -> Form:
    """A contender by name."""
    if name in (WINDOWED, WINDOWED_FUSED):
        return Windowed(case, table, name == WINDOWED_FUSED)
    return {OURS: ours, MASKED: masked, NATTEN: natten}[name](case, table)


def stepper(form: Form, x: Tensor, table: Tensor | None, weight: Tensor, backward: bool) -> Callable[[], Any]:
    """A forward pass, with the gradients of the projection and of the table if asked for."""
    leaves = [x] if table is None else [x, table]

    def step() -> list[Tensor]:
        if not backward:
            with torch.no_grad():
                return [form(x.detach())]
        out = form(x)
        return [out.detach(), *torch.autograd.grad(out, leaves, weight)]

    return step


def check(found: list[Tensor], truth: list[Tensor], dtype: torch.dtype, name: str) -> None:
    """Stop when numbers differ by more than rounding: there is nothing to time then."""
    limit = 1e-4 if dtype == torch.float32 else 0.03
    for one, other in zip(found, truth, strict=True):
        error = float((one.double() - other.double()).norm() / other.double().norm())
        if not error <= limit:
            raise ArithmeticError(f"{name} differs from float64 by {error:.2e}, more than {limit}")


def measured(steps: dict[str, Callable[[], Any]], repeats: int, least: float) -> dict[str, list[float]]:
    """CPU milliseconds of each contender, one after the other in every round."""
    loops = {}
    for name, step in steps.items():
        step()
        start = time.process_time()
        step()
        loops[name] = max(1, round(least / max(time.process_time() - start, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(loops[name]):
                step()
            found[name].append((time.process_time() - start) / loops[name] * 1e3)
    return found


def inputs(case: dict[str, Any]) -> tuple[Tensor, Tensor | None, Tensor]:
    """Projection, bias table or None, and the gradient of the output."""
    torch.manual_seed(0)
    length, width = case["grid"] ** 2, case["heads"] * case["dim"]
    x = torch.randn(1, length, 3 * width, requires_grad=True)
    columns = (2 * case["kernel"] - 1) ** 2
    table = torch.randn(case["heads"], columns, requires_grad=True) if case["bias"] else None
    return x, table, torch.randn(1, length, width)


def time_all(case: dict[str, Any]) -> dict[str, Any]:
    """Check, then time all contenders of a case."""
    dtype = getattr(torch, case["dtype"])
    x, table, weight = inputs(case)
    given = x.detach().to(dtype).requires_grad_()
    wide = x.detach().to(dtype).double().requires_grad_()
    wide_table = None if table is None else table.detach().to(dtype).double().requires_grad_()
    exact = make(case, case["exact"], wide_table)
    truth = stepper(exact, wide, wide_table, weight.double(), case["backward"])()
    steps = {}
    for name in case["contenders"]:
        steps[name] = stepper(make(case, name, table), given, table, weight.to(dtype), case["backward"])
        check(steps[name](), truth, dtype, name)
    return {"runs": measured(steps, case["repeats"], case["least"])}


def memory(case: dict[str, Any]) -> dict[str, Any]:
    """What forward and backward add to the peak of a fresh process."""
    x, table, weight = inputs(case)
    warm = {**case, "grid": case["kernel"]}
    warm_x, _, warm_weight = inputs(warm)
    stepper(make(warm, OURS, None), warm_x, None, warm_weight, True)()  # what torch loads on first use
    before = status_mb("VmHWM")
    stepper(make(case, case["contenders"][0], table), x, table, weight, True)()
    after = status_mb("VmHWM")
    return {"added_mb": round(after - before, 1), "peak_mb": round(after, 1)}


def main() -> None:
    """One case."""
    given = settings()
    torch.set_num_threads(given["threads"])
    found = (memory if given["task"] == "memory" else time_all)(given)
    finish(["torch", "graphrec", *(["natten"] if NATTEN in given["contenders"] else [])], **found)


if __name__ == "__main__":
    main()
