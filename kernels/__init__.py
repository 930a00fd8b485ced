"""The kernel layer: patterns say who sees whom, few operators compute it, each with several backends.

>>> import torch
>>> from graphrec.kernels import attention
>>> from graphrec.kernels.patterns import Windows
>>> q = k = v = torch.randn(1, 2, 64, 16)
>>> attention(q, k, v, Windows((8, 8), 4, shift=2)).shape
torch.Size([1, 2, 64, 16])
"""

from .attention import RelativeBias, attention, merge
from .graph import CSR, edge_attention, edge_softmax, sddmm, segment_reduce, spmm

__all__ = [
    "CSR",
    "RelativeBias",
    "attention",
    "edge_attention",
    "edge_softmax",
    "merge",
    "sddmm",
    "segment_reduce",
    "spmm",
]
