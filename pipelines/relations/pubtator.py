"""BioCreative V CDR in PubTator's format: abstracts, mentions of chemicals and diseases, and who induces
what.

Each document is ``id|t|title``, ``id|a|abstract``, lines ``id <tab> start <tab> end <tab> text <tab> kind
<tab> concept`` and lines ``id <tab> CID <tab> chemical <tab> disease``; an empty line ends it. Positions
count characters in the title, a space and the abstract.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from graphrec.errors import DataError

from .builder import Builder
from .container import RelationSet
from .text_files import read_lines
from .tokens import tokenise

KINDS = ("Chemical", "Disease")


@dataclass
class _Document:
    number: str
    line: int
    title: str
    abstract: str | None = None
    mentions: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    relations: set[tuple[str, str]] = field(default_factory=set)

    @property
    def text(self) -> str:
        return f"{self.title} {self.abstract or ''}"


def read_pubtator(
    path: str | Path, *, relation: str = "CID", negative: str = "None", classes: tuple[str, ...] | None = None
) -> RelationSet:
    """One instance for every chemical and disease that a document mentions; entity 0 is the chemical.

    Concepts without an identifier (``-1``) give no instance. A relation between concepts that the document
    does not mention gives none either and counts as missed in the task's official evaluation;
    `count_unreachable` tells how many there are. The set has no parses; `RelationSet.with_chain` gives edges
    along the text.

    Args:
        path: The file, plain or gzipped.
        relation: Name of the relation in the file.
        negative: Class of the pairs that are not related.
        classes: Text of the classes; ``(negative, relation)`` by default.

    Raises:
        DataError: A line is broken, a mention is not at its place in the text, or a document is cut short;
            names the line.
    """
    builder = Builder(str(path), len(KINDS))
    for document in _documents(path, relation):
        tokens, first, last = tokenise(document.text)
        text = builder.add_text(tokens)
        spans = {k: [_tokens_of(s, first, last) for s in v] for k, v in document.mentions.items()}
        for chemical in (c for kind, c in spans if kind == KINDS[0]):
            for disease in (d for kind, d in spans if kind == KINDS[1]):
                found = [(0, a, b) for a, b in spans[KINDS[0], chemical]]
                found += [(1, a, b) for a, b in spans[KINDS[1], disease]]
                related = (chemical, disease) in document.relations
                builder.add_instance(text, found, relation if related else negative)
    return builder.finish(classes or (negative, relation))


def count_unreachable(path: str | Path, relation: str = "CID") -> int:
    """Relations of the file whose chemical or disease the document does not mention: without an instance."""
    return sum(
        1
        for document in _documents(path, relation)
        for chemical, disease in document.relations
        if (KINDS[0], chemical) not in document.mentions or (KINDS[1], disease) not in document.mentions
    )


def _tokens_of(span: tuple[int, int], first: list[int], last: list[int]) -> tuple[int, int]:
    """First token that a mention touches, and the one after the last."""
    from bisect import bisect_left, bisect_right

    return bisect_right(last, span[0]), bisect_left(first, span[1])


def _documents(path: str | Path, relation: str) -> list[_Document]:
    found: list[_Document] = []
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}: line {number}"
        head = line.split("|", 2)
        if len(head) == 3 and head[1] in ("t", "a"):
            _begin(found, head, number, where)
        elif line.strip():
            _annotate(found, line.split("\t"), relation, where)
    if not found or found[-1].abstract is None:
        raise DataError(
            f"{path}: "
            f"{'holds no documents' if not found else 'the last document has no abstract; cut short?'}"
        )
    return found


def _begin(found: list[_Document], head: list[str], number: int, where: str) -> None:
    if head[1] == "t":
        if found and found[-1].abstract is None:
            raise DataError(f"{where}: document {found[-1].number} has no abstract")
        found.append(_Document(head[0], number, head[2]))
    elif not found or found[-1].number != head[0] or found[-1].abstract is not None:
        raise DataError(f"{where}: an abstract without its title")
    else:
        found[-1].abstract = head[2]


def _annotate(found: list[_Document], parts: list[str], relation: str, where: str) -> None:
    if not found or found[-1].number != parts[0] or found[-1].abstract is None:
        raise DataError(f"{where}: does not belong to the document above it")
    document = found[-1]
    if len(parts) == 4 and not parts[1].isdecimal():
        if parts[1] == relation:
            document.relations.add((parts[2], parts[3]))
        return
    if len(parts) < 6 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise DataError(f"{where}: must be six fields: document, start, end, text, kind, concept; cut short?")
    first, last = int(parts[1]), int(parts[2])
    if first >= last:
        raise DataError(f"{where}: a mention from {first} to {last} has no characters")
    if document.text[first:last] != parts[3]:
        raise DataError(
            f"{where}: the text has {document.text[first:last]!r} at {first} to {last}, not {parts[3]!r}"
        )
    for concept in parts[5].split("|"):
        if concept != "-1" and parts[4] in KINDS:
            document.mentions.setdefault((parts[4], concept), []).append((first, last))
