"""A run folder while it is being written: its name, its lock, and what resuming it needs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import GraphrecError, NonFiniteLossError, RunError
from graphrec.runs import (
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    RUN_FILE,
    as_written,
    atomic_file,
    check_parent,
    is_main_process,
    named,
    read_yaml,
    replace_folder,
    write_yaml,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock

_STARTED_FILE = "started.yaml"
"""Among the checkpoints: what the run was started with. The configuration above becomes that of the finished
run before the report is written, which may be killed as well."""

_LOCK_FILE = "lock"
"""Among the checkpoints: locked by the process that writes the run, for as long as it lives."""

_FREE_ON_RESUME = {"epochs", "verbose", "accelerator", "devices", "cache_dir", "train_options"}
"""Settings that may differ when a run is resumed; the trainer checks ``train_options`` itself."""
_PATHS_OF_DATA = {"data", "validation", "test"}
"""May be other paths as well, when the data there are the same."""
_DATA_KEY = "data_fingerprint"


class RunWriter:
    """A run folder while it is being written.

    Args:
        folder: The run's final name.
        resume: Continue the unfinished run ``NAME.partial`` if there is one.
        overwrite: Replace a finished run of that name, and throw an unfinished one away. Folders that hold
            something else, and files, stay.

    Raises:
        RunError: The folder exists already or is no run, or an unfinished run does and neither option was
            given.
    """

    def __init__(self, folder: str | Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.folder = named(folder)
        self.partial = self.folder.with_name(self.folder.name + ".partial")
        self.resume, self.overwrite = resume, overwrite
        self._held: BaseFileLock | None = None
        if is_main_process():
            self._check_free()

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints until the run is finished."""
        return self.partial / CHECKPOINT_FOLDER

    def _check_free(self) -> None:
        if self.folder.exists() and not self.overwrite:
            what = "the run folder exists" if (self.folder / RUN_FILE).exists() else "the path exists"
            raise RunError(
                f"{self.folder}: {what} already; name another with --out, or replace it with --overwrite"
            )
        if self.partial.exists() and not (self.resume or self.overwrite):
            raise RunError(
                f"{self.partial}: holds an unfinished run; continue it with --resume, or start afresh with "
                "--overwrite"
            )
        if self.folder.exists() and not _replaceable(self.folder):
            raise RunError(
                f"{self.folder}: holds no run, it has no {RUN_FILE}, so --overwrite does not replace it; "
                "name another with --out, or remove it"
            )
        check_parent(self.folder)
        if (self.checkpoints / _LOCK_FILE).exists():
            self._lock().release()

    def _lock(self) -> BaseFileLock:
        """Keep other processes from writing the run. A process may take its own lock again, as after an
        interrupted fit in a notebook.

        Raises:
            RunError: A living process has it.
        """
        from filelock import FileLock, Timeout

        self.checkpoints.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.checkpoints / _LOCK_FILE, timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"{self.partial}: another process is writing this run; wait until it is done, stop it, or "
                "name another --out"
            ) from None
        except NotImplementedError:
            pass  # of a file system without locks; runs there are as safe as their users are careful
        return lock

    def _unlock(self) -> None:
        if self._held is not None:
            self._held.release(force=True)
            self._held = None

    def start(self, config: Mapping[str, Any], file: str = CONFIG_FILE) -> bool:
        """Make the partial folder with ``config`` in it; returns whether an earlier attempt is continued.

        Raises:
            RunError: The unfinished run was started with other settings, or another run took the name, or
                another process is writing it.
        """
        exists = self.partial.exists()
        resumed = self.resume and exists
        if not is_main_process():
            return resumed
        if exists and not (resumed or self.overwrite):  # it was free when this run was asked for
            raise RunError(f"{self.partial}: another run began to write there meanwhile; name another --out")
        self._held = self._lock()
        started = self.checkpoints / _STARTED_FILE
        before = started if started.exists() else self.partial / file
        if resumed and before.exists():
            _check_same(self.partial, read_yaml(before), config)
        elif exists and not resumed:
            self._unlock()
            shutil.rmtree(self.partial)
            self._held = self._lock()
        for path in (self.partial / file, started):
            with atomic_file(path) as temporary:
                write_yaml(temporary, config)
        return resumed

    def finish(self) -> None:
        """Give the folder its name, then drop the checkpoints.

        In the other order a run that is killed in between could be neither used nor resumed.

        Raises:
            RunError: Something took the name meanwhile and may not be replaced; the run stays ``.partial``.
        """
        if not is_main_process():
            return
        if self.folder.exists() and not (self.overwrite and _replaceable(self.folder)):
            raise RunError(
                f"{self.folder}: was made by something else meanwhile; the run is complete in "
                f"{self.partial}, give that folder another name"
            )
        self._unlock()
        replace_folder(self.partial, self.folder)
        shutil.rmtree(self.folder / CHECKPOINT_FOLDER, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was written; for a fit that cannot be continued."""
        if is_main_process():
            self._unlock()
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextmanager
    def training(self, resumed: bool) -> Iterator[None]:
        """Around a fit: one that cannot be continued leaves nothing, a stopped one what resuming needs.

        Args:
            resumed: Whether an earlier attempt is continued; a refusal then leaves that.

        Raises:
            NonFiniteLossError: The fit's own, with the offending batch moved to where it stays.
        """
        try:
            yield
        except NonFiniteLossError as error:
            message = self._rescue_batch(str(error))
            self.discard()
            raise NonFiniteLossError(message) from error
        except GraphrecError:
            # What was saved is left, of a run that a full disk stopped or a file that cannot be read.
            if not resumed and not any(self.checkpoints.glob("*.safetensors")):
                self.discard()
            raise

    def _rescue_batch(self, message: str) -> str:
        """Move the offending batch out of a folder that is about to go, and say where it is now."""
        for file in self.partial.glob("nonfinite-*.safetensors"):
            kept = Path(tempfile.mkdtemp(prefix="graphrec-")) / file.name
            shutil.move(file, kept)
            message = message.replace(str(file), str(kept))
        return message


def _replaceable(folder: Path) -> bool:
    """Whether a path is a run, or an empty folder."""
    return (folder / RUN_FILE).exists() or (folder.is_dir() and not any(folder.iterdir()))


def _check_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> None:
    new = as_written(new)
    keys = set(old) | set(new)
    for key in [
        *sorted(keys - {_DATA_KEY}),
        *sorted(keys & {_DATA_KEY}),
    ]:  # it follows from others
        before, now = old.get(key), new.get(key)
        if (key in _FREE_ON_RESUME and not above) or before == now:
            continue
        if key in _PATHS_OF_DATA and isinstance(before, str) and isinstance(now, str):
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            _check_same(folder, before, now, f"{above}{key}.")
            continue
        if key == _DATA_KEY and before is not None and now is not None:
            raise RunError(
                f"{folder}: the data changed since it was started, those to train on or those to measure on; "
                "bring them back, or start afresh with --overwrite"
            )
        raise RunError(
            f"{folder}: was started with {above}{key}={before!r}, not {now!r}; resume with the "
            "same settings, or start afresh with --overwrite"
        )
