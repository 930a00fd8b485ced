"""Short causal convolutions along a sequence, one filter per channel."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import choose, triton_refusal
from ..checking import check_floating
from .causal_triton import LONGEST, tile_causal_conv1d


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    state: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """``out[t] = bias + sum_w weight[:, w] * x[t - W + 1 + w]``, as before Mamba's scan (arXiv:2312.00752).

    Args:
        x: (B, T, D).
        weight: (D, W); the last column meets the current position, as in ``torch.nn.Conv1d``.
        bias: (D,).
        activation: "silu" or None.
        state: the W - 1 positions before the first, (B, W - 1, D); None is zeros.
        backend: "reference", "torch", "triton" (up to 16 taps) or None to choose.

    Returns:
        (B, T, D), in the dtype that the inputs promote to.

    Raises:
        ValueError: shapes that do not fit each other, or an activation or backend that does not exist.
    """
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] < 1:
        raise ValueError(
            f"x must be (B, T, D) and weight (D, W), got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    before = (x.shape[0], weight.shape[1] - 1, x.shape[2])
    if state is not None and tuple(state.shape) != before:
        raise ValueError(f"state of shape {tuple(state.shape)} must be {before}")
    if bias is not None and tuple(bias.shape) != (x.shape[2],):
        raise ValueError(f"bias of shape {tuple(bias.shape)} must be {(x.shape[2],)}")
    check_floating(x=x, weight=weight, bias=bias, state=state)
    if activation not in (None, "silu"):
        raise ValueError(f"activation={activation!r} must be 'silu' or None")
    given = [one for one in (x, weight, bias, state) if one is not None]
    refusals = {"reference": None, "torch": None, "triton": _refusal(given, weight.shape[1])}
    name = choose("causal_conv1d", backend, refusals).backend
    if name == "triton" and x.numel():
        dtype = reduce(torch.promote_types, (one.dtype for one in given))
        return tile_causal_conv1d(x.to(dtype), weight, bias, state, activation == "silu")  # type: ignore[no-any-return]
    padded = torch.cat([x.new_zeros(before) if state is None else state, x], 1)
    out = (_reference if name == "reference" else _shifted)(padded, weight, x.shape[1])
    out = out if bias is None else out + bias
    return F.silu(out) if activation == "silu" else out


def _refusal(given: list[Tensor], taps: int) -> str | None:
    if taps > LONGEST:
        return f"its kernels take filters of at most {LONGEST}, not {taps}; long_conv takes longer ones"
    return triton_refusal(*given)


def _reference(padded: Tensor, weight: Tensor, length: int) -> Tensor:
    """A window of every position times the filter."""
    if length == 0:
        return padded[:, :0]
    return (padded.unfold(1, weight.shape[1], 1) * weight).sum(-1)


def _shifted(padded: Tensor, weight: Tensor, length: int) -> Tensor:
    """Shifted copies added up, in the layout of ``x``."""
    out = padded[:, :length] * weight[:, 0]
    for place in range(1, weight.shape[1]):
        out = torch.addcmul(out, padded[:, place : place + length], weight[:, place])
    return out
