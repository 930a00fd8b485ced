"""The examples of docs/hypergraphs.md run, in order, on a small table."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypergraph_tools import clubs
from page_examples import Examples

import graphrec.graph.hypergraph as package

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hypergraphs.md"


def test_the_examples_run(run_examples: Examples) -> None:
    graph = clubs(per_class=30)
    assert graph.y is not None
    features = {f"f{i}": column.numpy() for i, column in enumerate(graph.x.T)}
    people = pl.DataFrame({"vertex": range(len(graph.x)), **features, "label": graph.y.numpy()})
    people.write_parquet("people.parquet")
    pl.DataFrame(graph.incidence.T.numpy(), schema=["vertex", "edge"]).write_parquet("memberships.parquet")
    _, printed = run_examples(PAGE, 4)
    assert "'accuracy'" in printed
    assert Path("reliability.png").stat().st_size > 1000


def test_every_public_name_exists() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing
