"""FCN's cross layer for training on a CPU: blocks of rows that stay in the cache, and a written-out backward.

With h = W x over rows of a head, mean mu and deviation sigma of a head over the batch, gamma and beta of its
batch normalisation, and LN with weights g and o over a row:

    c = gamma (h - mu) / sigma + beta,  m = ReLU(LN(c)),  y = drop(f * ([c || c * m] + b) + x)

Composed of torch operations, the layer reads and writes some twenty tensors of the size of x, which takes as
long as its matrix products. Here the products are of the whole batch, and what is between them is of a block.
Of the forward only h and which numbers were dropped are kept; c, m and LN are computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graphrec.kernels.registering import listened_to
from graphrec.training.dropout import draw

_BLOCK_FLOATS = 320_000
"""Numbers of x in a block of rows."""

_LEAST = 1_000_000
"""Numbers of x from which this form pays: in smaller batches the calls cost more than the passes."""


def cross(
    x: Tensor,
    factor: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: nn.BatchNorm1d,
    layer: nn.LayerNorm,
    share: float,
) -> Tensor:
    """The layer with the statistics of the batch, of which running averages are kept as torch keeps them.

    Args:
        x: (B, H, D).
        factor: As x; x itself in an exponential network.
        weight: (D/2, D).
        bias: (D,).
        batch: Batch normalisation with H channels.
        layer: Layer normalisation of width D/2.
        share: Dropped from the output.
    """
    settings = _Settings(batch.eps, layer.eps, share, factor is x)
    norms = batch.weight, batch.bias, layer.weight, layer.bias
    out, mean, variance = CrossBlocks.apply(x, factor, weight, bias, *norms, settings)
    with torch.no_grad():
        count = x.shape[0] * weight.shape[0]
        assert batch.running_mean is not None
        assert batch.running_var is not None
        assert batch.num_batches_tracked is not None
        assert batch.momentum is not None
        batch.num_batches_tracked.add_(1)
        batch.running_mean.lerp_(mean.to(batch.running_mean.dtype), batch.momentum)
        batch.running_var.lerp_(
            (variance * (count / (count - 1))).to(batch.running_var.dtype), batch.momentum
        )
    made: Tensor = out
    return made


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether this form trains the layer: large batches on a CPU, not under autocast, not while compiled."""
    return (
        x.numel() >= _LEAST
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not listened_to()
        and torch._C._get_tracing_state() is None  # type: ignore[attr-defined]  # not in torch's stubs
    )


class _Settings(NamedTuple):
    batch_eps: float
    layer_eps: float
    dropout: float
    exponential: bool
    """Whether the factor is x itself."""


