"""Sums, products and softmaxes over the edges of a graph."""

from .csr import CSR
from .operator import edge_attention, edge_softmax, sddmm, segment_reduce, spmm

__all__ = ["CSR", "edge_attention", "edge_softmax", "sddmm", "segment_reduce", "spmm"]
