"""ChemProt (BioCreative VI) as JSON lines, the entities marked ``<< … >>`` and ``[[ … ]]`` in the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from graphrec.errors import DataError

from .builder import Builder
from .container import RelationSet
from .text_files import read_lines
from .tokens import tokenise

MARKS = (("<< ", " >>"), ("[[ ", " ]]"))


def read_chemprot(path: str | Path, *, classes: Sequence[str] | None = None) -> RelationSet:
    """Sentences with two marked entities; the marks are taken out of the text.

    The set has no parses (`RelationSet.with_chain` gives edges along the sentence) and no class without a
    relation.

    Args:
        path: A file with an object ``{"text": …, "label": …}`` in each line.
        classes: Text of the classes; None takes those that occur, in the order of the alphabet.

    Raises:
        DataError: A line is broken or lacks a mark; names the line.
    """
    builder = Builder(str(path), len(MARKS))
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
            text, label = row["text"], row["label"]
        except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{where}: must be an object with text and label ({error}); cut short?"
            ) from error
        for key, value in (("text", text), ("label", label)):
            if not isinstance(value, str):
                raise DataError(f"{where}: {key} must be a text, found {value!r:.60}")
        plain, spans = _unmarked(text, where)
        tokens, first, last = tokenise(plain)
        found = []
        for entity, (a, b) in enumerate(spans):
            inside = [i for i in range(len(tokens)) if first[i] < b and last[i] > a]
            if not inside:
                raise DataError(f"{where}: entity {entity + 1} is empty")
            found.append((entity, inside[0], inside[-1] + 1))
        builder.add_instance(builder.add_text(tokens), found, label)
    return builder.finish(classes)


def _unmarked(text: str, where: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without marks, and the characters that each entity has in it."""
    cuts: list[tuple[int, int, int, bool]] = []
    for entity, (left, right) in enumerate(MARKS):
        opens = text.find(left)
        closes = text.find(right, opens + len(left)) if opens >= 0 else -1
        if closes < 0:
            raise DataError(f"{where}: entity {entity + 1} is not marked {left.strip()} … {right.strip()}")
        cuts += [(opens, opens + len(left), entity, True), (closes, closes + len(right), entity, False)]
    plain, done = "", 0
    ends: dict[tuple[int, bool], int] = {}
    for begin, end, entity, opening in sorted(cuts):
        plain += text[done:begin]
        ends[entity, opening] = len(plain)
        done = max(done, end)
    return plain + text[done:], [(ends[k, True], ends[k, False]) for k in range(len(MARKS))]
