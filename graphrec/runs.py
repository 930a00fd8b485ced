"""Run folders: everything that a fit leaves behind, in plain files.

A run folder holds ``model.safetensors``, ``config.yaml``, ``schema.yaml``, ``encoder/``, ``metrics.json``,
``history.csv``, ``report.html`` and ``run.json`` (format, versions, model, fields, data fingerprint, seed).
While it is being written it is called ``NAME.partial`` and holds the training checkpoints as well; it gets
its name by one rename when it is complete, so a folder called NAME is never half a run.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import RunError

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
"""Version of the layout below; a folder of another version is refused."""
RUN_FILE = "run.json"
MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.csv"
REPORT_FILE = "report.html"
ENCODER_FOLDER = "encoder"
CHECKPOINT_FOLDER = "checkpoints"
_OUTPUTS = (RUN_FILE, "export.json", "importance.csv", "attention.png", "model.onnx", "model.pt2")
"""Files of which one is in every folder that this package writes; overwriting replaces no other folder."""


def is_main_process() -> bool:
    """Whether this process writes files: rank 0 of a distributed run, or the only process."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def named(folder: str | Path) -> Path:
    """A folder's path; refused is one without a name of its own, beside which nothing can be prepared.

    Raises:
        RunError: It is ``.``, ``..`` or a root.
    """
    path = Path(folder)
    if path.name in ("", ".."):
        raise RunError(f"{str(folder)!r}: give the name of a folder to make, such as runs/first")
    return path


def check_parent(folder: Path) -> None:
    """Refuse a path at which nothing can be made.

    Raises:
        RunError: No folder can be written where it is to be.
    """
    parent = folder.resolve().parent
    while not parent.exists():
        parent = parent.parent
    try:  # permissions alone do not tell, of /proc for example, or of a full disk
        os.rmdir(tempfile.mkdtemp(prefix=".graphrec-", dir=parent))
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be created, {parent} is not a writable folder ({error.strerror})"
        ) from error


def replace_folder(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``; an older ``target`` is removed after the new one is in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.is_dir():
        target.rename(old)
    elif target.exists():
        target.unlink()
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _is_output(folder: Path) -> bool:
    """Whether a path is a folder that this package wrote, or an empty one."""
    return folder.is_dir() and (
        not any(folder.iterdir()) or any((folder / name).exists() for name in _OUTPUTS)
    )


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Say what was being written where the system names no file, as it does not of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise RunError(f"{target}: cannot be written ({error.strerror or error})") from error


@contextmanager
def atomic_folder(folder: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into that gets its name when the block ends well, and vanishes when it does not.

    Raises:
        RunError: The folder exists and ``overwrite`` is false, or it holds something else than what is
            written here; or it cannot be written, because the disk is full for example.
    """
    target = named(folder)
    if is_main_process():
        check_parent(target)
    if target.exists() and not overwrite:
        raise RunError(f"{folder}: exists already; choose another folder, or allow overwriting")
    if target.exists() and not _is_output(target):
        raise RunError(
            f"{folder}: holds nothing that was written here, so it is not replaced; choose another folder, "
            "or remove it"
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        with naming(target):
            yield temporary
            replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends well, and vanishes otherwise."""
    path = Path(path)
    if path.is_dir():
        raise RunError(f"{path}: is a folder; name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_run(folder: str | Path) -> dict[str, Any]:
    """The contents of a run's ``run.json``.

    Raises:
        RunError: The folder is missing, unfinished, no run at all, or of a format that this version cannot
            read.
    """
    folder = Path(folder)
    file = folder / RUN_FILE
    if not file.is_file():
        partial = folder.with_name(folder.name + ".partial")
        hint = (
            f"; {partial} is an unfinished run, continue it with `fit --resume`" if partial.exists() else ""
        )
        what = f"not a run folder, it has no {RUN_FILE}" if folder.is_dir() else "there is no such run folder"
        raise RunError(f"{folder}: {what}{hint}")
    info = read_json(file)
    info = info if isinstance(info, dict) else {}
    found, writer = info.get("format_version"), info.get("graphrec", "unknown")
    if found != FORMAT_VERSION:
        raise RunError(
            f"{file}: format_version is {found!r}, this graphrec reads {FORMAT_VERSION}; use the "
            f"graphrec that wrote it ({writer}) or fit again"
        )
    return info


def read_json(path: Path) -> Any:
    """Parsed JSON.

    Raises:
        RunError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON ({error})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        RunError: The file is missing, holds something else, or says a key twice.
    """
    import yaml

    from graphrec.pipelines.yaml_keys import repeated_key

    try:
        text = path.read_text(encoding="utf-8")
        data, repeated = yaml.safe_load(text), repeated_key(text)
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror})") from error
    except (ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise RunError(f"{path}: must hold `key: value` lines, found {type(data).__name__}")
    if repeated is not None:
        raise RunError(f"{path}: {repeated}; keep one")
    return data


def read_config(folder: Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration, complete.

    Args:
        folder: The run.
        info: Its `read_run`, which lists the keys of its configuration. A run of an older version may lack
            that list, and settings that came later; a table's run always held there the keys of its data,
            which end the file.

    Raises:
        RunError: The file is missing, no YAML, or was cut short.
    """
    path = folder / CONFIG_FILE
    config = read_yaml(path)
    missing = [key for key in info.get("settings") or info.get("source") or () if key not in config]
    if missing:
        raise RunError(
            f"{path}: was cut short, it lacks {', '.join(missing)}; copy the run again, or fit again"
        )
    return config


def write_json(path: Path, data: Any) -> None:
    """Readable JSON; not-a-number becomes null, since JSON has no such value."""
    path.write_text(json.dumps(_plain(data), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    """A mapping as YAML, keys in the given order."""
    import yaml

    plain = as_written(data)
    path.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")


def as_written(data: Mapping[str, Any]) -> Any:
    """What YAML holds of a mapping: numpy's numbers and arrays as plain ones, anything else as text."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    return json.loads(json.dumps(dict(data), default=plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def save_weights(path: Path, module: nn.Module) -> None:
    """A module's state as safetensors.

    Raises:
        RunError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    try:
        save_model(module, str(path))
    except SafetensorError as error:
        raise RunError(f"{path}: cannot be written ({' '.join(str(error).split())})") from error


def load_weights(path: Path, module: nn.Module) -> None:
    """Fill a module from `save_weights`; every key must be there and none too many.

    Raises:
        RunError: The file is missing, damaged, or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(module, str(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"{path}: does not hold this model's weights ({' '.join(str(error).split())[:300]})"
        ) from error


def plain_source(value: Any) -> Any:
    """What YAML can hold of a data argument: paths and fractions as they are, anything else by its type's
    name.
    """
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)) and all(isinstance(v, (str, Path)) for v in value):
        return [str(v) for v in value]
    return f"<{type(value).__name__}>"
