"""Attention among fields: CPU milliseconds of forward and backward, contenders in turn in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from meter import finish, settings
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import field_attention, interacting_layer

given = settings()
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Error relative to float64 from which a contender is wrong and its time worth nothing."""


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's own attention."""
    return F.scaled_dot_product_attention(q, k, v)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Product, softmax and product."""
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1) @ v


def layer(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The interacting layer around an attention, of torch operations."""

    def run(x: Tensor, weight: Tensor) -> Tensor:
        projected = torch.relu(F.linear(x, weight)).unflatten(-1, (4, given["heads"], given["dim"]))
        q, k, v, rest = (part.transpose(1, 2) for part in projected.unbind(2))
        return torch.relu(attend(q, k, v) + rest).transpose(1, 2).flatten(2)

    return run


def ours(x: Tensor, weight: Tensor) -> Tensor:
    """The same by one operator."""
    return interacting_layer(x, weight, heads=given["heads"], rectify=True)


CONTENDERS: dict[str, dict[str, Callable[..., Tensor]]] = {
    "field_attention": {"graphrec": field_attention, "sdpa": fused, "bmm": plain},
    "interacting_layer": {"graphrec": ours, "sdpa": layer(fused), "bmm": layer(plain)},
}


def inputs() -> list[Tensor]:
    """q, k and v; or field vectors as wide as the layer, and its weight."""
    batch, fields, heads, dim = (given[name] for name in ("batch", "fields", "heads", "dim"))
    if given["operator"] == "field_attention":
        return [torch.randn(batch, heads, fields, dim) for _ in range(3)]
    width = heads * dim
    return [torch.randn(batch, fields, width), torch.randn(4 * width, width) * width**-0.5]


def step(run: Callable[..., Tensor], tensors: list[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
    """Output and gradients."""
    out = run(*tensors)
    return out, *torch.autograd.grad(out, tensors, weight)


def check(contenders: dict[str, Callable[..., Tensor]], tensors: list[Tensor], weight: Tensor) -> None:
    """Compare every contender on the first rows with the plain form in float64."""
    rows = [one[:64] if len(one) == given["batch"] else one for one in tensors]
    exact = [one.detach().double().requires_grad_() for one in rows]
    truth = step(contenders["bmm"], exact, weight[:64].double())
    for name, run in contenders.items():
        leaves = [one.detach().requires_grad_() for one in rows]
        for found, want in zip(step(run, leaves, weight[:64]), truth, strict=True):
            error = float((found.detach().double() - want.detach()).norm() / want.detach().norm())
            assert error < TOLERANCE[weight.dtype], f"{name}: error {error:.1e}"


def main() -> None:
    """Check, warm up, and time in turn."""
    torch.set_num_threads(given["threads"])
    torch.manual_seed(0)
    dtype = getattr(torch, given["dtype"])
    contenders = CONTENDERS[given["operator"]]
    tensors = [one.to(dtype).requires_grad_() for one in inputs()]
    weight = torch.randn_like(contenders["graphrec"](*tensors))
    check(contenders, tensors, weight)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(given["rounds"] + 1):
        for name, run in contenders.items():
            start = time.process_time()
            step(run, tensors, weight)
            if turn:
                times[name].append(1000 * (time.process_time() - start))
    middle = {name: round(statistics.median(values), 1) for name, values in times.items()}
    finish(["torch", "graphrec"], **middle)


main()
