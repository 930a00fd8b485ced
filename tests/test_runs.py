"""Run folders: nothing half-written, nothing overwritten by accident, nothing of another version read."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphrec import runs
from graphrec.errors import DataError, GraphrecError, RunError
from graphrec.history_file import read_history, write_history
from graphrec.run_writer import RunWriter


def test_a_run_gets_its_name_only_when_it_is_finished(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run")
    writer.start({"epochs": 3})
    assert writer.checkpoints.is_dir()
    assert not (tmp_path / "run").exists()
    writer.finish()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["config.yaml"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_existing_run_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match=r"run: the path exists already.*--out.*--overwrite"):
        RunWriter(tmp_path / "run")
    RunWriter(tmp_path / "run", overwrite=True)


def test_unfinished_run_is_resumed_or_overwritten_on_request_only(tmp_path: Path) -> None:
    first = RunWriter(tmp_path / "run")
    assert first.start({"batch_size": 10}) is False
    (first.partial / "kept").touch()
    with pytest.raises(RunError, match=r"run\.partial: holds an unfinished run.*--resume"):
        RunWriter(tmp_path / "run")
    again = RunWriter(tmp_path / "run", resume=True)
    assert again.start({"batch_size": 10}) is True
    assert (again.partial / "kept").exists()
    fresh = RunWriter(tmp_path / "run", overwrite=True)
    assert fresh.start({"batch_size": 20}) is False
    assert not (fresh.partial / "kept").exists()


def test_resume_refuses_other_settings_but_allows_more_epochs(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run").start({"batch_size": 10, "epochs": 1})
    writer = RunWriter(tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="batch_size=10, not 20"):
        writer.start({"batch_size": 20, "epochs": 1})
    assert writer.start({"batch_size": 10, "epochs": 5}) is True


def test_a_run_killed_while_its_report_is_written_is_resumed(tmp_path: Path) -> None:
    """By then its configuration is the finished run's, which does not say of what data it is."""
    first = RunWriter(tmp_path / "run")
    first.start({"batch_size": 10, "data_fingerprint": "a"})
    runs.write_yaml(first.partial / runs.CONFIG_FILE, {"batch_size": 10})
    writer = RunWriter(tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="the data changed since it was started"):
        writer.start({"batch_size": 10, "data_fingerprint": "b"})
    assert writer.start({"batch_size": 10, "data_fingerprint": "a"}) is True


def test_resume_without_an_unfinished_run_starts_one(tmp_path: Path) -> None:
    assert RunWriter(tmp_path / "run", resume=True).start({}) is False


def test_a_folder_below_a_file_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be created"):
        RunWriter(tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
def test_a_folder_that_only_claims_to_be_writable_is_refused_at_once() -> None:
    with pytest.raises(RunError, match="/proc/run: cannot be created, /proc is not a writable folder"):
        RunWriter("/proc/run")


def test_a_run_killed_while_its_checkpoints_are_dropped_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, **_: object) -> None:
        if folder.name == runs.CHECKPOINT_FOLDER:
            raise KeyboardInterrupt

    writer = RunWriter(tmp_path / "run")
    writer.start({"epochs": 3})
    monkeypatch.setattr(runs.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.finish()
    assert (tmp_path / "run" / "config.yaml").exists()
    assert not writer.partial.exists()


def test_a_folder_that_appears_while_a_run_is_made_is_not_replaced(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run")
    writer.start({})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    with pytest.raises(RunError, match=r"was made by something else meanwhile; .* in .*run\.partial"):
        writer.finish()
    assert (tmp_path / "run" / "mine.txt").exists()
    assert writer.partial.exists()


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "run").mkdir()
    writer = RunWriter(tmp_path / "run")
    writer.start({})
    writer.finish()
    writer.discard()
    assert not writer.partial.exists()


def test_read_run_explains_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such run folder"):
        runs.read_run(tmp_path / "none")
    with pytest.raises(RunError, match=r"not a run folder, it has no run\.json"):
        runs.read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"format_version": 99, "graphrec": "9.0"}')
    with pytest.raises(RunError, match=r"format_version is 99.*reads 1.*9\.0"):
        runs.read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        runs.read_run(tmp_path)
    (tmp_path / "late.partial").mkdir()
    with pytest.raises(RunError, match=r"late\.partial is an unfinished run"):
        runs.read_run(tmp_path / "late")


