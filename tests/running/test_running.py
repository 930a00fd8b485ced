"""Recipes carried out: what a run leaves, that it repeats, and that it goes on where it was stopped."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from graphrec.errors import ConfigError, DataError, NonFiniteLossError, RunError, SchemaError
from graphrec.graph import GraphClassifier
from graphrec.pipelines.graphs import motif_graphs
from graphrec.pipelines.recipes import DataFolder, list_recipes, read_recipe
from graphrec.running import check_recipe, run_recipe
from graphrec.running.fingerprint import fingerprint
from graphrec.running.results import Repetition, main_metric, summarise
from graphrec.running.tasks import TASKS, find_task

TINY: dict[str, Any] = {
    "title": "Tiny trees",
    "task": "graph_classification",
    "data": {"source": "motifs", "graphs": 24, "nodes": 8},
    "split": {"kind": "stratified", "folds": 2, "valid": 0.2},
    "model": {"name": "histograph", "options": {"hidden": 8, "layers": 2}},
    "training": {"epochs": 2, "batch_size": 12},
    "published": {"histograph": 0.9},
    "variants": {"histograph": {}, "gin": {"model.name": "gin"}},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run."""
    return run_recipe(TINY, tmp_path_factory.mktemp("runs") / "tiny", seeds=2)


def test_a_run_leaves_everything_that_repeats_and_explains_it(done: Any) -> None:
    names = {str(path.relative_to(done.folder)) for path in done.folder.rglob("*") if path.is_file()}
    assert names >= {
        "recipe.yaml",
        "metrics.json",
        "results.csv",
        "run.json",
        "report.html",
        "figures/spread.png",
        "figures/spread.svg",
        "figures/training-loss.svg",
        "figures/histograph-attention.png",
        "figures/gin-confusion.svg",
        "repetitions/gin/seed-1-split-1/history.csv",
        "repetitions/histograph/seed-0-split-0/model/model.safetensors",
    }
    assert not any("seed-1-split-1/model" in name for name in names), "only the first model is kept"
    assert not done.folder.with_name("tiny.partial").exists()
    recipe = yaml.safe_load((done.folder / "recipe.yaml").read_text())
    assert recipe["repeat"]["seeds"] == 2
    assert recipe["chosen"] == ["histograph", "gin"]
    info = json.loads((done.folder / "run.json").read_text())
    assert info["fingerprint"] == fingerprint(motif_graphs(24, nodes=8))
    assert torch.__version__.startswith(info["origin"]["torch"])


def test_means_and_table_are_those_of_the_repetitions(done: Any) -> None:
    with (done.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    values = [float(row["test/accuracy"]) for row in rows if row["variant"] == "gin"]
    metrics = json.loads((done.folder / "metrics.json").read_text())
    found = metrics["summary"]["gin"]["test/accuracy"]
    mean = sum(values) / 4
    assert found["n"] == 4
    assert found["mean"] == pytest.approx(mean)
    assert found["std"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 3) ** 0.5)
    assert done.metric == metrics["metric"] == "test/accuracy"


def test_the_page_shows_results_pictures_and_how_to_repeat(done: Any) -> None:
    page = (done.folder / "report.html").read_text()
    mean = done.summary["gin"]["test/accuracy"]["mean"]
    for text in (
        f"{mean:.4f} ±",
        "Attention: histograph",
        "Test accuracy",
        "graphrec run",
        "0.900",
        "Log loss",
    ):
        assert text in page, text
    assert "<script" not in page
    assert page.count("<svg") >= 5


def test_the_kept_model_predicts(done: Any) -> None:
    folder = done.folder / "repetitions/histograph/seed-0-split-0"
    model = GraphClassifier.load(folder / "model")
    record = json.loads((folder / "repetition.json").read_text())
    graphs = motif_graphs(24, nodes=8)
    assert model.predict(graphs).shape == (24,)
    assert record["metrics"]["test/accuracy"] == pytest.approx(model.metrics_["test"]["accuracy"])


def test_the_resolved_recipe_gives_the_same_numbers(done: Any, tmp_path: Path) -> None:
    again = run_recipe(done.folder / "recipe.yaml", tmp_path / "again", changes={"figures": []})
    assert again.summary == done.summary
    other = run_recipe(TINY, tmp_path / "other", seeds=[5], variants=["gin"], changes={"figures": []})
    first = [one.metrics["test/logloss"] for one in done.repetitions if one.variant == "gin"]
    assert other.repetitions[0].metrics["test/logloss"] not in first