class CrossBlocks(torch.autograd.Function):
    """Output, and the statistics (H,) that running averages want, of x and factor (B, H, D).

    Other arguments: weight (D/2, D) and bias (D,) of the cross, weight and bias (H,) of the batch
    normalisation, weight and bias (D/2,) of the layer normalisation, and `_Settings`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factor: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        layer_weight: Tensor,
        layer_bias: Tensor,
        settings: _Settings,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = x @ weight.T
        mean = hidden.mean((0, 2))
        count = hidden.numel() // len(mean)
        variance = torch.linalg.vector_norm(hidden - mean.unsqueeze(1), dim=(0, 2)).square_().div_(count)
        slope = gamma * (variance + settings.batch_eps).rsqrt()
        cross = _Cross(hidden, slope, beta - mean * slope, layer_weight, layer_bias, settings.layer_eps)
        out = x.new_empty(x.shape)
        kept, scale = _drawn(x.shape, settings.dropout)
        for rows in _blocks(x):
            c, m, _, _ = cross.of(rows)
            made = out[rows]
            _both(c, m, bias, made)
            torch.addcmul(x[rows], factor[rows], made, out=made)
            if kept is not None:
                made.mul_(kept[rows].to(made.dtype).mul_(scale))
        ctx.save_for_backward(
            x, factor, weight, bias, gamma, beta, layer_weight, layer_bias, hidden, mean, variance
        )
        ctx.kept, ctx.scale, ctx.settings = kept, scale, settings
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: *grads
        x, factor, weight, bias, gamma, beta, layer_weight, layer_bias, hidden, mean, variance = (
            ctx.saved_tensors
        )
        inverse = (variance + ctx.settings.batch_eps).rsqrt()
        slope = gamma * inverse
        cross = _Cross(hidden, slope, beta - mean * slope, layer_weight, layer_bias, ctx.settings.layer_eps)
        dx, dhidden = x.new_empty(x.shape), x.new_empty(hidden.shape)  # contiguous, whatever x is
        dfactor = None if ctx.settings.exponential else x.new_empty(x.shape)
        dbias, dlayer_weight, dlayer_bias = (
            torch.zeros_like(one) for one in (bias, layer_weight, layer_bias)
        )
        dbeta, dgamma = torch.zeros_like(beta), torch.zeros_like(gamma)
        for rows in _blocks(x):
            c, m, row_mean, row_inverse = cross.of(rows)
            dy, dc = dx[rows], dhidden[rows]
            if ctx.kept is None:
                dy.copy_(grad[rows])
            else:
                torch.mul(grad[rows], ctx.kept[rows].to(dy.dtype).mul_(ctx.scale), out=dy)
            both = torch.empty_like(dy) if dfactor is None else dfactor[rows]
            _both(c, m, bias, both)
            both.mul_(dy)
            dboth = dy * factor[rows]
            dbias += dboth.sum((0, 1))
            first, second = dboth.chunk(2, -1)
            torch.addcmul(first, second, m, out=dc)
            dm = torch.ops.aten.threshold_backward(second * c, m, 0.0)
            through, one, other = torch.ops.aten.native_layer_norm_backward(
                dm, c, layer_weight.shape, row_mean, row_inverse, layer_weight, layer_bias, [True, True, True]
            )
            dc += through
            dlayer_weight += one
            dlayer_bias += other
            dbeta += dc.sum((0, 2))
            dgamma += (dc * (hidden[rows] - mean.unsqueeze(1))).sum((0, 2))
            if dfactor is None:
                dy += both
        dgamma *= inverse
        count = hidden.numel() // len(mean)
        pull = -slope * inverse * dgamma / count  # by each h, as sigma depends on it
        dhidden.mul_(slope.unsqueeze(1)).add_((-slope * dbeta / count - pull * mean).unsqueeze(1))
        dhidden.add_(hidden * pull.unsqueeze(1))
        flat = dhidden.flatten(0, 1)
        dx.flatten(0, 1).addmm_(flat, weight)
        dweight = flat.T @ x.flatten(0, 1)
        return dx, dfactor, dweight, dbias, dgamma, dbeta, dlayer_weight, dlayer_bias, None


class _Cross(NamedTuple):
    """c and m of blocks of rows."""

    hidden: Tensor
    slope: Tensor
    shift: Tensor
    layer_weight: Tensor
    layer_bias: Tensor
    eps: float

    def of(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c and m (R, H, D/2), mean and inverse deviation of LN's rows (R, H, 1)."""
        c = (self.hidden[rows] * self.slope.unsqueeze(1)).add_(self.shift.unsqueeze(1))
        z, mean, inverse = torch.native_layer_norm(
            c, self.layer_weight.shape, self.layer_weight, self.layer_bias, self.eps
        )
        return c, z.relu_(), mean, inverse


def _both(c: Tensor, m: Tensor, bias: Tensor, out: Tensor) -> None:
    """Write ``[c || c * m] + b``."""
    first, second = out.chunk(2, -1)
    low, high = bias.chunk(2)
    torch.add(c, low, out=first)
    torch.addcmul(high, c, m, out=second)


def _drawn(shape: torch.Size, share: float) -> tuple[Tensor | None, float]:
    return (None, 1.0) if share == 0 else draw(shape, share)


def _blocks(x: Tensor) -> Iterator[slice]:
    step = max(1, _BLOCK_FLOATS // max(1, x[0].numel()))
    return (slice(start, start + step) for start in range(0, len(x), step))
