"""DuoAttention: some heads see everything before them, the rest only sinks and the recent past.

Xiao et al., "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads",
arXiv:2410.10819, sections 2.2 and 2.3; official code: mit-han-lab/duo-attention.

One gate per key head, 1 at first, is trained with the model frozen: the output of a head is
``alpha * full + (1 - alpha) * streaming``, against the hidden states of full attention on the tokens to be
recalled (equation 1) and with an L1 penalty on all gates (equations 2 and 3). With :func:`duo_gates`::

    more, less = duo_gates(alpha, groups)
    out = attention(q, k, v, Causal(), gate=more) + attention(q, k, v, Streaming(128, 256), gate=less)

After training :func:`duo_heads` splits the heads of all layers, and :func:`duo_pattern` is a layer's pattern.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..patterns import Causal, PerHead, Streaming


def duo_gates(alpha: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """The two gates of the training mix, one number per query head, for the ``gate`` of attention.

    Args:
        alpha: trained gates of one layer, (Hkv,); what lies outside 0 to 1 counts as 0 or 1 and gets no
            gradient, as in the official code.
        groups: query heads per key head.

    Returns:
        Weights of full and of streaming attention, each (Hkv * groups,), differentiable.

    Raises:
        ValueError: ``alpha`` of another form.
    """
    if alpha.dim() != 1 or groups < 1:
        raise ValueError(
            f"alpha of shape {tuple(alpha.shape)} must be (heads,), and groups={groups} at least 1"
        )
    more = alpha.clamp(0, 1).repeat_interleave(groups)
    return more, 1 - more


@torch.no_grad()
def duo_heads(alpha: Tensor, *, threshold: float | None = None, sparsity: float | None = None) -> Tensor:
    """Which heads keep full attention (equation 4).

    With ``threshold`` those whose gate exceeds it. With ``sparsity`` the threshold is that quantile of all
    gates given, and heads at it stay full, as in the official code; it breaks ties by random noise, here
    equal gates stay full together. ``sparsity=0`` keeps all heads full, 1 none.

    Args:
        alpha: trained gates of all layers, (layers, Hkv), or of any other shape.
        threshold: gates above it are full.
        sparsity: the share of heads that should stream, 0 to 1.

    Returns:
        bool like ``alpha``, True for full attention.

    Raises:
        ValueError: neither or both of threshold and sparsity, or a sparsity out of range.
    """
    if (threshold is None) == (sparsity is None):
        raise ValueError(f"give one of threshold and sparsity, got {threshold} and {sparsity}")
    if threshold is not None:
        return alpha > threshold
    assert sparsity is not None
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity} must be 0 to 1")
    if sparsity in (0, 1):
        return torch.full_like(alpha, sparsity == 0, dtype=torch.bool)
    gates = alpha.double()
    return gates >= torch.quantile(gates.flatten(), sparsity)


def duo_pattern(full: Tensor, *, sinks: int, recent: int, groups: int = 1, offset: int = 0) -> PerHead:
    """The pattern of one layer: full causal attention or streaming, per head.

    Args:
        full: which key heads see everything before them, bool (Hkv,), from :func:`duo_heads`.
        sinks, recent: first and last keys that the other heads see; the paper trains with 128 and 256 and
            deploys with 64 and 256.
        groups: query heads per key head.
        offset: where query 0 stands among the keys, with a cache of past keys.

    Raises:
        ValueError: ``full`` of another form.
    """
    if full.dtype != torch.bool or full.dim() != 1 or full.numel() == 0 or groups < 1:
        raise ValueError(
            f"full must be bool (heads,), got {full.dtype} of shape {tuple(full.shape)}, "
            f"and groups={groups} at least 1"
        )
    whole, part = Causal(offset), Streaming(sinks, recent, offset)
    return PerHead(*(whole if one else part for one in full.tolist() for _ in range(groups)))
