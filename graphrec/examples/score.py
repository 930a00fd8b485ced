"""From raw rows to scores, as a server would: onnxruntime, numpy and the exported encoder, without torch.

    python -m graphrec.examples.score EXPORT_FOLDER rows.jsonl

reads one JSON object per line (``-`` for standard input) and prints ``{"click": 0.0123}`` for each, in order.
`Server` does the same inside a program.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import DataError, GraphrecError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 1024


class Server:
    """An exported model that scores raw rows.

    Args:
        folder: What ``graphrec export RUN --format onnx --out FOLDER`` wrote.

    Raises:
        RunError: The folder holds no ONNX export of this version.
    """

    def __init__(self, folder: str | Path) -> None:
        import onnxruntime

        from graphrec.pipelines.tables import TableEncoder

        folder = Path(folder)
        facts = _facts(folder)
        self.labels: list[str] = facts["labels"]
        self._inputs = [entry["name"] for entry in facts["inputs"]]
        self._encoder = TableEncoder.load(folder / "encoder")
        self._session = onnxruntime.InferenceSession(
            str(folder / facts["file"]), providers=["CPUExecutionProvider"]
        )

    def score(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """Probabilities of each row, (rows, labels); a missing key is a missing value.

        Raises:
            DataError: A value cannot be what its column is.
        """
        import polars as pl

        if not rows:
            return np.zeros((0, len(self.labels)), np.float32)
        names = [column.name for column in self._encoder.schema.features]
        columns = [pl.Series(name, [row.get(name) for row in rows], strict=False) for name in names]
        encoded = next(self._encoder.blocks(pl.DataFrame(columns), len(rows)))
        feed = {"categorical": encoded.categorical, "numeric": encoded.numeric}
        feed |= {
            f"list_{f.name}": ids for f, ids in zip(self._encoder.spec.lists, encoded.lists, strict=True)
        }
        return np.asarray(self._session.run(["probability"], {name: feed[name] for name in self._inputs})[0])


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: is no export folder ({error}); make one with `graphrec export`") from error
    if facts.get("format") != "onnx" or facts.get("format_version") != 1:
        raise RunError(
            f"{folder}: is not an ONNX export of format 1; make one with `graphrec export --format onnx`"
        )
    return facts


def score_lines(server: Server, lines: Iterable[str]) -> Iterator[str]:
    """One line of JSON scores per line of JSON, in order.

    Raises:
        DataError: A line is no JSON object, or a value cannot be what its column is.
    """
    rows = (_row(line, number) for number, line in enumerate(lines, 1) if line.strip())
    while part := list(islice(rows, BATCH)):
        for values in server.score(part):
            yield json.dumps(dict(zip(server.labels, map(float, values), strict=True)))


def _row(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"line {number}: is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"line {number}: holds a {type(row).__name__}, not an object with a key per column")
    return row


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    if len(arguments) != 2:
        print("usage: python -m graphrec.examples.score EXPORT_FOLDER rows.jsonl", file=sys.stderr)
        return 2
    try:
        server = Server(arguments[0])
        with sys.stdin if arguments[1] == "-" else open(arguments[1], encoding="utf-8") as lines:
            for line in score_lines(server, lines):
                print(line)
    except (GraphrecError, OSError, ValueError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
