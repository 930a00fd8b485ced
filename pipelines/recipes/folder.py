"""Where the files of a recipe lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from graphrec.errors import DataError

VARIABLE = "GRAPHREC_DATA"
SHIPPED = "shipped:"


@dataclass(frozen=True)
class DataFolder:
    """The folder below which a recipe's relative paths are looked for.

    Attributes:
        path: The folder.
        named_by: What named it, for messages.
        origin: Where the recipe's data can be had.
    """

    path: Path
    named_by: str = "the current folder"
    origin: str = ""

    @classmethod
    def find(cls, given: str | Path | None = None, origin: str = "") -> DataFolder:
        """The folder given, else that of the variable GRAPHREC_DATA, else the current one.

        Raises:
            DataError: It is no folder.
        """
        named = os.environ.get(VARIABLE)
        path, by = (given, "--data") if given is not None else (named, VARIABLE)
        if not path:
            return cls(Path(), origin=origin)
        if not Path(path).is_dir():
            raise DataError(f"{by}: {path} is not a folder; name the one that holds the data sets")
        return cls(Path(path), by, origin)

    def file(self, path: str, key: str = "data.path") -> Path:
        """A file or folder that must be there; ``shipped:NAME`` is one that came with the package.

        Raises:
            DataError: It is missing; says where it was looked for and where it can be had.
        """
        if path.startswith(SHIPPED):
            return Path(str(resources.files("graphrec.data").joinpath(path.removeprefix(SHIPPED))))
        found = self.path / Path(path).expanduser()
        if found.exists():
            return found
        hint = f"; it can be had from {self.origin}" if self.origin else ""
        where = "" if Path(path).is_absolute() else f" (below {self.named_by})"
        remedy = (
            ""
            if Path(path).is_absolute()
            else f"; name the folder that holds {path} with --data or {VARIABLE}"
        )
        raise DataError(f"{key}: {found} is missing{where}{hint}{remedy}")

    def table(self, path: str, key: str) -> str:
        """A table, which may also be a glob or a URL; those are left to the reader.

        Raises:
            DataError: An ordinary file is missing.
        """
        if "://" in path or any(sign in path for sign in "*?["):
            return path if "://" in path else str(self.path / path)
        return str(self.file(path, key))
