"""Patterns as text and back, so that a compiled or exported graph can name one.

``encode`` gives the pattern's own source and the tensors that it holds, ``decode`` makes the pattern again;
the text is read as an expression of pattern constructors and constants, never evaluated as Python.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from . import combine, grid, lists, regions, sequence, start
from .base import Pattern

_KINDS: dict[str, type[Pattern]] = {
    name: value
    for module in (sequence, start, grid, lists, regions, combine)
    for name, value in vars(module).items()
    if isinstance(value, type)
    and issubclass(value, Pattern)
    and not name.startswith("_")
    and value is not Pattern
}


def encode(pattern: Pattern) -> tuple[str, list[Tensor]]:
    """Text of a pattern, with its tensors named ``t0``, ``t1``, …"""
    held = list(pattern.tensors())
    return pattern.code(iter([f"t{place}" for place in range(len(held))])), held


def decode(text: str, tensors: Sequence[Tensor] = ()) -> Pattern:
    """The pattern that :func:`encode` wrote.

    Raises:
        ValueError: the text is no expression of patterns.
    """
    if not tensors:
        return _decode_static(text)
    return _build(ast.parse(text, mode="eval").body, text, tensors)


@lru_cache(maxsize=256)
def _decode_static(text: str) -> Pattern:
    return _build(ast.parse(text, mode="eval").body, text, ())


def _build(node: ast.expr, text: str, tensors: Sequence[Tensor]) -> Any:
    def build(inner: ast.expr) -> Any:
        return _build(inner, text, tensors)

    match node:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return build(left) & build(right)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return build(left) | build(right)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _KINDS:
            named = {one.arg: build(one.value) for one in keywords if one.arg}
            return _KINDS[name](*map(build, args), **named)
        case ast.Name(id=name) if name[:1] == "t" and name[1:].isdecimal() and int(name[1:]) < len(tensors):
            return tensors[int(name[1:])]
        case ast.Tuple() | ast.Constant() | ast.UnaryOp():
            return ast.literal_eval(node)
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} is no pattern")
