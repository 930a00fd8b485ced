"""Tile sizes and launch settings, looked up in a table (:mod:`.table`) instead of tuned while a program runs.

The shipped rows, and the rules of operators that have none, follow from static limits (registers, shared
memory of sm_80 to sm_100), not from timings; ``python -m graphrec.kernels.tune`` measures them on a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from . import table

Config = TypeVar("Config")
Made = TypeVar("Made")
Given = ParamSpec("Given")
INTERPRETER = "interpreter"


@dataclass(frozen=True)
class AttentionConfig:
    """Launch settings of the attention kernels: queries and keys per tile, warps, pipeline stages."""

    bm: int
    bn: int
    warps: int
    stages: int


def padded(dim: int) -> int:
    """The power of two, at least 16, that a head dimension is padded to inside a kernel."""
    return max(16, 1 << (dim - 1).bit_length())


def look_up(operator: str, made: type[Config], dim: int, dtype: torch.dtype, interpreted: bool) -> Config:
    """An operator's settings for a head dimension and dtype on the GPU at hand, or in the interpreter.

    Raises:
        ValueError: the table has no row for them, or a row with other settings than ``made`` takes.
    """
    kind = INTERPRETER if interpreted else table.architecture()
    row = table.find(operator, dim, dtype, kind)
    if row is None:
        raise ValueError(f"{table.SHIPPED} has no launch settings for {operator} with {dtype} on {kind}")
    try:
        return made(**row.settings)
    except TypeError as error:
        raise ValueError(f"launch settings of {row.key} do not fit: {error}") from error


def tabled(
    *operators: str, by: str, which: str | None = None
) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """Let rows of the table go before a rule that derives settings from static limits.

    Args:
        operators: whose rows; with several the rule's argument ``which`` is the number of the one.
        by: the argument of the rule by whose power of two rows are listed. ``dtype`` and ``interpreted``
            count as well in rules that take them; rows for rules without a dtype have "any".

    Raises:
        ValueError: when the rule is asked and a row has settings that its result lacks.
    """

    def wrap(rule: Callable[Given, Made]) -> Callable[Given, Made]:
        names = list(inspect.signature(rule).parameters)

        @wraps(rule)
        def config(*args: Given.args, **kwargs: Given.kwargs) -> Made:
            made = rule(*args, **kwargs)
            given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
            kind = INTERPRETER if given.get("interpreted") else table.architecture()
            operator = operators[given[which] if which else 0]
            row = table.find(operator, padded(given[by]), given.get("dtype"), kind)
            if made is None or row is None:
                return made
            try:
                return replace(made, **row.settings)  # type: ignore[type-var]
            except TypeError as error:
                raise ValueError(f"launch settings of {row.key} do not fit: {error}") from error

        return config

    return wrap


def origin(operator: str, dim: int, dtype: torch.dtype | None, interpreted: bool = False) -> str:
    """Where an operator's settings come from, in words."""
    row = table.find(operator, dim, dtype, INTERPRETER if interpreted else table.architecture())
    if row is None:
        return "static limits (a rule, no row)"
    time = "" if row.milliseconds is None else f", {row.milliseconds:.4g} ms"
    return f"{row.source} (row {row.architecture}, dim {row.dim}, {row.dtype}{time})"


def attention_config(dim: int, dtype: torch.dtype, interpreted: bool = False) -> AttentionConfig:
    """Settings for the larger of the two head dimensions.

    float32 products are split in three on tensor cores, which takes registers: its tiles are smaller. The
    interpreter's time goes by the number of tiles, so there they are large.
    """
    return look_up("attention", AttentionConfig, padded(dim), dtype, interpreted)


@dataclass(frozen=True)
class FieldConfig:
    """Launch settings of the field attention kernels: problems per program, warps, pipeline stages."""

    count: int
    warps: int
    stages: int


@tabled("field_attention", by="fields")
def field_config(fields: int, dim: int, dtype: torch.dtype, interpreted: bool = False) -> FieldConfig:
    """Settings for a number of fields and the larger of the two head dimensions.

    A tile of 64 by 64 logits is a third of the registers of four warps; problems that are smaller share a
    program, so that as many bytes are under way.
    """
    size = padded(fields)
    if interpreted:
        return FieldConfig(2, 4, 1)
    warps = {16: 1, 32: 2, 64: 4}.get(size, 8)
    return FieldConfig(max(1, 64 // size), min(8, 2 * warps) if padded(dim) > 64 else warps, 1)
