"""The kernel layer: patterns say who sees whom, few operators compute it, each with several backends.

>>> import torch
>>> from graphrec.kernels import attention
>>> from graphrec.kernels.patterns import Windows
>>> q = k = v = torch.randn(1, 2, 64, 16)
>>> attention(q, k, v, Windows((8, 8), 4, shift=2)).shape
torch.Size([1, 2, 64, 16])
"""

# In a checkout this folder can be found as plain "kernels", and Hugging Face transformers imports whatever is
# called that to ask for its version. Executed a second time, the operators would be registered anew, and the
# first ones, which are in use, destroyed. So under any other name this package is empty.
if __name__ == "graphrec.kernels":
    from .attention import (
        RelativeBias,
        Source,
        attention,
        gather_attention,
        joint_attention,
        merge,
        select_blocks,
        split_heads,
    )
    from .conv import causal_conv1d, dynamic_conv2d, long_conv, outlook
    from .explain import Explanation, explain
    from .graph import CSR, edge_attention, edge_softmax, sddmm, segment_reduce, spmm
    from .interaction import field_attention, interacting_layer
    from .linear import delta_rule, gated_linear_attention, linear_attention
    from .scan import scan, selective_scan

__all__ = [
    "CSR",
    "Explanation",
    "RelativeBias",
    "Source",
    "attention",
    "causal_conv1d",
    "delta_rule",
    "dynamic_conv2d",
    "edge_attention",
    "edge_softmax",
    "explain",
    "field_attention",
    "gated_linear_attention",
    "gather_attention",
    "interacting_layer",
    "joint_attention",
    "linear_attention",
    "long_conv",
    "merge",
    "outlook",
    "scan",
    "sddmm",
    "segment_reduce",
    "select_blocks",
    "selective_scan",
    "split_heads",
    "spmm",
]
