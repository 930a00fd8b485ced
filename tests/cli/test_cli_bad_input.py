"""Bad input: exit code 2, one line that names file and column, nothing left behind, before any training."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click_log import click_log
from typer.testing import CliRunner

from graphrec.cli import app
from graphrec.pipelines.tables import files
from graphrec.training import Trainer

FIT = ["--label", "click", "--model", "lr", "--epochs", "1", "--quiet", "--device", "cpu"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training at all is a failure."""

    def fit(*_: Any, **__: Any) -> None:
        pytest.fail("training began")

    monkeypatch.setattr(Trainer, "fit", fit)


def write(frame: pl.DataFrame, name: str = "log.parquet") -> None:
    frame.write_parquet(name)


def write_arrow(**columns: pa.Array) -> None:
    base = click_log(40).drop("item_history").to_arrow()
    for name, values in columns.items():
        base = base.append_column(name, values)
    pq.write_table(base, "log.parquet")


def truncated() -> None:
    write(click_log(40))
    whole = Path("log.parquet").read_bytes()
    Path("log.parquet").write_bytes(whole[: len(whole) // 2])


def cut_in_the_middle() -> None:
    """The footer is whole and the rows before it are not."""
    write(click_log(4000))
    whole = Path("log.parquet").read_bytes()
    Path("log.parquet").write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])


def different_schemas() -> None:
    Path("logs").mkdir()
    write(click_log(40), "logs/a.parquet")
    write(click_log(40).with_columns(pl.col("hour").cast(pl.String)), "logs/b.parquet")


def duplicate_names() -> None:
    table = click_log(40).drop("item_history").to_arrow()
    pq.write_table(table.rename_columns(["user_id", "item", "hour", "hour", "click", "like"]), "log.parquet")


def no_row_groups() -> None:
    schema = click_log(4).drop("item_history").to_arrow().schema
    pq.ParquetWriter("log.parquet", schema).close()


def column(**values: Any) -> Callable[[], None]:
    return lambda: write(click_log(40).with_columns(**values))


CASES: dict[str, tuple[Callable[[], None], list[str], str]] = {
    "label missing": (
        lambda: write(click_log(40).rename({"click": "clik"})),
        [],
        r"log\.parquet.*'click'.*'clik'",
    ),
    "label of three values": (
        column(click=pl.Series([0, 1, 2, 1] * 10)),
        [],
        r"log\.parquet.*'click'.*(3|2)",
    ),
    "label of numbers": (column(click=pl.col("price")), [], r"log\.parquet.*'click'"),
    "one class": (column(click=pl.lit(1)), [], r"log\.parquet.*'click'.*(one|only)"),
    "label all null": (column(click=pl.lit(None, pl.Int64)), [], r"log\.parquet.*'click'.*null"),
    "empty table": (lambda: write(click_log(40).head(0)), [], r"log\.parquet.*no rows"),
    "no row groups": (no_row_groups, [], r"log\.parquet.*no rows"),
    "0 bytes": (lambda: Path("log.parquet").touch(), [], r"log\.parquet.*0 bytes"),
    "not parquet": (
        lambda: Path("log.parquet").write_text("user,click\n1,0\n"),
        [],
        r"log\.parquet.*not a parquet",
    ),
    "truncated": (truncated, [], r"log\.parquet.*truncated"),
    "damaged": (cut_in_the_middle, [], r"log\.parquet.*(broken|cannot be read)"),
    "missing file": (lambda: None, [], r"log\.parquet.*no such file"),
    "struct": (column(s=pl.struct("hour", "price")), [], r"log\.parquet.*'s'.*struct"),
    "binary": (column(b=pl.lit(b"x")), [], r"log\.parquet.*'b'.*binary"),
    "list of lists": (column(n=pl.lit([[1, 2]])), [], r"log\.parquet.*'n'.*list of lists"),
    "duplicate names": (duplicate_names, [], r"log\.parquet.*'hour'.*2 times"),
    "negative weight": (column(w=pl.lit(-1.0)), ["--weight", "w"], r"log\.parquet.*'w'.*-1"),
    "NaN weight": (column(w=pl.lit(float("nan"))), ["--weight", "w"], r"log\.parquet.*'w'.*NaN.*40 rows"),
    "text weight": (column(w=pl.lit("a")), ["--weight", "w"], r"log\.parquet.*'w'.*numbers"),
    "weight missing": (column(), ["--weight", "w"], r"log\.parquet.*'w'.*missing"),
    "no feature": (lambda: write(click_log(40).select("click")), [], r"feature"),
    "wrong role": (column(), ["--role", "hour=colour"], r"colour"),
    "role without value": (column(), ["--role", "hour"], r"--role.*key=value"),
    "unknown model": (column(), ["--model", "fnc"], r"'fnc'.*did you mean"),
    "unknown setting": (column(), ["--set", "embeding_dim=3"], r"embeding_dim.*embedding_dim"),
    "wrong setting": (column(), ["--set", "epochs=many"], r"epochs"),
    "wrong fraction": (column(), ["--valid", "1.5"], r"1\.5"),
    "wrong split": (column(), ["--split", "time:nope"], r"'nope'"),
    "no such validation file": (column(), ["--valid", "later.parquet"], r"later\.parquet.*no such file"),
    "no such config": (column(), ["--config", "none.yaml"], r"none\.yaml"),
    "wrong device": (column(), ["--device", "abacus"], r"abacus"),
}


