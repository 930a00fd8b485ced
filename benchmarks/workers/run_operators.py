"""Graph operators and dynamic convolution on a CPU, ours and plain torch, interleaved in this one process.

Settings: ``case`` picks a function of ``CASES``; the rest are its sizes. Every step is a forward and the
gradients of all inputs; outputs and gradients are held against float64 before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from meter import finish, settings
from run_attention import check, measured
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import CSR, dynamic_conv2d, edge_attention, edge_softmax, outlook, sddmm, spmm

Form = Callable[..., Tensor]
OURS = "graphrec"
Made = tuple[dict[str, Form], list[Tensor]]
"""Contenders by name, and what they are called with."""


def draw(case: dict[str, Any]) -> CSR:
    """A graph of uniformly drawn edges, its transpose made before the clock starts."""
    nodes, edges = case["nodes"], case["edges"]
    ends = torch.randint(0, nodes, (2, edges))
    graph = CSR.from_edges(ends[0], ends[1], nodes, nodes)[0]
    assert graph.transpose[0].rows == nodes
    return graph


def added(graph: CSR, messages: Tensor) -> Tensor:
    """Sum of one row per edge for every node."""
    return messages.new_zeros(graph.rows, *messages.shape[1:]).index_add(0, graph.row, messages)


def scattered_softmax(graph: CSR, scores: Tensor) -> Tensor:
    """Softmax over the edges of a node by scattering maxima and sums."""
    place = graph.row.unsqueeze(1).expand_as(scores)
    high = scores.new_full((graph.rows, scores.shape[1]), -torch.inf)
    high = high.scatter_reduce(0, place, scores.detach(), "amax")
    weights = (scores - high[graph.row]).exp()
    return weights / added(graph, weights)[graph.row]


def sums(case: dict[str, Any]) -> Made:
    """Weighted sums of neighbours."""
    graph, dim = draw(case), case["dim"]
    forms: dict[str, Form] = {
        OURS: lambda x, w: spmm(graph, x, w),
        "index_add": lambda x, w: added(graph, w.unsqueeze(1) * x[graph.index]),
    }
    return forms, [torch.randn(graph.columns, dim), torch.rand(graph.edges)]


def plain_sums(case: dict[str, Any]) -> Made:
    """Sums of neighbours."""
    graph, dim = draw(case), case["dim"]
    forms: dict[str, Form] = {
        OURS: lambda x: spmm(graph, x),
        "index_add": lambda x: added(graph, x[graph.index]),
    }
    return forms, [torch.randn(graph.columns, dim)]


def maxima(case: dict[str, Any]) -> Made:
    """Largest of the neighbours."""
    graph, dim = draw(case), case["dim"]

    def scattered(x: Tensor) -> Tensor:
        place = graph.row.unsqueeze(1).expand(-1, dim)
        out = x.new_zeros(graph.rows, dim)
        return out.scatter_reduce(0, place, x[graph.index], "amax", include_self=False)

    return {OURS: lambda x: spmm(graph, x, reduce="max"), "scatter_reduce": scattered}, [
        torch.randn(graph.columns, dim)
    ]


def softmax(case: dict[str, Any]) -> Made:
    """Softmax over the edges of every node."""
    graph = draw(case)
    forms: dict[str, Form] = {
        OURS: lambda scores: edge_softmax(graph, scores),
        "scatter": lambda scores: scattered_softmax(graph, scores),
    }
    return forms, [torch.randn(graph.edges, case["heads"])]


def products(case: dict[str, Any]) -> Made:
    """A product per edge."""
    graph, dim = draw(case), case["dim"]
    forms: dict[str, Form] = {
        OURS: lambda a, b: sddmm(graph, a, b),
        "gather": lambda a, b: (a[graph.row] * b[graph.index]).sum(-1),
    }
    return forms, [torch.randn(graph.rows, dim), torch.randn(graph.columns, dim)]


def graph_attention(case: dict[str, Any]) -> Made:
    """Attention of every node to its neighbours."""
    graph, heads, dim = draw(case), case["heads"], case["dim"]

    def composed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q[graph.row] * k[graph.index]).sum(-1) * dim**-0.5
        return added(graph, scattered_softmax(graph, scores).unsqueeze(-1) * v[graph.index])

    forms: dict[str, Form] = {
        OURS: lambda q, k, v: edge_attention(graph, q, k, v),
        "gather, scatter, index_add": composed,
    }
    return forms, [torch.randn(graph.rows, heads, dim) for _ in range(3)]


def convolution(case: dict[str, Any]) -> Made:
    """Dynamic convolution with zeros at the border."""
    batch, channels, groups, side, kernel = (
        case[key] for key in ("batch", "channels", "groups", "side", "kernel")
    )

    def unfolded(x: Tensor, weight: Tensor) -> Tensor:
        windows = F.unfold(x, kernel, padding=kernel // 2)
        windows = windows.view(batch, groups, channels // groups, kernel**2, side, side)
        return torch.einsum("bgmthw,bgthw->bgmhw", windows, weight).flatten(1, 2)

    x, weight = torch.randn(batch, channels, side, side), torch.randn(batch, groups, kernel**2, side, side)
    if case["channels_last"]:
        x = x.contiguous(memory_format=torch.channels_last)
    return {OURS: lambda x, w: dynamic_conv2d(x, w, kernel_size=kernel), "unfold and einsum": unfolded}, [
        x,
        weight,
    ]


def looking_out(case: dict[str, Any]) -> Made:
    """Outlook attention from its weights, in the order of its authors' code."""
    batch, channels, groups, side, kernel = (
        case[key] for key in ("batch", "channels", "groups", "side", "kernel")
    )
    small = -(-side // case["stride"])
    options = {"padding": kernel // 2, "stride": case["stride"]}

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        ordered = weight.permute(0, 1, 3, 4, 2).unflatten(-1, (small, small))
        return outlook(x, ordered, kernel_size=kernel, **options)

    def folded(x: Tensor, weight: Tensor) -> Tensor:
        windows = F.unfold(x, kernel, **options).view(batch, groups, -1, kernel**2, small**2)
        out = weight @ windows.permute(0, 1, 4, 3, 2)
        out = out.permute(0, 1, 4, 3, 2).reshape(batch, -1, small**2)
        return F.fold(out, x.shape[2:], kernel, **options)

    weight = torch.randn(batch, groups, small**2, kernel**2, kernel**2).softmax(-1)
    return {OURS: ours, "unfold, matmul, fold": folded}, [torch.randn(batch, channels, side, side), weight]


CASES: dict[str, Callable[[dict[str, Any]], Made]] = {
    "sums": sums,
    "plain sums": plain_sums,
    "maxima": maxima,
    "softmax": softmax,
    "products": products,
    "attention": graph_attention,
    "convolution": convolution,
    "outlook": looking_out,
}


def stepper(form: Form, inputs: list[Tensor], weight: Tensor) -> Callable[[], list[Tensor]]:
    """A forward and the gradients of all inputs."""

    def step() -> list[Tensor]:
        out = form(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs, weight)]

    return step


def main() -> None:
    """One case: check, then time all contenders."""
    given = settings()
    torch.set_num_threads(given["threads"])
    torch.manual_seed(0)
    dtype = getattr(torch, given["dtype"])
    forms, drawn = CASES[given["case"]](given)
    inputs = [one.to(dtype).requires_grad_() for one in drawn]
    with torch.no_grad():
        weight = torch.randn_like(forms[OURS](*inputs))
    exact = [one.detach().double().requires_grad_() for one in inputs]
    truth = stepper(next(form for name, form in forms.items() if name != OURS), exact, weight.double())()
    steps = {name: stepper(form, inputs, weight) for name, form in forms.items()}
    for name, step in steps.items():
        check(step(), truth, dtype, name)
    finish(["torch", "graphrec"], runs=measured(steps, given["repeats"], least=0.1))


if __name__ == "__main__":
    main()
