"""A run that is interrupted anywhere ends with the same weights, to the last bit, as one that is not."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import training_tiny
from safetensors.torch import load_file, save_file
from training_tiny import Rows, Scores, make_model, quick_config

from graphrec.errors import RunError
from graphrec.training import Trainer
from graphrec.training.checkpoint import CheckpointFolder
from graphrec.training.saving import Saver

ROWS, BATCH = 600, 64
STEPS = -(-ROWS // BATCH)


class Stop(Exception):
    pass


class Fails(Rows):
    """Raises before batch ``at`` of the run."""

    at = 10**9

    def epoch(self, epoch, start_step=0):
        for step, batch in enumerate(super().epoch(epoch, start_step), start_step):
            if epoch * STEPS + step == self.at:
                raise Stop
            yield batch


def fit(run_dir, *, at=None, model=None, rows=ROWS, fingerprint=None, valid=True, **config):
    source = Fails(rows, BATCH, shuffle=True)
    source.at = 10**9 if at is None else at
    model = model or make_model()
    trainer = Trainer(quick_config(**{"checkpoint_every": 3, **config}))
    parts = (source, Rows(333, 100, seed=1) if valid else None)
    history = trainer.fit(model, *parts, metrics=Scores(), run_dir=run_dir, fingerprint=fingerprint)
    return model.state_dict(), history


def without_times(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "rows_per_s")} for row in history.rows]


def assert_same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


OPTIONS = [
    {},
    {"scheduler": "cosine", "warmup_steps": 5, "evaluations_per_epoch": 3, "patience": None},
    {"checkpoint_every": "0.000001s", "optimizer": "adamw", "embedding_optimizer": "row_adagrad"},
    {"checkpoint_every": None, "learning_rate": 0.3, "epochs": 8},
    {"learning_rate": 0.3, "epochs": 6, "patience": None, "plateau_factor": 0.5},
    {"valid": False, "precision": "bf16-mixed"},
    {"ema": 0.9, "learning_rate": 0.3, "patience": None},
    {"ema": 0.9, "valid": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)) or "defaults")
def test_interrupted_and_resumed_is_bit_identical(tmp_path, options):
    expected, history = fit(None, **options)
    for at in (1, 4, STEPS, STEPS + 7, 2 * STEPS - 1, 4 * STEPS + 2, 10**9):
        try:
            found, resumed = fit(tmp_path, at=at, resume=True, **options)
        except Stop:
            continue
    assert_same(found, expected)
    assert without_times(resumed) == without_times(history)


def test_an_early_stop_survives_a_resume(tmp_path):
    options = {"learning_rate": 0.3, "epochs": 30, "scheduler": "none", "resume": True}
    expected, history = fit(tmp_path, **options)
    found, again = fit(tmp_path, at=0, **options)  # would raise Stop if it trained
    assert history.stopped == again.stopped == "patience"
    assert_same(found, expected)


def test_a_finished_run_can_be_given_more_epochs(tmp_path):
    options = {"patience": None, "resume": True}
    fit(tmp_path, epochs=2, **options)
    found, history = fit(tmp_path, epochs=4, **options)
    expected, _ = fit(None, epochs=4, patience=None)
    assert len(history) == 4
    assert_same(found, expected)


def test_one_checkpoint_is_left_at_the_end(tmp_path):
    fit(tmp_path, epochs=2)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["epoch00002-step000000000.safetensors"]


def test_resume_is_asked_for(tmp_path):
    fit(tmp_path, epochs=1)
    with pytest.raises(RunError, match="has checkpoints; set resume, or take another run folder"):
        fit(tmp_path, epochs=1)


def test_resume_without_checkpoints_starts(tmp_path):
    _, history = fit(tmp_path, epochs=1, resume=True)
    assert len(history) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 0.02}, "learning_rate is 0.02 here and 0.01 in the checkpoint"),
        ({"seed": 9}, "seed is 9 here and 0 in the checkpoint"),
        ({"rows": 6000}, "batches of the train part is 94 here and 10 in the checkpoint"),
        ({"valid": False}, "batches of the valid part is None here and 4"),
        ({"fingerprint": {"data": "b"}}, "data is 'b' here and 'a' in the checkpoint"),
        ({"epochs": 1}, "epochs is 1 here and 2 in the checkpoint (only more are allowed)"),
    ],
)
def test_another_run_is_refused(tmp_path, changed, message):
    same = {"epochs": 2, "fingerprint": {"data": "a"}, "resume": True}
    fit(tmp_path, **same)
    with pytest.raises(RunError) as error:
        fit(tmp_path, **same | changed)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_number_of_processes_is_refused_with_what_to_type(tmp_path):
    fit(tmp_path, epochs=1)
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    tree = checkpoints.load()
    tree["identity"]["number of processes"] = 2
    checkpoints.save(tree, 1, 0)
    with pytest.raises(RunError) as error:
        fit(tmp_path, epochs=1, resume=True)
    assert str(error.value) == (
        f"{tmp_path / 'checkpoints'}: was trained by 2 processes, and 1 is running; resume with 2 (--devices "
        "2, in Python devices=2; or torchrun --nproc-per-node 2), or start afresh with --overwrite"
    )


def test_more_processes_than_before_are_refused_too(tmp_path):
    here = SimpleNamespace(ranks=SimpleNamespace(world=2), folder=CheckpointFolder(tmp_path))
    with pytest.raises(
        RunError, match=r"by 1 process, and 2 are .* with 1 \(--devices 1, .*; or without torchrun"
    ):
        Saver._check_processes(here, 1)


def test_another_model_is_refused(tmp_path):
    fit(tmp_path, epochs=1)
    with pytest.raises(RunError, match=r"shape of net.0.weight is \[9, 14\] here and \[8, 14\]"):
        fit(tmp_path, epochs=1, model=make_model(width=9), resume=True)


def test_the_cosine_schedule_fixes_the_epochs(tmp_path):
    fit(tmp_path, epochs=1, scheduler="cosine")
    with pytest.raises(RunError, match="no change under the cosine schedule"):
        fit(tmp_path, epochs=2, scheduler="cosine", resume=True)


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    expected, _ = fit(None)
    with pytest.raises(Stop):
        fit(tmp_path, at=17)
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    (tmp_path / "checkpoints" / ".epoch00001-step000000009.safetensors.tmp").write_bytes(b"half")
    with pytest.warns(UserWarning, match="trying the one before it"):
        found, _ = fit(tmp_path, resume=True)
    assert_same(found, expected)


def test_a_disk_that_fills_up_leaves_the_checkpoints_before_and_the_run_goes_on(tmp_path, monkeypatch):
    expected, _ = fit(None)
    kept = tmp_path / "checkpoints"

    def full(tensors, file, **more):
        save_file(tensors, file, **more)
        if len(list(kept.glob("epoch*"))) == 2:  # the third is cut in the middle
            os.truncate(file, 500)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("graphrec.training.checkpoint.save_file", full)
        with pytest.raises(RunError) as error:
            fit(tmp_path)
    assert re.search(
        r"checkpoints/epoch00000-step000000009.safetensors: the checkpoint cannot be written: .*No space "
        r"left on device; mend that, and --resume goes on from epoch00000-step000000006.safetensors",
        str(error.value),
    )
    assert sorted(path.name[-11:] for path in kept.iterdir()) == ["safetensors"] * 2
    found, _ = fit(tmp_path, resume=True)
    assert_same(found, expected)


def run_and_kill(folder: Path, options: dict, wait: float) -> bool:
    """Run the script, kill it ``wait`` seconds after its first batch; whether that was before its end."""
    script = str(Path(__file__).with_name("training_tiny.py"))
    command = [sys.executable, script, str(folder), json.dumps(options)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums of equal bits need equal threads
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | threads)
    assert process.stdout.readline() == b"training\n"
    time.sleep(wait)
    process.kill()
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def kill_and_resume(tmp_path: Path, kills: int, span: float) -> None:
    config = {"epochs": 3, "patience": None, "checkpoint_every": "0.01s", "resume": True}
    options = {"rows": 9600, "batch": 64, "config": config}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    training_tiny.main(tmp_path / "whole", options)
    waits = [random.uniform(0, span) for _ in range(kills)]
    killed = [run_and_kill(tmp_path / "killed", options | {"delay": 0.002}, wait) for wait in waits]
    assert any(killed), f"every run ended before it was killed after {waits}"
    training_tiny.main(tmp_path / "killed", options)
    found, expected = (load_file(tmp_path / name / "rank0.safetensors") for name in ("killed", "whole"))
    assert_same(found, expected)


def test_killed_and_resumed_is_bit_identical(tmp_path):
    kill_and_resume(tmp_path, kills=2, span=0.8)


@pytest.mark.slow
def test_killed_five_times_and_resumed_is_bit_identical(tmp_path):
    kill_and_resume(tmp_path, kills=5, span=0.6)