@pytest.mark.parametrize("case", CASES)
def test_fit_refuses_in_one_line_and_leaves_nothing(
    case: str, no_training: None, request: pytest.FixtureRequest
) -> None:
    if case == "wrong device":
        patch = request.getfixturevalue("monkeypatch")
        patch.undo()
        patch.chdir(request.getfixturevalue("tmp_path"))
    make, options, message = CASES[case]
    make()
    before = sorted(Path().rglob("*"))
    result = run("fit", "log.parquet", *FIT, "--out", "run", *options)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert sorted(Path().rglob("*")) == before


def test_a_file_that_may_not_be_read(no_training: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write(click_log(40))
    os.chmod("log.parquet", 0)
    if os.access("log.parquet", os.R_OK):  # the superuser may read everything

        def refuse(path: str, *_: Any) -> None:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(files, "open", refuse, raising=False)
    result = run("fit", "log.parquet", *FIT)
    assert result.exit_code == 2
    assert result.stderr.startswith("graphrec: log.parquet: cannot be opened (Permission denied)")
    assert len(result.stderr.splitlines()) == 1


def test_globs(no_training: None) -> None:
    nothing = run("fit", "logs/*.parquet", *FIT)
    assert nothing.exit_code == 2
    assert "logs/*.parquet: no file matches" in nothing.stderr
    different_schemas()
    mixed = run("fit", "logs/*.parquet", *FIT)
    assert mixed.exit_code == 2
    assert len(mixed.stderr.splitlines()) == 1
    assert "b.parquet" in mixed.stderr
    assert "'hour'" in mixed.stderr


def test_label_is_asked_for(no_training: None) -> None:
    write(click_log(40))
    result = run("fit", "log.parquet")
    assert result.exit_code == 2
    assert "--label" in result.stderr


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    click_log(200).write_parquet(folder / "log.parquet")
    result = run("fit", folder / "log.parquet", *FIT, "--out", folder / "run", "--ignore", "like")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop("item"), r"new\.parquet.*'item' is missing"),
        (lambda frame: frame.with_columns(price=pl.lit("cheap")), r"new\.parquet.*'price'.*cheap"),
        (lambda frame: frame.with_columns(item_history=pl.lit(3)), r"new\.parquet.*'item_history'"),
        (lambda frame: frame.head(0), r"new\.parquet.*no rows"),
    ],
)
def test_predict_refuses_what_does_not_fit_the_schema(
    fitted: Path, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    write(change(click_log(50)), "new.parquet")
    result = run("predict", fitted, "new.parquet", "--out", "scores.parquet")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert re.search(message, result.stderr), result.stderr
    assert sorted(p.name for p in Path().iterdir()) == ["new.parquet"]


def test_evaluate_without_labels_and_predict_to_wrong_places(fitted: Path) -> None:
    write(click_log(50).drop("click"), "new.parquet")
    assert "'click' is missing" in run("evaluate", fitted, "new.parquet").stderr
    assert "must end in" in run("predict", fitted, "new.parquet", "--out", "scores.xlsx").stderr
    assert "'nope'" in run("predict", fitted, "new.parquet", "--out", "s.csv", "--keep", "nope").stderr
    Path("there.csv").touch()
    assert "there.csv: exists already" in run("predict", fitted, "new.parquet", "--out", "there.csv").stderr


def test_run_folders_that_exist_or_are_of_another_version(fitted: Path, no_training: None) -> None:
    write(click_log(50))
    result = run("fit", "log.parquet", *FIT, "--out", fitted)
    assert result.exit_code == 2
    assert f"{fitted}: the run folder exists already" in result.stderr
    copy = Path("copy")
    copy.mkdir()
    info = json.loads((fitted / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**info, "format_version": 12}))
    data = [copy, "log.parquet"]
    for command in (
        ["predict", *data, "--out", "x.csv"],
        ["evaluate", *data],
        ["explain", *data, "--out", "x"],
        ["export", copy, "--out", "x"],
    ):
        result = run(*command)
        assert result.exit_code == 2
        assert "format_version is 12" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert "no such run folder" in run("predict", "nowhere", "log.parquet", "--out", "x.csv").stderr
    assert sorted(p.name for p in Path().iterdir()) == ["copy", "log.parquet"]


