"""The examples of docs/graphs.md run, in order, on small files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from graph_tools import PATH, POINT, TRIANGLE, tu_text, write
from page_examples import Examples

PAGE = Path(__file__).resolve().parents[2] / "docs" / "graphs.md"


def graph_tables() -> None:
    names = [f"g{i}" for i in range(12)]
    nodes = pl.DataFrame(
        {"graph": [g for g in names for _ in range(3)], "node": [0, 1, 2] * 12, "f": np.arange(36.0)}
    )
    edges = pl.DataFrame({"graph": names, "source": [0] * 12, "target": [2] * 12})
    nodes.write_parquet("nodes.parquet")
    edges.write_parquet("edges.parquet")
    pl.DataFrame({"graph": names, "label": ["a", "b"] * 6}).write_parquet("labels.parquet")


def tu_files() -> None:
    write(Path("MUTAG/MUTAG.txt"), tu_text(TRIANGLE, POINT, PATH, TRIANGLE))
    for k in range(4):
        write(Path(f"MUTAG/10fold_idx/test_idx-{k + 1}.txt"), f"{k}\n")
        write(Path(f"MUTAG/10fold_idx/train_idx-{k + 1}.txt"), "\n".join(str(i) for i in range(4) if i != k))


def node_tables() -> None:
    parts = ["train", "valid", "test", None]
    papers = pl.DataFrame(
        {"node": list("abcd"), "f": [1.0, 2.0, 3.0, 4.0], "label": [0, 1, 0, None], "part": parts}
    )
    papers.write_parquet("papers.parquet")
    pl.DataFrame({"source": ["a", "b"], "target": ["b", "d"]}).write_parquet("citations.parquet")
    people = pl.DataFrame({"vertex": np.arange(40), "f": np.arange(40.0), "label": [0, 1] * 20})
    people.write_parquet("people.parquet")
    pl.DataFrame({"vertex": np.arange(30), "edge": np.arange(30) // 3}).write_parquet("memberships.parquet")


def eeg_table() -> None:
    trial = np.repeat(np.arange(8), 1280)
    table = pl.DataFrame({"trial": trial, "person": trial // 2, "state": trial % 2})
    noise = np.random.default_rng(0).normal(size=(2, len(trial)))
    table.with_columns(O1=pl.Series(noise[0]), O2=pl.Series(noise[1])).write_parquet("eeg.parquet")


def relation_files() -> None:
    Path("nary").mkdir()
    for k in range(3):
        rows = [
            {
                "token": ["drug", str(k), "helps", str(i)],
                "stanford_pos": ["NN"] * 4,
                "stanford_head": [3, 1, 0, 3],
                "stanford_deprel": ["nsubj", "num", "root", "dobj"],
                "relation": "yes" if i % 2 else "None",
                "first_start": 0,
                "first_end": 0,
                "second_start": 3,
                "second_end": 3,
            }
            for i in range(20)
        ]
        write(Path(f"nary/fold{k}.test.json"), json.dumps(rows))


def test_the_examples_run(run_examples: Examples) -> None:
    for make in (graph_tables, tu_files, node_tables, eeg_table, relation_files):
        make()
    _, printed = run_examples(PAGE, 9)
    assert (
        "edges: row 1: column 'target' names a node that its graph does not have (99); add the node or"
        in printed
    )
    assert "split 0: train 1, valid 1, test 1; 1 of 4 in no part (3)" in printed


def test_every_public_name_of_the_packages_exists_and_most_are_on_the_page() -> None:
    import graphrec.pipelines.eeg as eeg
    import graphrec.pipelines.graphs as graphs
    import graphrec.pipelines.hypergraphs as hypergraphs
    import graphrec.pipelines.relations as relations

    page = PAGE.read_text(encoding="utf-8")
    for package in (graphs, hypergraphs, eeg, relations):
        for name in package.__all__:
            assert getattr(package, name) is not None
            assert name in page or not name.startswith("read_"), f"{name} is not in docs/graphs.md"
        with pytest.raises(AttributeError):
            _ = package.nothing