def test_an_unfinished_run_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {**TINY, "figures": []}
    whole = run_recipe(tiny, tmp_path / "whole")
    task = find_task("graph_classification")
    calls = []

    def stop(job: Any) -> Any:
        calls.append(job)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return task.run(job)

    monkeypatch.setattr(
        "graphrec.running.runner.check_recipe", lambda *a: type(task)(**{**vars(task), "run": stop})
    )
    with pytest.raises(KeyboardInterrupt):
        run_recipe(tiny, tmp_path / "cut")
    monkeypatch.undo()
    partial = tmp_path / "cut.partial"
    kept = {path: path.stat().st_mtime_ns for path in partial.rglob("repetition.json")}
    assert len(kept) == 2
    with pytest.raises(RunError, match=r"unfinished run; continue it with --resume"):
        run_recipe(tiny, tmp_path / "cut")
    with pytest.raises(RunError, match=r"was started with training.epochs=2, not 3"):
        run_recipe(tiny, tmp_path / "cut", resume=True, changes={"training.epochs": 3})
    (partial / "data.json").write_text('{"data": "others", "fingerprint": "0"}')
    with pytest.raises(RunError, match=r"was started on other data \(others\)"):
        run_recipe(tiny, tmp_path / "cut", resume=True)
    (partial / "data.json").unlink()
    resumed = run_recipe(tiny, tmp_path / "cut", resume=True)
    assert resumed.summary == whole.summary
    for path, changed in kept.items():
        assert (tmp_path / "cut" / path.relative_to(partial)).stat().st_mtime_ns == changed
    with pytest.raises(RunError, match=r"run folder exists already"):
        run_recipe(tiny, tmp_path / "cut")


@pytest.mark.parametrize(
    "damage",
    [
        lambda one: (one / "repetition.json").write_bytes(b""),
        lambda one: (one / "repetition.json").write_text("[1]"),
        lambda one: (one / "history.csv").unlink(),
        lambda one: (one / "history.csv").write_bytes((one / "history.csv").read_bytes()[:-3]),
        lambda one: (one / "history.csv").write_bytes(b"\xff\n"),
        lambda one: (one / "history.csv").write_text("epoch\n"),
    ],
)
def test_a_repetition_that_a_power_cut_damaged_is_made_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    tiny = {**TINY, "figures": [], "repeat": {"seeds": 1}}
    whole = run_recipe(tiny, tmp_path / "run")
    partial = (tmp_path / "run").rename(tmp_path / "run.partial")
    first, *_ = sorted(path.parent for path in partial.rglob("repetition.json"))
    damage(first)
    with pytest.warns(UserWarning, match="that repetition is made again"):
        resumed = run_recipe(tiny, tmp_path / "run", resume=True)
    assert resumed.summary == whole.summary


def test_a_disk_too_full_for_the_results_is_told_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tiny = {**TINY, "figures": [], "repeat": {"seeds": 1}}
    with monkeypatch.context() as patched:
        patched.setattr("graphrec.running.runner.finish_folder", full)
        with pytest.raises(RunError, match=r"run\.partial: cannot be written \(No space left on device\)"):
            run_recipe(tiny, tmp_path / "run")
    assert run_recipe(tiny, tmp_path / "run", resume=True).folder.is_dir()


KILLED = """
import sys
from graphrec.running import run_recipe
import yaml
recipe = yaml.safe_load(open(sys.argv[1]))
run_recipe(recipe, sys.argv[2], resume=True)
"""


def test_a_killed_process_is_continued(tmp_path: Path) -> None:
    recipe = {**TINY, "training": {"epochs": 12, "batch_size": 6, "patience": None}, "variants": {}}
    recipe = {**recipe, "figures": [], "repeat": {"seeds": 1}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "tiny.yaml"), str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        first = tmp_path / "run.partial/repetitions/histograph/seed-0-split-0/repetition.json"
        deadline = time.monotonic() + 120
        while not first.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert first.exists()
    assert not (tmp_path / "run").exists()
    before = first.read_bytes()
    run_recipe(recipe, tmp_path / "run", resume=True)
    after = tmp_path / "run/repetitions/histograph/seed-0-split-0/repetition.json"
    assert after.read_bytes() == before
    assert not list((tmp_path / "run").rglob("*.tmp"))


