"""History, the terminal, loggers."""

import csv
import io
import sys
import types

import pytest
from rich.console import Console
from training_tiny import Rows, Scores, make_model, quick_config

from graphrec.errors import ConfigError, MissingExtraError
from graphrec.training import History, Trainer
from graphrec.training.display import Display, shared_progress

ROW = {"epoch": 1, "step": 47, "train_loss": 0.61234, "valid_auc": 0.75, "valid_logloss": None}
ROW |= {"valid_ece": 0.1, "lr": 0.001, "seconds": 2.04, "rows_per_s": 12345.6, "best": True}


def fit(run_dir=None, **config):
    trainer = Trainer(quick_config(epochs=2, **config))
    return trainer.fit(make_model(), Rows(6400, 64), Rows(333, 100), metrics=Scores(), run_dir=run_dir)


def test_history_to_csv(tmp_path):
    history = History([ROW, ROW | {"epoch": 2, "best": False, "valid_logloss": 0.5}])
    history.to_csv(tmp_path / "h.csv")
    with open(tmp_path / "h.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["valid_logloss"] for row in rows] == ["", "0.5"]
    assert list(rows[0]) == list(ROW)
    assert [p.name for p in tmp_path.iterdir()] == ["h.csv"]


def test_history_best():
    assert History().best is None
    rows = [ROW | {"epoch": e, "best": b} for e, b in [(1, True), (2, True), (3, False)]]
    assert History(rows).best["epoch"] == 2


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def test_one_line_per_evaluation_without_a_terminal():
    out = console(False)
    with Display(True, 3, "valid_auc", out) as display:
        display.epoch(0, 0, 47)
        display.step(1, 0.7, 100.0)
        display.row(ROW)
    assert out.file.getvalue() == (
        "epoch 1/3  loss 0.6123  valid auc 0.7500  valid logloss undefined  "
        "lr 0.001  2.0 s  12,346 rows/s  (best)\n"
    )


def test_a_bar_on_a_terminal():
    out = console(True)
    with Display(True, 3, "valid_auc", out) as display:
        display.epoch(1, 0, 47)
        display.step(12, 0.7, 100.0)
        display.note("evaluating")
        display.row(ROW)
    text = out.file.getvalue()
    assert "epoch 2/3" in text
    assert "12/47" in text
    assert "epoch 1/3  loss 0.6123" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_silence(terminal):
    out = console(terminal)
    with Display(False, 3, "valid_auc", out) as display:
        display.epoch(0, 0, 47)
        display.step(1, 0.7, 100.0)
        display.row(ROW)
        display.line("resumed")
    assert out.file.getvalue() == ""


def test_within_shared_bars_a_fit_is_a_bar_and_no_lines():
    on = console(terminal=True)
    with shared_progress(on) as bars:
        mine = bars.add_task("fits", total=2, note="")
        with Display(True, 5, "valid_auc", console(terminal=True)) as display:
            display.epoch(3, 0, 10)
            display.row({"valid_auc": 0.75})
            display.line("resumed")
            bar = bars.tasks[-1]
            assert (bar.completed, bar.total, bar.fields["note"]) == (3, 5, "valid auc 0.7500")
        assert [task.id for task in bars.tasks] == [mine]
        with Display(False, 5, "valid_auc"):
            assert len(bars.tasks) == 1
    assert "epoch 4" not in on.file.getvalue()
    assert Display(True, 5, "valid_auc")._outer is None


def test_fit_prints_lines_on_standard_error(capfd):
    fit(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1/2", "epoch 2/2"]


def test_fit_is_silent_on_request(capfd):
    fit(progress=False, precision="bf16-mixed")
    assert capfd.readouterr() == ("", "")


def test_csv_and_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    history = fit(tmp_path, loggers=("csv", "tensorboard"))
    with open(tmp_path / "logs" / "csv" / "version_0" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["valid_logloss"]]
    assert [float(row["valid_logloss"]) for row in rows] == [row["valid_logloss"] for row in history.rows]
    assert list((tmp_path / "logs" / "tensorboard").rglob("events*"))


def test_file_loggers_need_a_folder():
    with pytest.raises(ConfigError, match="loggers: 'csv' writes files and needs a run folder"):
        fit(loggers=("csv",))


def test_missing_packages_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="'wandb' is not installed; run: pip install wandb"):
        fit(loggers=("wandb",))

    def absent(*_, **__):
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("graphrec.training.loggers.TensorBoardLogger", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphrec\[tensorboard\]'"):
        fit(tmp_path, loggers=("tensorboard",))


def test_wandb_gets_the_rows(monkeypatch):
    sent, ended = [], []

    class Run:
        project, id = "p", "1"

        def log(self, values, step):
            sent.append((step, values))

        def finish(self, exit_code):
            ended.append(exit_code)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: Run()))
    history = fit(loggers=("wandb",))
    steps = [step for step, values in sent if "valid_logloss" in values]
    assert steps == [row["step"] for row in history.rows]
    assert ended == [0]
