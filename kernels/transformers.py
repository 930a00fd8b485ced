"""Patterns as attention of Hugging Face transformers' models.

>>> from graphrec.kernels.patterns import Streaming
>>> from graphrec.kernels.transformers import register
>>> register("graphrec_streaming", Streaming(4, 256))
'graphrec_streaming'

After that ``attn_implementation="graphrec_streaming"`` works where ``"sdpa"`` does: in ``from_pretrained``,
in ``AutoModelForCausalLM.from_config`` and in ``model.set_attn_implementation``. A registered pattern only
narrows what the model itself allows: a causal model sees no future, a layer with a sliding window no more
than that, and padding stays hidden. Positions are those of the sequence: they go on counting while a cache
grows, and start at the first real token of each prompt when prompts are padded on the left.

Needs transformers 5.23 or newer (``pip install graphrec[transformers]``); imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .attention import attention
from .patterns import Causal, FromStart, Full, KeyPadding, Pattern, Window

_PLAIN = {"graphrec_full": Full(), "graphrec_causal": Causal()}


@dataclass(frozen=True, eq=False)
class Asked:
    """What a forward pass asks of every layer: handed from the mask interface to the attention function.

    Attributes:
        pattern: who sees whom, for these lengths.
        q_len, k_len: lengths that it was made for.
    """

    pattern: Pattern
    q_len: int
    k_len: int
    ndim = 0  # generate() asks the mask that it makes in advance for its axes, and for a contiguous copy

    def contiguous(self) -> Asked:
        return self


def register(name: str | None = None, pattern: Pattern | None = None) -> str:
    """Make a pattern an attention implementation of transformers.

    Without arguments: ``graphrec_full``, which sees what the model allows, and ``graphrec_causal``, which is
    causal in models that are not. Registering a name again replaces it.

    Args:
        name: what to pass as ``attn_implementation``, to start with ``graphrec_``.
        pattern: who sees whom, at most; over positions of one sequence, without tensors.

    Returns:
        The name, ``"graphrec_full"`` without arguments.

    Raises:
        ImportError: transformers is not installed or older than 5.23.
        ValueError: a name of another form, one argument without the other, or a pattern that holds tensors.
    """
    if (name is None) != (pattern is None):
        raise ValueError(f"give a name and a pattern, or neither: got name={name!r} and pattern={pattern!r}")
    if name is None or pattern is None:
        for plain, one in _PLAIN.items():
            register(plain, one)
        return "graphrec_full"
    if not name.startswith("graphrec_"):
        raise ValueError(f"name={name!r} must start with 'graphrec_'")
    if not isinstance(pattern, Pattern) or not pattern.static:
        raise ValueError(f"pattern={pattern!r} must be a pattern without tensors: it serves every sequence")
    attentions, masks = _interfaces()
    attentions.register(name, _attention_for(pattern))
    masks.register(name, _mask_for(pattern))
    return name


def _interfaces() -> tuple[Any, Any]:
    """The registries of attention functions and of mask functions."""
    try:
        from transformers import AttentionInterface
        from transformers.masking_utils import AttentionMaskInterface, and_masks  # noqa: F401
    except ImportError as error:
        raise ImportError("needs transformers 5.23 or newer: pip install graphrec[transformers]") from error
    return AttentionInterface, AttentionMaskInterface


def _mask_for(pattern: Pattern) -> Callable[..., Asked]:
    """The function that transformers calls once per forward pass and kind of layer."""

    def mask(
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: int | Tensor = 0,
        kv_offset: int | Tensor = 0,
        mask_function: Callable[..., Any] | None = None,
        attention_mask: Tensor | Asked | None = None,
        local_size: int | None = None,
        **_: Any,
    ) -> Asked:
        if isinstance(attention_mask, Asked):  # made in advance by generate()
            return attention_mask
        behind = int(kv_offset)
        valid = _valid(attention_mask, kv_length, behind)
        parts = [pattern, *_own(mask_function, local_size)]
        if behind and any(one.anchored for one in parts):
            raise ValueError(
                f"{pattern!r} counts from the start of the sequence, which a cache with a sliding window "
                "has dropped: use a cache that keeps everything, as DynamicCache() without a configuration"
            )
        found = _joined(parts, int(q_offset) - behind, kv_length)
        return Asked(found if valid is None else _padded(found, valid), q_length, kv_length)

    return mask


def _valid(attention_mask: Tensor | None, k_len: int, behind: int) -> Tensor | None:
    """Which keys are real, bool (B, Lk), or None when all are."""
    if attention_mask is None:
        return None
    valid = attention_mask.bool()[:, behind : behind + k_len]
    valid = torch.nn.functional.pad(valid, (0, k_len - valid.shape[1]))
    return None if bool(valid.all()) else valid


def _padded(pattern: Pattern, valid: Tensor) -> Pattern:
    """A pattern that hides padding, and counts from the first real token where that matters."""
    if pattern.anchored and not bool(valid[:, 0].all()):
        pattern = FromStart(pattern, valid.int().argmax(1))
    return KeyPadding(valid) if pattern == Full() else pattern & KeyPadding(valid)


def _joined(parts: list[Pattern], offset: int, k_len: int) -> Pattern:
    """All parts at once, with query 0 at key ``offset``."""
    moved = [one.moved(offset) if offset else one for one in dict.fromkeys(parts)]
    needed = [one for one in moved if not _sees_all(one, k_len)]
    if not needed:
        return Full()
    total = needed[0]
    for one in needed[1:]:
        total = total & one
    return total


def _sees_all(pattern: Pattern, k_len: int) -> bool:
    return isinstance(pattern, Full) or (isinstance(pattern, Causal) and pattern.offset >= k_len - 1)


def _own(mask_function: Callable[..., Any] | None, local_size: int | None) -> list[Pattern]:
    """The model's own mask as patterns.

    transformers gives it as a function over positions, built of a few known pieces.

    Raises:
        ValueError: a piece that is none of those, as for packed sequences.
    """
    from transformers import masking_utils as theirs

    pieces = list(_pieces(mask_function or theirs.causal_mask_function))
    causal = theirs.causal_mask_function in pieces
    known = {theirs.causal_mask_function, theirs.bidirectional_mask_function}
    found: list[Pattern] = [Causal()] if causal else []
    for piece in pieces:
        if piece in known:
            continue
        if causal and local_size and _made_by(piece, theirs.sliding_window_overlay(1)):
            found.append(Window(local_size - 1, 0))
        elif local_size and _made_by(piece, theirs.sliding_window_bidirectional_overlay(1)):
            found.append(Window(local_size, local_size))
        else:
            kind = getattr(piece, "__qualname__", repr(piece))
            raise ValueError(
                f"the model asks for a mask that has no pattern ({kind}), as for packed sequences, chunked "
                'attention or masks of its own: use attn_implementation="eager" or "sdpa"'
            )
    return found


def _made_by(piece: Callable[..., Any], example: Callable[..., Any]) -> bool:
    return getattr(piece, "__code__", None) is getattr(example, "__code__", ())


def _pieces(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The parts of a mask function, all of which must hold."""
    from transformers.masking_utils import and_masks, causal_mask_function

    if not _made_by(function, and_masks(causal_mask_function)):
        yield function
        return
    for cell in function.__closure__ or ():
        for one in cell.cell_contents:
            yield from _pieces(one)


