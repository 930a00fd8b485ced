"""The wheel holds everything that the folders hold, under the one import root `graphrec`, and imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "graphrec": "graphrec",
    "kernels": "graphrec/kernels",
    "pipelines": "graphrec/pipelines",
    "vision": "graphrec/vision",
}
"""Top-level folder of the repository -> where it lies in an installation."""

LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.py[cod]", ".*_cache")

IMPORT_ALL = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
strays = {}
for name in sys.argv[2:]:
    try:
        path = importlib.import_module(name).__file__
    except Exception as error:
        path = repr(error)
    if not (path or "").startswith(sys.argv[1]):
        strays[name] = path
print(json.dumps(strays))
"""


def installed_files() -> set[str]:
    """Paths in the wheel of every file in the folders, bytecode apart."""
    return {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".pyc", ".pyo"}
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that neither a stale build folder nor this run leaves a trace."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=LEFTOVERS)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, target], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [path] = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """Paths of all files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The wheel's METADATA headers."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


def test_every_folder_of_python_code_is_mapped() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(FOLDERS)


def test_wheel_holds_exactly_the_files_of_the_folders(names: set[str]) -> None:
    content = {name for name in names if ".dist-info/" not in name}
    missing, extra = installed_files() - content, content - installed_files()
    assert not missing, f"add to packages or package-data in pyproject.toml: {sorted(missing)}"
    assert not extra, f"in the wheel but not in the folders: {sorted(extra)}"


def test_only_graphrec_is_installed(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"graphrec"}


@pytest.mark.parametrize(
    "name", ["graphrec/py.typed", "graphrec/data/online_shoppers.parquet", "graphrec/data/README.md"]
)
def test_wheel_holds_what_users_need_beside_code(names: set[str], name: str) -> None:
    assert name in names


def test_every_module_imports_from_the_wheel(wheel: Path, names: set[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in names
        if name.endswith(".py") and not name.endswith("__main__.py")
    )
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(tmp_path), *modules],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout.splitlines()[-1])
    if find_spec("triton") is None:  # it is optional; the files that hold kernels are loaded when one runs
        failed = {name: why for name, why in failed.items() if "No module named 'triton'" not in why}
    assert failed == {}


def test_metadata_states_licence_command_and_python(wheel: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    with zipfile.ZipFile(wheel) as archive:
        files = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        assert archive.read(files["entry_points.txt"]).decode().split() == [
            "[console_scripts]",
            "graphrec",
            "=",
            "graphrec.cli:main",
        ]
        licence = archive.read(files["licenses/LICENSE"]).decode()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
