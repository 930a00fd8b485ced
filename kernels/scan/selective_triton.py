"""The selective scan on CUDA: launches of :mod:`.selective_kernels`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import interpreting
from .selective import Inputs, register
from .settings import ScanConfig, selective_config
from .triton import states as scan_states


class _Launch:
    """Sizes of one call in the order of the kernels' arguments, and their constants."""

    def __init__(self, given: Inputs, reverse: bool) -> None:
        batch, length, width = given.u.shape
        config: ScanConfig = selective_config(width, interpreting())
        self.batch, self.inner, self.width = batch, given.decay.shape[1], width
        self.chunks, self.blocks = -(-length // config.bt), config.blocks(width)
        self.sizes = (length, width, self.inner, self.blocks, self.chunks)
        self.grid = (batch * self.chunks * self.blocks,)
        self.settings = {"BACK": reverse, "BT": config.bt, "BD": config.bd, "num_warps": config.warps}
        self.options = {"SKIP": given.skip is not None, "GATE": given.gate is not None}
        self.rate = given.decay.float().t().contiguous()  # [N, D]
        self.gate = given.u if given.gate is None else given.gate
        self.skip = given.u if given.skip is None else given.skip.contiguous()

    def make(self, *shape: int) -> Tensor:
        """Fresh float32 memory."""
        return torch.empty(shape, dtype=torch.float32, device=self.rate.device)

    def between(self, decay: Tensor, end: Tensor, border: Tensor, back: bool) -> Tensor:
        """(B, chunks + 1, N, D): in front of all chunks and behind the last, from (B, N, D) at a border."""
        made = scan_states(decay.flatten(2), end.flatten(2), border.flatten(1), back).view(end.shape)
        parts = [made, border.unsqueeze(1)] if back else [border.unsqueeze(1), made]
        return torch.cat(parts, 1)


def _turned(state: Tensor | None, launch: _Launch) -> Tensor:
    """States (B, D, N) as the kernels keep them, (B, N, D) float32; zeros for None."""
    if state is None:
        return torch.zeros(launch.batch, launch.inner, launch.width, device=launch.rate.device)
    return state.float().mT.contiguous()


def _owned(x: Tensor) -> Tensor:
    """A contiguous copy in memory of its own, as an operator's output has to be."""
    return x.clone(memory_format=torch.contiguous_format)


def _forward(given: Inputs, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    from . import selective_kernels

    launch = _Launch(given, reverse)
    u, delta, b, c = given.u, given.delta, given.read_in, given.read_out
    decay, end = (launch.make(launch.batch, launch.chunks, launch.inner, launch.width) for _ in "12")
    selective_kernels.chunk_ends[launch.grid](
        u, delta, launch.rate, b, decay, end,
        *u.stride(), *delta.stride(), *b.stride(), *launch.sizes, **launch.settings,
    )  # fmt: skip
    starts = launch.between(decay, end, _turned(given.state, launch), False)
    out = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    selective_kernels.forward[launch.grid](
        u, delta, launch.rate, b, c, launch.skip, launch.gate, starts, out,
        *u.stride(), *delta.stride(), *b.stride(), *c.stride(), *launch.gate.stride(), *launch.sizes,
        **launch.options, **launch.settings,
    )  # fmt: skip
    return out, _owned(starts[:, -1].mT), starts


def _backward(
    grad: Tensor, grad_final: Tensor, given: Inputs, starts: Tensor, reverse: bool
) -> tuple[Tensor, ...]:
    from . import selective_kernels

    launch = _Launch(given, reverse)
    u, delta, b, c, gate = given.u, given.delta, given.read_in, given.read_out, launch.gate
    grad = grad.contiguous()
    states = (launch.batch, launch.chunks, launch.inner, launch.width)
    decay, end = launch.make(*states), launch.make(*states)
    selective_kernels.grad_ends[launch.grid](
        grad, delta, launch.rate, c, gate, decay, end,
        *delta.stride(), *c.stride(), *gate.stride(), *launch.sizes,
        GATE=launch.options["GATE"], **launch.settings,
    )  # fmt: skip
    arriving = launch.between(decay, end, _turned(grad_final, launch), True)
    du, ddelta, dgate = (torch.empty(one.shape, dtype=one.dtype, device=u.device) for one in (u, delta, gate))
    drate, dskip = launch.make(*states), launch.make(launch.batch, launch.chunks, launch.width)
    sums = (launch.blocks, *b.shape)
    db, dc = launch.make(*sums), launch.make(*sums)
    selective_kernels.gradients[launch.grid](
        grad, u, delta, launch.rate, b, c, launch.skip, gate, starts, arriving,
        du, ddelta, drate, db, dc, dskip, dgate,
        *u.stride(), *delta.stride(), *b.stride(), *c.stride(), *gate.stride(), *launch.sizes, launch.batch,
        **launch.options, **launch.settings,
    )  # fmt: skip
    first = _owned(arriving[:, 0].mT)
    return (
        du,
        ddelta,
        drate.sum((0, 1)).t().contiguous(),
        db.sum(0),
        dc.sum(0),
        dskip.sum((0, 1)),
        dgate,
        first,
    )


def _kept(u: Tensor, decay: Tensor) -> tuple[int, ...]:
    steps = selective_config(u.shape[2], interpreting()).bt
    return u.shape[0], -(-u.shape[1] // steps) + 1, decay.shape[1], decay.shape[0]


tile_selective_scan = register("tile_selective_scan", _forward, _backward, _kept)
