"""Signals that end a command, and processes that end without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click_log import click_log

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")

TIDYING = """
import sys, time
from graphrec.cli import stopping
stopping.listen()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt as error:
    print("tidying", flush=True)
    time.sleep(float(sys.argv[1]))
    print("tidy", flush=True)
    sys.exit(stopping.status_of(error))
"""


def _heard() -> None:
    """Undo what the tests themselves may have been started with, by ``nohup`` or in the background."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _tidying(seconds: float, preexec_fn: Callable[[], object] = _heard) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TIDYING, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec_fn,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "tidying\n"


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_and_its_echo_let_a_command_tidy_up(name: str, status: int) -> None:
    process, number = _tidying(0.3), signal.Signals[name]
    _send(process, number)
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("tidy\n", "")
    assert process.returncode == status


def test_a_signal_that_is_sent_again_ends_at_once() -> None:
    process = _tidying(60)
    _send(process, signal.SIGINT)
    time.sleep(1.2)  # what comes later is no echo
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == -signal.SIGINT


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As of ``nohup``."""
    process = _tidying(0, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)  # it would have ended by then
    assert process.poll() is None
    _send(process, signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "tidy\n"


def _started_fit(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A long fit that has saved something."""
    click_log(600).write_parquet(folder / "log.parquet")
    arguments = ["fit", str(folder / "log.parquet"), "-l", "click", "-m", "lr", "--ignore", "like", "--quiet"]
    arguments += ["--set", "patience=0", "--set", "checkpoint_every=5", "--device", "cpu", *more]
    command = [sys.executable, "-m", "graphrec", *arguments, "--epochs", "5000", "--out", str(folder / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_heard)
    while not list((folder / "run.partial").glob("checkpoints/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.05)
    return process


def test_a_terminated_fit_says_how_to_go_on(tmp_path: Path) -> None:
    process = _started_fit(tmp_path)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    hint = f"run the same command with --out {tmp_path / 'run'} --resume to continue"
    assert said == f"graphrec: stopped; {hint}\n"


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a process for each core at most")
def test_a_process_that_is_left_alone_says_so_in_a_line(tmp_path: Path) -> None:
    process = _started_fit(tmp_path, "--devices", "2")
    (other,) = psutil.Process(process.pid).children()
    other.kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith("graphrec: another of the 2 processes of this run ended or does not answer")
    assert len(said.splitlines()) == 1
    assert list((tmp_path / "run.partial").glob("checkpoints/*.safetensors"))