WRONG = {
    "task": ("graph_clasification", r"task: there is no 'graph_clasification'; did you mean graph_classif"),
    "task ": (
        "node_classification",
        r"data.source: 'motifs' gives many graphs, node_classification takes one",
    ),
    "figures": (["atention"], r"figures: graph_classification draws no 'atention'; did you mean attention"),
    "model.name": ("histogram", r"variants.histograph: model: .*no 'histogram'; did you mean histograph"),
    "model.options.hiden": (3, r"variants.histograph: model: hiden: histograph has no such option"),
    "model.options.conv": ("gon", r"variants.histograph: model: conv='gon': must be one of gcn"),
    "training.epoch": (3, r"training.epoch: there is no such setting; did you mean epochs\?"),
    "training.epochs": ("many", r"training.epochs: should be a valid integer.*found 'many'"),
    "training.batch_size": (0, r"training: batch_size: should be greater than or equal to 1, got 0"),
    "training.clip_norm": (-1, r"training: clip_norm: should be greater than 0, got -1"),
    "training.epochs ": (True, r"training.epochs: should not be true or false, found True"),
    "data.graphs": (True, r"data.graphs: should not be true or false, found True"),
    "repeat.seeds ": (
        20_260,
        r"repeat.seeds: must be at most 10000 seeds, from 0 on; one alone is a list, \[",
    ),
    "published": ({"gin": True}, r"published: must be numbers, not true or false"),
    "repeat.seeds": (True, r"repeat.seeds: must be numbers, not true or false, found True"),
    "repeat.splits": (
        [0, 0],
        r"repeat.splits: must be 'all', or a list of different numbers of splits, found",
    ),
    "repeat.splits ": ([], r"repeat.splits: must be 'all', or a list of different numbers of splits, found"),
    "split.valid": (-0.5, r"valid=-0.5: must lie between 0 and 1"),
    "metric": ("acuracy", r"metric: graph_classification measures no 'acuracy'; did you mean accuracy\?"),
    "metric ": (
        "tset/accuracy",
        r"metric: graph_classification measures on no part 'tset'; did you mean test\?",
    ),
    "metric  ": ("accuracy/test", r"metric: graph_classification measures on no part 'accuracy'"),
    "model.options.readout_options": (
        {"floor": 0.1},
        r"variants.gin: model: readout_options: floor are of readout='histograph', found readout='sum'",
    ),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_is_wrong_is_said_before_anything_is_read_or_written(key: str, tmp_path: Path) -> None:
    value, message = WRONG[key]
    with pytest.raises(ConfigError, match=message):
        run_recipe(TINY, tmp_path / "run", changes={key.strip(): value})
    assert list(tmp_path.iterdir()) == []


def test_wrong_splits_and_metrics_are_said_early(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"repeat.splits: there is no split 2; they are 0 to 1"):
        run_recipe(TINY, tmp_path / "run", changes={"repeat.splits": [2]})
    several = {**TINY, "data": {**TINY["data"], "classes": 3}, "metric": "auc"}
    with pytest.raises(ConfigError, match=r"metric: graph_classification of 3 classes measures no 'auc'"):
        run_recipe(several, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_a_folder_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(RunError, match="give the name of a folder to make"):
        run_recipe(TINY, name)


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    tiny = {**TINY, "figures": [], "repeat": {"splits": [0]}, "variants": {}}
    run_recipe(tiny, tmp_path / "whole")
    (tmp_path / "whole").rename(tmp_path / "run.partial")
    place = tmp_path / "run.partial/repetitions/histograph"
    (place / "seed-0-split-0").rename(place / ".seed-0-split-0.1.tmp")
    (place / ".seed-0-split-0.1.tmp" / "repetition.json").unlink()
    run_recipe(tiny, tmp_path / "run", resume=True)
    assert [one.name for one in (tmp_path / "run/repetitions/histograph").iterdir()] == ["seed-0-split-0"]


@pytest.mark.parametrize("name", [one.name for one in list_recipes()])
def test_every_shipped_recipe_is_right(name: str) -> None:
    recipe = read_recipe(name)
    task = check_recipe(recipe, recipe.choose([]))
    assert task.name in TASKS
    assert recipe.about
    assert set(recipe.chosen) <= set(recipe.names)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in list_recipes()])
def test_every_variant_of_a_shipped_recipe_is_right(name: str) -> None:
    check_recipe(read_recipe(name))


@pytest.mark.data
@pytest.mark.parametrize("name", [one.name for one in list_recipes()])
def test_every_shipped_recipe_runs_on_its_data(name: str, tmp_path: Path) -> None:
    """One epoch of the first variant that runs, on one split."""
    if name.startswith("histn-dreamer") and not (DataFolder.find().path / "DREAMER.mat").exists():
        pytest.skip("DREAMER.mat is not there: its authors give it out on request")
    variant = read_recipe(name).choose([])[0]
    changes = {"training.epochs": 1, "repeat": {"seeds": 1, "splits": [0]}, "figures": []}
    run = run_recipe(name, tmp_path / "run", changes=changes, variants=[variant])
    assert run.repetitions[0].metrics[run.metric] is not None


