"""Two processes over gloo make the steps that one process makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from training_tiny import Rows, Scores, make_model, quick_config

from graphrec.training import Trainer

SCRIPT = str(Path(__file__).with_name("training_tiny.py"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# 801 rows: the last batch has one row, so the second process has none of it.
PLAIN = {"rows": 801, "batch": 100, "model": {"dropout": 0.0, "norm": False}}
SGD = {"optimizer": "sgd", "embedding_optimizer": "adagrad", "clip_norm": 0.3}


def run(folder: Path, options: dict, launcher: list[str], timeout: float = 120) -> list[dict]:
    """Run the script; weights and predictions of both processes."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, SCRIPT, str(folder), json.dumps(options)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)]


def assert_same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_two_processes_equal_one(tmp_path):
    first, second = run(tmp_path, PLAIN | {"config": SGD}, TORCHRUN)
    assert_same(first, second)
    model = make_model(**PLAIN["model"])
    trainer = Trainer(quick_config(**SGD))
    parts = (Rows(801, 100, shuffle=True), Rows(333, 100, seed=1))
    history = trainer.fit(model, *parts, metrics=Scores())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-5)
    expected = torch.from_numpy(trainer.predict(model, Rows(333, 100, seed=1)))
    torch.testing.assert_close(first["predictions"], expected, rtol=1e-4, atol=1e-5)
    rows = json.loads((tmp_path / "rank0.json").read_text())
    assert len(rows) == len(history)
    for found, row in zip(rows, history.rows, strict=True):
        assert found["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
        assert found["valid_logloss"] == pytest.approx(row["valid_logloss"], rel=1e-5)
        assert found["valid_rows"] == 333
    other = json.loads((tmp_path / "rank1.json").read_text())
    assert [row["valid_logloss"] for row in other] == [row["valid_logloss"] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "fabric", "devices"])
def test_dropout_and_batch_norm_leave_the_processes_equal(tmp_path, launcher):
    """However the processes are started; statistics are averaged, so even the buffers are the same."""
    fabric = [
        sys.executable,
        "-m",
        "lightning_fabric.cli",
        "--accelerator=cpu",
        "--strategy=ddp",
        "--devices=2",
    ]
    launchers = {"torchrun": TORCHRUN, "fabric": fabric, "devices": [sys.executable]}
    config = {"devices": 2, "strategy": "ddp"} if launcher == "devices" else {}
    first, second = run(tmp_path, {"rows": 801, "batch": 100, "config": config}, launchers[launcher])
    assert_same(first, second)
    start = make_model().state_dict()
    assert not torch.equal(first["net.1.running_mean"], start["net.1.running_mean"])


@pytest.mark.slow
def test_two_killed_processes_resume_bit_identically(tmp_path):
    options = {
        "rows": 3201,
        "batch": 64,
        "config": {"patience": None, "resume": True, "checkpoint_every": "0.01s", "ema": 0.9},
    }
    whole = run(tmp_path / "whole", options, TORCHRUN)
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [*TORCHRUN, SCRIPT, str(folder), json.dumps(options | {"delay": 0.02})]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    checkpoints = folder / "run" / "checkpoints"
    while len(list(checkpoints.glob("epoch00001*"))) < 1:
        assert process.poll() is None
    for member in [*psutil.Process(process.pid).children(recursive=True), process]:
        member.kill()
    process.wait()
    killed = run(folder, options, TORCHRUN)
    for a, b in zip(killed, whole, strict=True):
        assert_same(a, b)


@pytest.mark.slow
def test_a_bad_batch_in_one_process_ends_both(tmp_path):
    script = tmp_path / "bad.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(SCRIPT).parent)!r})\n"
        "from training_tiny import *\n"
        "trainer = Trainer(quick_config())\n"
        "rows = Rows(800, 100, rank=trainer.rank, world=trainer.world_size)\n"
        "rows.numbers[401] = float('inf')\n"
        "try:\n"
        f"    trainer.fit(make_model(norm=False), rows, run_dir={str(tmp_path)!r})\n"
        "except Exception as error:\n"
        "    print(trainer.rank, type(error).__name__, error, flush=True)\n"
    )
    done = subprocess.run([*TORCHRUN, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.count("NonFiniteLossError the loss is nan at epoch 1, step 5") == 2
    assert "features.numeric has 2 infinite" in done.stdout
    assert (tmp_path / "nonfinite-epoch1-step5-rank1.safetensors").exists()