def _attention_for(pattern: Pattern) -> Callable[..., tuple[Tensor, None]]:
    """The function that transformers calls in every layer."""

    def forward(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | Asked | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        _refuse(dropout, options)
        lengths = query.shape[2], key.shape[2]
        if attention_mask is None:
            asked = Asked(_unmasked(pattern, module, options, *lengths), *lengths)
        elif isinstance(attention_mask, Asked):
            asked = attention_mask
        else:
            raise ValueError(
                f"attention_mask of shape {tuple(attention_mask.shape)} was prepared outside: pass one of "
                "(batch, length) to the model, or register a pattern"
            )
        if lengths != (asked.q_len, asked.k_len):
            raise ValueError(
                f"query and key of lengths {lengths} do not fit the mask, made for lengths "
                f"{(asked.q_len, asked.k_len)}"
            )
        out = attention(
            query, key, value, asked.pattern, scale=scaling,
            bias=options.get("position_bias"), sink=options.get("s_aux"),
        )  # fmt: skip
        return out.transpose(1, 2).contiguous(), None

    return forward


def _refuse(dropout: float, options: dict[str, Any]) -> None:
    """Raise ValueError for what would be silently left out."""
    if dropout:
        raise ValueError(f"dropout={dropout} on attention weights: set config.attention_dropout = 0.0")
    for name in ("softcap", "head_mask", "output_attentions", "cache"):
        if options.get(name) is not None and options[name] is not False:
            raise ValueError(
                f'{name} needs the weights or logits themselves: use attn_implementation="eager"'
            )


def _unmasked(
    pattern: Pattern, module: torch.nn.Module, options: dict[str, Any], q_len: int, k_len: int
) -> Pattern:
    """The pattern of a module that was given no mask: causal if it says so, as with ``"sdpa"``."""
    given = options.get("is_causal")
    causal = bool(getattr(module, "is_causal", False) if given is None else given)
    window = options.get("sliding_window")
    if not causal and q_len != k_len and pattern != Full():
        raise ValueError(f"{pattern!r} between {q_len} queries and {k_len} keys of another sequence")
    parts = [pattern, *([Causal()] if causal else [])]
    if window is not None:
        parts.append(Window(window - 1, 0) if causal else Window(window, window))
    return _joined(parts, k_len - q_len if causal else 0, k_len)


__all__ = ["register"]
