"""One small call of every operator: what ``graphrec doctor`` asks about and what tests go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .attention import attention, gather_attention, joint_attention, merge, select_blocks, split_heads
from .conv import causal_conv1d, dynamic_conv2d, long_conv, outlook
from .graph import CSR, edge_attention, edge_softmax, sddmm, segment_reduce, spmm
from .interaction import field_attention, interacting_layer
from .linear import delta_rule, gated_linear_attention, linear_attention
from .patterns import Window
from .scan import scan, selective_scan

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Draw = Callable[..., Tensor]
"""Random numbers of a shape."""


@dataclass(frozen=True)
class Call:
    """An operator with small arguments for it.

    Attributes:
        operator: the public function.
        arguments: makes its arguments from a function that draws tensors.
        backends: whether it takes ``backend``; what is made of plain torch alone does not.
        gradients: whether its output has gradients.
    """

    operator: Callable[..., Any]
    arguments: Callable[[Draw], Arguments]
    backends: bool = True
    gradients: bool = True

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.operator.__name__

    def make(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, grad: bool = False
    ) -> Arguments:
        """Fresh arguments, the same numbers each time.

        Args:
            device, dtype: of the floating-point tensors.
            grad: whether those tensors ask for gradients.
        """
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            drawn = torch.randn(shape, generator=generator)
            return drawn.to(device, dtype).requires_grad_(grad)

        return self.arguments(draw)


def _qkv(draw: Draw, length: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    return draw(1, 2, length, 8), draw(1, 2, length, 8), draw(1, 2, length, 6)


def _graph(device: torch.device) -> CSR:
    """Seven nodes, one without edges, that receive from five."""
    ptr = torch.tensor([0, 2, 2, 5, 6, 8, 9, 12], device=device)
    return CSR(ptr, torch.tensor([0, 3, 1, 2, 4, 0, 2, 3, 1, 0, 2, 4], device=device), 5)


def _on_graph(*sizes: tuple[int, ...]) -> Callable[[Draw], Arguments]:
    """Arguments that start with a graph, then tensors of these shapes."""

    def arguments(draw: Draw) -> Arguments:
        drawn = [draw(*size) for size in sizes]
        return (_graph(drawn[0].device), *drawn), {}

    return arguments


def _merge(draw: Draw) -> Arguments:
    return ([draw(1, 2, 5, 6) for _ in range(2)], [draw(1, 2, 5) for _ in range(2)]), {}


def _segments(draw: Draw) -> Arguments:
    x = draw(9, 4)
    return (x, torch.tensor([0, 3, 3, 9], device=x.device)), {}


def _joint(draw: Draw) -> Arguments:
    q, k, v = _qkv(draw)
    return (q, [(k, v, Window(3, 3)), (draw(1, 2, 5, 8), draw(1, 2, 5, 6))]), {}


def _gather(draw: Draw) -> Arguments:
    q, k, v = _qkv(draw)
    place = torch.arange(20, device=q.device).view(1, 1, 20, 1)
    index = (place * 3 + torch.arange(4, device=q.device)) % 20
    return (q, k, v, index.masked_fill(index == 7, -1)), {}


def _select(draw: Draw) -> Arguments:
    q, k, _ = _qkv(draw)
    return (q, k), {"block": 4, "topk": 2}


def _gated(draw: Draw) -> Arguments:
    return (*_qkv(draw), -draw(1, 2, 20).exp()), {}


def _delta(draw: Draw) -> Arguments:
    q, k, v = _qkv(draw)
    return (q, k / 3, v, draw(1, 2, 20).sigmoid()), {}


def _dynamic(draw: Draw) -> Arguments:
    return (draw(1, 4, 5, 6), draw(1, 2, 9, 5, 6)), {"kernel_size": 3}


def _outlook(draw: Draw) -> Arguments:
    return (draw(1, 4, 5, 6), draw(1, 2, 9, 9, 5, 6)), {"kernel_size": 3}


def _selective(draw: Draw) -> Arguments:
    sizes = (1, 9, 6), (1, 9, 6), (6, 4), (1, 9, 4), (1, 9, 4)
    u, delta, decay, read_in, read_out = (draw(*size) for size in sizes)
    return (u, delta.exp(), -decay.exp(), read_in, read_out), {}


_ALL = (
    Call(attention, lambda draw: ((*_qkv(draw), Window(3, 3)), {})),
    Call(causal_conv1d, lambda draw: ((draw(2, 9, 6), draw(6, 4)), {"activation": "silu"})),
    Call(delta_rule, _delta),
    Call(dynamic_conv2d, _dynamic),
    Call(edge_attention, _on_graph((7, 2, 4), (5, 2, 4), (5, 2, 3))),
    Call(edge_softmax, _on_graph((12, 2))),
    Call(field_attention, lambda draw: ((draw(3, 2, 7, 4), draw(3, 2, 7, 4), draw(3, 2, 7, 5)), {})),
    Call(gated_linear_attention, _gated),
    Call(joint_attention, _joint),
    Call(gather_attention, _gather),
    Call(interacting_layer, lambda draw: ((draw(3, 7, 6), draw(32, 6)), {"heads": 2})),
    Call(linear_attention, lambda draw: (_qkv(draw), {})),
    Call(long_conv, lambda draw: ((draw(2, 9, 6), draw(6, 20), draw(6)), {})),
    Call(merge, _merge, backends=False),
    Call(outlook, _outlook),
    Call(scan, lambda draw: ((draw(2, 9, 4).sigmoid(), draw(2, 9, 4)), {})),
    Call(sddmm, _on_graph((7, 4), (5, 4))),
    Call(segment_reduce, _segments),
    Call(select_blocks, _select, gradients=False),
    Call(selective_scan, _selective),
    Call(split_heads, lambda draw: ((draw(2, 5, 24), 2), {}), backends=False),
    Call(spmm, _on_graph((5, 4), (12,))),
)

CALLS: dict[str, Call] = {call.name: call for call in _ALL}
"""Every operator by name."""
