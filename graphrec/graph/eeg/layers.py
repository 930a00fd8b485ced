"""Filters over electrodes and along time, and Keras's starts and bounds of weights.

Everything between electrodes is a dense product. A montage has tens of electrodes, so a matrix over them is
smaller than a list of its edges: at 14 electrodes and 256 windows the graph operators of `graphrec.kernels`
take twice the time (softmax per region, forward and backward: 0.77 ms against 0.36). Tests hold both against
each other. Signals are (C, B, T), electrodes first, so that such a product is one product of matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError

_BLOCK = 128


def glorot(shape: tuple[int, ...], fan_in: int, fan_out: int) -> Tensor:
    """Uniform with Glorot's limit, for kernels whose fans torch would count otherwise than Keras."""
    limit = (6 / (fan_in + fan_out)) ** 0.5
    return torch.empty(shape).uniform_(-limit, limit)


def shrink(rows: Tensor) -> None:
    """Scale rows (N, D) that are longer than 1 to length 1, in place."""
    rows.div_(rows.norm(dim=1, keepdim=True).clamp(min=1))


class ChebyshevFilter(nn.Module):
    """Graph filter ``sum_k w_k T_k(2 L / l_max - I)`` with one learned number per hop.

    L = D - A is the Laplacian of the electrodes or regions, l_max its largest eigenvalue, T_k the Chebyshev
    polynomials (Defferrard et al., arXiv:1606.09375, eq. 4, without channels). Without any edge L is 0 and
    the polynomials are those of -I: the filter scales.

    Args:
        adjacency: Symmetric (N, N) without a diagonal.
        hops: Largest k, at least 1.

    Raises:
        ConfigError: Too few hops.
    """

    polynomials: Tensor

    def __init__(self, adjacency: Tensor, hops: int) -> None:
        super().__init__()
        if hops < 1:
            raise ConfigError(f"hops={hops}: must be at least 1")
        wide = adjacency.double()
        laplacian, eye = wide.sum(1).diag() - wide, torch.eye(len(wide), dtype=torch.float64)
        largest = float(torch.linalg.eigvalsh(laplacian).max())
        scaled = (2 / largest if largest > 1e-9 else 0.0) * laplacian - eye
        found = [eye, scaled]
        for _ in range(hops - 1):
            found.append(2 * scaled @ found[-1] - found[-2])
        self.register_buffer("polynomials", torch.stack(found).float(), persistent=False)
        self.weight = nn.Parameter(glorot((hops + 1,), hops + 1, hops + 1))

    def matrix(self) -> Tensor:
        """The filter, symmetric (N, N)."""
        return torch.einsum("k,kij->ij", self.weight, self.polynomials)

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, T) -> (N, B, T)."""
        return mix_rows(self.matrix(), x)


def mix_rows(matrix: Tensor, x: Tensor) -> Tensor:
    """``out[m] = sum_n matrix[m, n] x[n]``, (M, N) and (N, B, T) -> (M, B, T)."""
    return (matrix @ x.flatten(1)).view(len(matrix), *x.shape[1:])


def temporal_conv(x: Tensor, kernel: Tensor, padding: tuple[int, int]) -> Tensor:
    """Each electrode's own filter along time, ``out[c, b, t] = sum_j kernel[c, j] padded x[c, b, t + j]``.

    Stretches of 128 samples are multiplied by a band matrix. For 256 windows of 14 electrodes and 64 taps
    that takes, with the backward, 8 ms on one core; torch's grouped convolution takes 22.

    Args:
        x: (C, B, T).
        kernel: (C, K).
        padding: Zeros before and after.

    Returns:
        (C, B, T + sum(padding) - K + 1).
    """
    rows, batch, time = x.shape
    taps = kernel.shape[1]
    out = time + sum(padding) - taps + 1
    block = min(out, _BLOCK)
    blocks, span = -(-out // block), block + taps - 1
    padded = F.pad(x, (padding[0], padding[1] + blocks * block - out))
    parts = padded if blocks == 1 else padded.unfold(2, span, block).reshape(rows, batch * blocks, span)
    # Row t of a band matrix is the kernel moved by t: rows of K + block numbers read as rows of one fewer.
    wide = F.pad(kernel, (0, block)).repeat(1, block)[:, : block * span].view(rows, block, span)
    return torch.bmm(parts, wide.transpose(1, 2)).view(rows, batch, blocks * block)[:, :, :out]


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation of (C, B, T) over B and T, with Keras's constant under the root."""

    def __init__(self, rows: int, momentum: float) -> None:
        super().__init__(rows, eps=1e-3, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(C, B, T) -> (C, B, T)."""
        return super().forward(x.flatten(1)[None]).view(x.shape)
