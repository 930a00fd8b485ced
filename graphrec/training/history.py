"""What happened during training: one row per evaluation."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class History:
    """The rows of a training run.

    Attributes:
        rows: One dict per evaluation: ``epoch`` (counted from 1; a fraction inside an epoch), ``step``
            (optimiser steps so far), ``train_loss`` (mean per row since the row before), ``valid_<metric>``
            for each validation metric, ``lr``, ``seconds`` and ``rows_per_s`` of training since the row
            before (evaluation not counted), and ``best`` (whether the weights were the best so far).
        stopped: Why training ended: ``"epochs"``, or ``"patience"``.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = "epochs"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row whose weights were kept, or None when there are no rows."""
        return next((row for row in reversed(self.rows) if row["best"]), self.rows[-1] if self.rows else None)

    def to_csv(self, path: str | Path) -> None:
        """Write the rows under a header; a value that is undefined is left empty."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        temporary = Path(f"{path}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, path)
