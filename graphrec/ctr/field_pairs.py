"""Sums over pairs of fields of a strength times an inner product, as FwFM has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 256
"""Rows whose products of all pairs of fields are in memory at a time, on a CPU."""


class FieldPairs(nn.Module):
    """``sum_{i<j} r_ij <v_i, v_j>`` for each label, with one strength per pair of fields.

    Args:
        n_fields: Fields F.
        n_labels: Labels T.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, n_fields: int, n_labels: int) -> None:
        super().__init__()
        rows, columns = torch.triu_indices(n_fields, n_fields, offset=1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.n_fields = n_fields
        self.strength = nn.Parameter(torch.empty(n_labels, len(rows)))
        nn.init.normal_(self.strength, std=(2.0 / (len(rows) + n_labels)) ** 0.5)

    def matrix(self) -> Tensor:
        """The strengths as strictly upper triangular matrices, (T, F, F)."""
        square = self.strength.new_zeros(len(self.strength), self.n_fields, self.n_fields)
        return square.index_put((torch.arange(len(square))[:, None], self.rows, self.columns), self.strength)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F, d) to (B, T)."""
        upper = self.matrix()
        both = upper + upper.mT
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return _halved(both, vectors)[0]
        found: Tensor = _Pairs.apply(both, vectors)
        return found


def _halved(both: Tensor, vectors: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Half of ``v^T r v``, (B, T), by matrices (T, F, F) that are symmetric, and ``r v`` for each label."""
    mixed = _mixed(both, vectors)
    return 0.5 * torch.stack([(one * vectors).sum((1, 2)) for one in mixed], 1), mixed


def _mixed(both: Tensor, vectors: Tensor) -> list[Tensor]:
    """``r v`` for each label, (B, F, d), as small products: one large one wants the vectors transposed."""
    return [torch.bmm(one.expand(vectors.shape[0], *one.shape), vectors) for one in both]


class _Pairs(torch.autograd.Function):
    """`_halved`, whose gradient for the vectors is ``r v`` again, as the matrices are symmetric.

    Autograd would multiply a second time, and make the products of all pairs of fields of all rows before it
    adds them up.
    """

    @staticmethod
    def forward(ctx: Any, both: Tensor, vectors: Tensor) -> Tensor:
        found, mixed = _halved(both, vectors)
        ctx.save_for_backward(both, vectors, *mixed)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        both, vectors, *mixed = ctx.saved_tensors
        if torch.is_grad_enabled():  # differentiated twice
            mixed = _mixed(both, vectors)
        shares = grad.unsqueeze(-1).unbind(1)  # (B, 1) each
        dboth = dvectors = None
        if ctx.needs_input_grad[0]:
            dboth = 0.5 * torch.stack([_outer(share, vectors) for share in shares])
        if ctx.needs_input_grad[1]:
            terms = [share.unsqueeze(-1) * one for share, one in zip(shares, mixed, strict=True)]
            dvectors = terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)
        return dboth, dvectors


def _outer(share: Tensor, vectors: Tensor) -> Tensor:
    """``sum_b g_b v_b v_b^T``, (F, F), of (B, 1) and (B, F, d)."""
    rows = _ROWS if vectors.device.type == "cpu" else max(len(vectors), 1)
    pairs = zip(share.unsqueeze(-1).split(rows), vectors.split(rows), strict=True)
    parts = [torch.bmm(by * some, some.mT).sum(0) for by, some in pairs]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