def test_a_metric_to_stop_by_that_nothing_measures_is_said_before_any_data_are_read(tmp_path: Path) -> None:
    wrong = {"data.source": "tu_text", "data.path": "missing.txt", "training.monitor": "acuracy"}
    tiny = {**TINY, "data": {}}
    message = (
        r"training\.monitor: validation in graph_classification measures no 'acuracy'; did you mean accuracy"
    )
    with pytest.raises(ConfigError, match=message):
        run_recipe(tiny, tmp_path / "run", changes=wrong)
    with pytest.raises(
        ConfigError, match=r"variants\.tfidf: training\.monitor: .* measures no 'f1' \(accuracy"
    ):
        check_recipe(read_recipe("bioie-cdr", {"training.monitor": "f1"}), ["tfidf"])
    with pytest.raises(
        ConfigError, match=r"training\.monitor: validation in click_prediction measures no 'auk'"
    ):
        check_recipe(read_recipe("ctr-shoppers", {"training.monitor": "auk"}))
    check_recipe(read_recipe("histn-eye-state", {"training.monitor": "seq2hr"}))  # of three classes and more
    three = {**TINY, "data": {**TINY["data"], "classes": 3}}
    with pytest.raises(
        ConfigError, match=r"validation in graph_classification of 3 classes measures no 'auc'"
    ):
        run_recipe(
            three,
            tmp_path / "run",
            changes={"variants.gin": {"model.name": "gin", "training.monitor": "auc"}},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_reads_tables_of_ones_own(tmp_path: Path) -> None:
    rows = [f"{i},{i % 3},{i % 2},{'ab'[i % 2]}" for i in range(30)]
    (tmp_path / "people.csv").write_text("\n".join(["node,age,size,side", *rows]), encoding="utf-8")
    pairs = [f"{i},{(i + 2) % 30}" for i in range(30)]
    (tmp_path / "links.csv").write_text("\n".join(["who,whom", *pairs]), encoding="utf-8")
    recipe: dict[str, Any] = {
        "title": "Sides",
        "task": "node_classification",
        "data": {
            "source": "node_tables",
            "nodes": "people.csv",
            "edges": "links.csv",
            "edge_source": "who",
            "edge_target": "whom",
            "label": "side",
            "undirected": True,
        },
        "split": {"kind": "stratified", "folds": 3, "valid": 0.2},
        "model": {"name": "gcn", "options": {"hidden": 8, "dropout": 0.0}},
        "training": {"epochs": 30},
        "repeat": {"splits": [0]},
    }
    run = run_recipe(recipe, tmp_path / "run", data=tmp_path)
    assert run.repetitions[0].metrics["test/accuracy"] == 1.0  # neighbours are of one side
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["data"]["source"] == "node_tables"
    with pytest.raises(
        SchemaError, match=r"people.csv: column 'team' \(argument label\) is missing; it has node"
    ):
        run_recipe(recipe, tmp_path / "again", data=tmp_path, changes={"data.label": "team"})
    with pytest.raises(ConfigError, match=r"training: batch_size: every step takes the whole graph; leave"):
        run_recipe(recipe, tmp_path / "again", data=tmp_path, changes={"training.batch_size": 8})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["links.csv", "people.csv", "run"]
    assert "validation accuracy" in (tmp_path / "run/figures/validation.svg").read_text()


def test_what_fails_in_a_repetition_says_which(tmp_path: Path) -> None:
    changes = {"training.learning_rate": 1e30, "training.clip_norm": None, "figures": [], "split.valid": 0}
    with pytest.raises(NonFiniteLossError, match=r"^gin, seed 0, split 0: "):
        run_recipe(TINY, tmp_path / "run", variants=["gin"], changes=changes)
    assert list(tmp_path.iterdir()) == [], "what cannot be trained leaves nothing"


def test_the_folder_of_a_recipe_is_no_fitted_model(done: Any) -> None:
    from graphrec import CTRClassifier

    with pytest.raises(RunError, match=r"is the run of a recipe; the models it kept"):
        CTRClassifier.load(done.folder)


def test_hypergraphs_in_both_settings(tmp_path: Path) -> None:
    import polars as pl

    people = pl.DataFrame({"vertex": range(60), "label": [i % 2 for i in range(60)]})
    people = people.with_columns(a=pl.col("label") * 1.0 + 0.1, b=pl.lit(1.0))
    members = pl.DataFrame(
        {"edge": [i // 3 for i in range(60)], "vertex": [(i * 2) % 60 + i // 30 for i in range(60)]}
    )
    people.write_parquet(tmp_path / "people.parquet")
    members.write_parquet(tmp_path / "members.parquet")
    recipe = {
        "title": "People",
        "task": "hypergraph_classification",
        "data": {"source": "incidence_tables", "incidence": "members.parquet", "vertices": "people.parquet"},
        "split": {"kind": "transductive", "train": 8, "valid": 8},
        "model": {"name": "lighthgnnp", "options": {"hidden": 4, "student_hidden": 8}},
        "training": {"epochs": 5},
    }
    run = run_recipe(recipe, tmp_path / "run", data=tmp_path)
    assert list(run.summary) == ["lighthgnnp"]
    assert (run.folder / "figures/lighthgnnp-reliability.png").exists()
    stages = {row["stage"] for row in run.repetitions[0].history}
    assert stages == {"teacher", "student"}
    split = {"kind": "production", "train": 8, "valid": 8, "unseen": 0.5}
    changes = {"split": split, "metric": "inductive/accuracy", "figures": []}
    run = run_recipe(recipe, tmp_path / "production", data=tmp_path, changes=changes)
    assert set(run.summary["lighthgnnp"]) >= {"inductive/accuracy", "transductive/accuracy", "all/accuracy"}
    for key, message in (("layers", "should be a valid integer"), ("width", "there is no such setting")):
        with pytest.raises(ConfigError, match=rf"model.options.{key}: {message}"):
            run_recipe(recipe, tmp_path / "other", data=tmp_path, changes={f"model.options.{key}": "x"})


def test_a_table_is_fitted_as_graphrec_fit_does(tmp_path: Path) -> None:
    changes = {"training.epochs": 1, "training.accelerator": "cpu"}
    run = run_recipe("ctr-shoppers", tmp_path / "run", seeds=1, variants=["lr"], changes=changes)
    assert run.metric == "test/auc"
    assert run.summary["lr"]["test/auc"]["mean"] > 0.7
    with pytest.raises(ConfigError, match=r"training: epoch: no such setting; did you mean epochs"):
        run_recipe("ctr-shoppers", tmp_path / "other", variants=["lr"], changes={"training.epoch": 1})


def test_a_missing_file_is_said_with_its_origin(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data.path: .*planetoid is missing.*it can be had from https://github"
    ):
        run_recipe("histograph-cora", tmp_path / "run", data=tmp_path, variants=["gcn-2"])


def test_summary_leaves_out_what_is_undefined() -> None:
    def one(value: float | None) -> Repetition:
        return Repetition("a", 0, 0, "", {"test/auc": value}, {}, 1, 0.1)

    found = summarise([one(0.5), one(None), one(0.7)])["a"]["test/auc"]
    assert found == {"mean": pytest.approx(0.6), "std": pytest.approx(0.1 * 2**0.5), "n": 2}
    assert summarise([one(None)])["a"]["test/auc"] == {"mean": None, "std": None, "n": 0}
    assert main_metric("accuracy", ["valid/accuracy", "test/accuracy"]) == "test/accuracy"
    assert main_metric("valid/accuracy", ["valid/accuracy", "test/accuracy"]) == "valid/accuracy"


def test_the_fingerprint_sees_every_value() -> None:
    first = fingerprint(motif_graphs(10, seed=0))
    assert first == fingerprint(motif_graphs(10, seed=0))
    assert first != fingerprint(motif_graphs(10, seed=1))
    other = motif_graphs(10, seed=0)
    other.x[3, 0] = 2
    assert first != fingerprint(other)


def test_a_source_may_bring_its_own_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec.pipelines.index_splits import stratified_folds
    from graphrec.pipelines.recipes import SOURCES, Divided, Vocabulary

    def folded(folder: DataFolder, *, folds: int = 3) -> Divided:
        graphs = motif_graphs(24, nodes=8)
        return Divided(graphs, stratified_folds(graphs.y, folds))

    entry = Vocabulary("data", "source")
    folded.__annotations__ = {"folds": int}
    entry.register("graphs")(folded)
    monkeypatch.setitem(SOURCES.entries, "folded", entry.entries["folded"])
    changes = {"data": {"source": "folded"}, "split": {"kind": "given"}, "figures": []}
    run = run_recipe(TINY, tmp_path / "run", variants=["gin"], changes=changes)
    assert [one.split for one in run.repetitions] == [0, 1, 2]
    changes["data"] = TINY["data"]
    with pytest.raises(ConfigError, match=r"split.kind: the source gives no splits"):
        run_recipe(TINY, tmp_path / "other", changes=changes)