def test_a_loss_that_is_not_finite_leaves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    write(click_log(100))
    explosive = [
        "--model",
        "dnn",
        "--lr",
        "1e30",
        "--epochs",
        "5",
        "--set",
        "clip_norm=null",
        "--set",
        "optimizer=sgd",
    ]
    result = run("fit", "log.parquet", *FIT, *explosive, "--out", "run")
    assert result.exit_code == 2, result.output
    assert "loss is" in result.stderr
    batch = Path(result.stderr.split("the batch is in ")[1].strip())
    assert batch.is_file()
    batch.unlink()
    assert [p.name for p in Path().iterdir()] == ["log.parquet"]


def test_debug_shows_the_traceback() -> None:
    result = run("evaluate", "nowhere", "log.parquet", "--debug")
    assert type(result.exception).__name__ == "RunError"


def odd(**changes: Any) -> pl.DataFrame:
    return click_log(120).with_columns(**changes)


NOT_ERRORS: dict[str, pl.DataFrame] = {
    "NaN, inf and null numbers": odd(price=pl.Series([np.nan, np.inf, -np.inf, None] * 30)),
    "integers as text": odd(hour=pl.col("hour").cast(pl.String), click=pl.col("click").cast(pl.String)),
    "one category": odd(item=pl.lit("same")),
    "column of nulls": odd(empty=pl.lit(None)),
    "null categories and lists": odd(
        item=pl.lit(None, pl.String), item_history=pl.lit(None, pl.List(pl.String))
    ),
    "two rows": click_log(120).filter(pl.col("click").is_in([0, 1])).unique("click", maintain_order=True),
    "labels 1 and 2": odd(click=pl.col("click") + 1),
    "dates": odd(day=pl.lit("2024-01-01").str.to_date()),
}


@pytest.mark.parametrize("case", NOT_ERRORS)
def test_these_are_not_errors(case: str) -> None:
    write(NOT_ERRORS[case])
    result = run("fit", "log.parquet", *FIT, "--out", "run", "--ignore", "like", "--set", "batch_size=100000")
    assert result.exit_code == 0, result.output
    result = run("predict", "run", "log.parquet", "--out", "scores.csv")
    assert result.exit_code == 0, result.output
    scores = pl.read_csv("scores.csv")["probability"]
    assert len(scores) == len(NOT_ERRORS[case])
    assert scores.is_between(0, 1).all()


def test_predict_takes_unseen_categories_extra_columns_text_numbers_and_one_row(fitted: Path) -> None:
    new = click_log(60).drop("click", "like").with_columns(
        item=pl.lit("never seen"), extra=pl.lit(1), hour=pl.col("hour").cast(pl.String), price=pl.lit(np.inf)
    )  # fmt: skip
    write(new.head(1), "one.parquet")
    result = run("predict", fitted, "one.parquet", "--out", "one.csv")
    assert result.exit_code == 0, result.output
    assert 0 < pl.read_csv("one.csv")["probability"][0] < 1


def test_predictions_never_replace_their_input_nor_break_a_csv_file() -> None:
    write(click_log(300))
    assert run("fit", "log.parquet", *FIT, "--out", "run").exit_code == 0
    before = Path("log.parquet").read_bytes()
    result = run("predict", "run", "log.parquet", "--out", "log.parquet", "--overwrite")
    assert (result.exit_code, Path("log.parquet").read_bytes()) == (2, before)
    assert "log.parquet is the table to be scored itself" in result.stderr
    result = run("predict", "run", "log.parquet", "--out", "scores.csv", "--keep", "item_history")
    assert result.exit_code == 2
    assert "column 'item_history' is List(String), which CSV cannot hold" in result.stderr
    assert not Path("scores.csv").exists()


def test_models_that_are_not_there_are_said_to_be() -> None:
    result = run("models", "fcm")
    assert result.exit_code == 2
    assert "no 'fcm'; did you mean fm, fcn?" in result.stderr
    assert "models: none is called 'zz*'" in run("models", "zz*").stderr
    assert "fcn is of task ctr" in run("models", "fcn", "--task", "image").stderr
    assert (
        "models: there is none of task cat; `graphrec models` lists all"
        in run("models", "--task", "cat").stderr
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.yaml", "label: click\nseed_: 3\n", "c.yaml: seed_: no such setting"),
        (
            "c.yaml",
            "label: click\nepochs: 1\nepochs: 2\n",
            "c.yaml: lines 2 and 3 both say 'epochs'; keep one",
        ),
        ("other.yaml", "", "c.yaml: cannot be opened (No such file or directory)"),
    ],
)
def test_configuration_files_that_are_wrong_are_named(name: str, text: str, message: str) -> None:
    write(click_log(40))
    Path(name).write_text(text)
    for command in (["fit"], ["compare", "--models", "lr"]):
        result = run(*command, "log.parquet", "--config", "c.yaml", "--out", "run")
        assert (result.exit_code, Path("run").exists()) == (2, False)
        assert message in result.stderr
