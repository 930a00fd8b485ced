"""A relation file of any of the kinds that have a reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphrec.errors import ConfigError, DataError

from .chemprot import read_chemprot
from .container import RelationSet
from .nary import read_nary
from .pubtator import read_pubtator

READERS: dict[str, Callable[..., RelationSet]] = {
    "chemprot": read_chemprot,
    "nary": read_nary,
    "pubtator": read_pubtator,
}
_ENDINGS = {".jsonl": "chemprot", ".json": "nary", ".txt": "pubtator", ".pubtator": "pubtator"}


def read_relations(path: str | Path, *, format: str | None = None, **options: Any) -> RelationSet:
    """Read a file by its name, or as told.

    Args:
        path: ``*.jsonl`` is ChemProt's marked sentences, ``*.json`` parsed instances, ``*.txt`` and
            ``*.pubtator`` are PubTator's; all plain or gzipped.
        format: ``"chemprot"``, ``"nary"`` or ``"pubtator"``, whatever the name.
        options: For the reader: `read_chemprot`, `read_nary`, `read_pubtator`.

    Raises:
        ConfigError: ``format`` is none of these.
        DataError: The name tells nothing, or the reader refuses the file.
    """
    if format is not None and format not in READERS:
        raise ConfigError(f"format={format!r}: must be one of {', '.join(READERS)}")
    name = Path(path).name.removesuffix(".gz")
    kind = format or _ENDINGS.get(Path(name).suffix.lower())
    if kind is None:
        raise DataError(
            f"{path}: the name does not end in {', '.join(_ENDINGS)}; say format={'|'.join(READERS)}"
        )
    return READERS[kind](path, **options)
