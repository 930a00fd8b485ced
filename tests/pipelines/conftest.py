"""Tables that the tests of graphrec.pipelines.tables share."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from table_log import make_log


@pytest.fixture
def log() -> pl.DataFrame:
    return make_log()


@pytest.fixture
def log_path(log: pl.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "log.parquet"
    log.write_parquet(path, row_group_size=170)
    return path
