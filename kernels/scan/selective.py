"""What the backends of the selective scan share: its inputs, and its registration with torch.

A backend brings a forward and a backward. Between them it keeps the inputs and the states in front of some
positions, from which the backward computes the others again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..registering import operator
from .reference import selective_scan as formula
from .torch import scan as chunked


class Inputs(NamedTuple):
    """The tensors of :func:`graphrec.kernels.selective_scan`, in its order."""

    u: Tensor
    delta: Tensor
    decay: Tensor
    read_in: Tensor
    read_out: Tensor
    skip: Tensor | None
    gate: Tensor | None
    state: Tensor | None


Forward = Callable[[Inputs, bool], tuple[Tensor, Tensor, Tensor]]
"""Output (B, T, D), final state (B, D, N) of :func:`state_dtype`, and the states to keep."""

Backward = Callable[[Tensor, Tensor, Inputs, Tensor, bool], tuple[Tensor | None, ...]]
"""From both gradients, the inputs and the kept states: that of every input, None where there is none."""


def state_dtype(u: Tensor) -> torch.dtype:
    """States are float32 at least: they add up over a whole sequence."""
    return torch.promote_types(u.dtype, torch.float32)


def register(
    name: str, forward: Forward, backward: Backward, kept: Callable[[Tensor, Tensor], tuple[int, ...]]
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Make a torch operator ``graphrec::name`` of a forward and a backward.

    Args:
        name: of the operator.
        forward, backward: the computation.
        kept: the shape of the kept states for ``u`` and ``decay``.
    """

    @operator(f"graphrec::{name}")
    def run(
        u: Tensor, delta: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor,
        skip: Tensor | None, gate: Tensor | None, state: Tensor | None, reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        return forward(Inputs(u, delta, decay, read_in, read_out, skip, gate, state), reverse)

    @run.register_fake
    def _(
        u: Tensor, delta: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor,
        skip: Tensor | None, gate: Tensor | None, state: Tensor | None, reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        dtype = state_dtype(u)
        final = torch.empty(u.shape[0], *decay.shape, dtype=dtype, device=u.device)
        starts = torch.empty(kept(u, decay), dtype=dtype, device=u.device)
        return torch.empty(u.shape, dtype=u.dtype, device=u.device), final, starts

    run_backward = _register_backward(f"{name}_backward", backward)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *given, ctx.reverse = inputs
        ctx.save_for_backward(*given, output[2])
        ctx.set_materialize_grads(False)

    def differentiate(
        ctx: Any, grad: Tensor | None, grad_final: Tensor | None, _: Tensor | None
    ) -> tuple[Any, ...]:
        *given, starts = ctx.saved_tensors
        u, decay = given[0], given[2]
        grad = torch.zeros_like(u) if grad is None else grad
        if grad_final is None:
            grad_final = u.new_zeros(u.shape[0], *decay.shape, dtype=state_dtype(u))
        found = run_backward(grad, grad_final, *given, starts, ctx.reverse)
        return *(None if x is None else one for x, one in zip(given, found, strict=True)), None

    run.register_autograd(differentiate, setup_context=setup)
    return run


Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _register_backward(name: str, backward: Backward) -> Callable[..., Eight]:
    @operator(f"graphrec::{name}")
    def run(
        grad: Tensor, grad_final: Tensor,
        u: Tensor, delta: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor,
        skip: Tensor | None, gate: Tensor | None, state: Tensor | None, starts: Tensor, reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        given = Inputs(u, delta, decay, read_in, read_out, skip, gate, state)
        found = backward(grad, grad_final, given, starts, reverse)
        made = [
            u.new_empty(0) if x is None or one is None else one.to(x.dtype)
            for x, one in zip(given, found, strict=True)
        ]
        return tuple(made)  # type: ignore[return-value]

    @run.register_fake
    def _(
        grad: Tensor, grad_final: Tensor,
        u: Tensor, delta: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor,
        skip: Tensor | None, gate: Tensor | None, state: Tensor | None, starts: Tensor, reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        given = (u, delta, decay, read_in, read_out, skip, gate, state)
        made = [
            u.new_empty(0) if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
            for x in given
        ]
        return tuple(made)  # type: ignore[return-value]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Eight) -> None:
        *given, _, ctx.reverse = inputs
        ctx.save_for_backward(*given)

    run.register_autograd(_second, setup_context=setup)
    return run


def _second(ctx: Any, *incoming: Tensor) -> tuple[Any, ...]:
    """Second derivatives, through the formula: they hold all states."""
    saved = ctx.saved_tensors
    with torch.enable_grad():
        leaves = [None if one is None else one.detach().requires_grad_() for one in saved]
        grads, given = leaves[:2], leaves[2:]
        outputs = formula(*given, ctx.reverse, recurrence=chunked)  # type: ignore[arg-type, call-arg, misc]
        real = [one for one in given if one is not None]
        first = torch.autograd.grad(
            outputs, real, grads, create_graph=True, allow_unused=True, materialize_grads=True
        )
        weights = [one for one, x in zip(incoming, given, strict=True) if x is not None]
        wanted = [one for one in leaves if one is not None]
        found = iter(torch.autograd.grad(first, wanted, weights, allow_unused=True))
    return *(None if one is None else next(found) for one in leaves), None, None