def test_atomic_file_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), runs.atomic_file(path) as temporary:
        print(temporary.write_text("half") / 0)
    assert path.read_text() == "old"
    with runs.atomic_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_atomic_folder_replaces_only_on_request_and_only_when_complete(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with runs.atomic_folder(folder) as temporary:
        (temporary / "importance.csv").touch()
    with pytest.raises(RunError, match="exists already"), runs.atomic_folder(folder):
        pass
    with pytest.raises(ZeroDivisionError), runs.atomic_folder(folder, overwrite=True):
        raise ZeroDivisionError
    assert [p.name for p in folder.iterdir()] == ["importance.csv"]
    with runs.atomic_folder(folder, overwrite=True) as temporary:
        (temporary / "b").touch()
    assert [p.name for p in folder.iterdir()] == ["b"]
    with (
        pytest.raises(RunError, match="out: holds nothing that was written here"),
        runs.atomic_folder(folder, overwrite=True),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file: holds"), runs.atomic_folder(tmp_path / "file", overwrite=True):
        pass


def test_a_full_disk_is_told_with_what_was_being_written(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for writing in (runs.atomic_folder(tmp_path / "out"), runs.atomic_file(tmp_path / "out")):
        with pytest.raises(RunError, match=r"out: cannot be written \(No space left on device\)"), writing:
            raise full
    with pytest.raises(RunError, match=r"none/model\.safetensors: cannot be written"):
        runs.save_weights(tmp_path / "none" / "model.safetensors", torch.nn.Linear(1, 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [RunError("the disk is full"), DataError("9.jpg, which is full of noise, cannot be read")]
)
def test_what_was_saved_stays_when_a_run_cannot_go_on(tmp_path: Path, error: GraphrecError) -> None:
    writer = RunWriter(tmp_path / "run")
    for saved in (False, True):
        writer.start({})
        if saved:
            (writer.checkpoints / "epoch00001.safetensors").touch()
        with pytest.raises(type(error), match="full"), writer.training(resumed=False):
            raise error
        assert writer.partial.exists() is saved


def test_json_has_null_for_what_is_not_a_number(tmp_path: Path) -> None:
    import numpy as np

    runs.write_json(
        tmp_path / "m.json", {"a": float("nan"), "b": np.float32(0.5), "c": [np.int64(3), None, True]}
    )
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": None, "b": 0.5, "c": [3, None, True]}


def test_history_round_trip(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "auc": 0.5, "best": True}, {"epoch": 1.5, "auc": None, "best": False, "late": -2}]
    write_history(tmp_path / "h.csv", rows)
    assert read_history(tmp_path / "h.csv") == [{**rows[0], "late": None}, rows[1]]
    write_history(tmp_path / "h.csv", [])
    assert read_history(tmp_path / "h.csv") == []


@pytest.mark.parametrize("texts", [False, True])
def test_a_history_that_was_cut_names_the_line_wherever_it_was_cut(tmp_path: Path, texts: bool) -> None:
    """A number without its last digits is a number too, and an empty last cell a value that is not known."""
    file = tmp_path / "h.csv"
    write_history(file, [{"epoch": e, "loss": 0.25, "best": True} for e in (1, 2)])
    content = file.read_bytes()
    for kept in range(len(content)):
        file.write_bytes(content[:kept])
        if content[:kept].endswith(b"\n"):
            continue
        line = content[:kept].count(b"\n") + 1
        remedy = "fit again" if line == 1 else "remove that line to go on without it, or fit again"
        with pytest.raises(RunError) as error:
            read_history(file, texts=texts)
        assert str(error.value) == f"{file}: line {line} is not whole; {remedy}"
    file.write_bytes(content.replace(b"2,0.25", b"2"))
    with pytest.raises(RunError, match=r"h\.csv: line 3 is not whole"):
        read_history(file, texts=texts)
    file.write_bytes(content.replace(b"2,0.25", b"2,\xff"))
    with pytest.raises(RunError, match=r"h\.csv: is damaged"):
        read_history(file, texts=texts)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    saved, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    runs.save_weights(path, saved)
    runs.load_weights(path, other)
    assert torch.equal(other.weight, saved.weight)
    with pytest.raises(RunError, match=r"w\.safetensors: does not hold this model's weights"):
        runs.load_weights(path, torch.nn.Linear(4, 2))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match="does not hold"):
        runs.load_weights(path, torch.nn.Linear(3, 2))


def test_a_second_run_does_not_remove_the_first_that_is_being_written(tmp_path: Path) -> None:
    first, second = RunWriter(tmp_path / "run"), RunWriter(tmp_path / "run")
    first.start({"a": 1})
    with pytest.raises(RunError, match=r"run\.partial: another run began to write there"):
        second.start({"a": 2})
    assert runs.read_yaml(first.partial / runs.CONFIG_FILE) == {"a": 1}


_WRITER = """
import sys
from graphrec.run_writer import RunWriter

writer = RunWriter(sys.argv[1], resume=True)
writer.start({"a": 1})
print("started", flush=True)
sys.stdin.read()
"""


def test_no_second_process_writes_a_run(tmp_path: Path) -> None:
    """Two resumed the same run at once, and each replaced the other's checkpoints."""
    RunWriter(tmp_path / "run").start({"a": 1})
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "started\n"
        try:
            for options in ({"resume": True}, {"overwrite": True}):
                with pytest.raises(RunError, match=r"run\.partial: another process is writing this run"):
                    RunWriter(tmp_path / "run", **options)
            assert (tmp_path / "run.partial" / runs.CONFIG_FILE).exists()
        finally:
            other.kill()
    writer = RunWriter(tmp_path / "run", resume=True)
    assert writer.start({"a": 1}) is True
    writer.finish()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_an_interrupted_fit_is_resumed_by_the_process_that_began_it(tmp_path: Path) -> None:
    """As in a notebook, which keeps what an exception was raised in alive."""
    first = RunWriter(tmp_path / "run")
    first.start({"a": 1})
    again = RunWriter(tmp_path / "run", resume=True)
    assert again.start({"a": 1}) is True
    again.finish()
    assert first.folder.exists()


def test_overwriting_leaves_what_is_no_run(tmp_path: Path) -> None:
    """A folder of data named by mistake was deleted."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("a")
    (tmp_path / "file").write_text("b")
    for name in ("data", "file"):
        with pytest.raises(RunError, match=rf"{name}: holds no run.*--overwrite does not replace it"):
            RunWriter(tmp_path / name, overwrite=True)
    assert (tmp_path / "data" / "rows.csv").read_text() == "a"
    with pytest.raises(RunError, match=r"'\.': give the name of a folder"), runs.atomic_folder("."):
        pass
