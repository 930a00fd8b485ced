"""Ctrl-C and the signals that end a program: nothing half-written, and the status that scripts expect."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any, NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_AGAIN = 1.0
"""Seconds in which a second signal is taken for an echo of the first, as shells send it."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the program, other than Ctrl-C.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def status_of(error: KeyboardInterrupt) -> int:
    """The exit status, as shells give it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def listen() -> None:
    """Let SIGTERM and SIGHUP stop a command as Ctrl-C does, so that it tidies up and says how to go on.

    What ignores them, as ``nohup`` does, stays. After a second, a further signal ends the process at once.
    """
    first: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
        if time.monotonic() - first[0] > _AGAIN:
            _end(number)

    ours: tuple[Any, ...] = (signal.SIG_DFL, signal.default_int_handler)
    for name in _NAMES:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in ours:
            signal.signal(number, stop)


def _end(number: int) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise Stopped(number)  # where that did not end it
