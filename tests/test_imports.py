"""Imports point one way, name only declared dependencies, and leave the heavy ones until they are used."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "graphrec": "graphrec",
    "kernels": "graphrec.kernels",
    "pipelines": "graphrec.pipelines",
    "vision": "graphrec.vision",
}
"""Top-level folder -> import name."""

BASE = {"errors", "figures"}
ENGINE = BASE | {"metrics", "kernels", "pipelines"}
MODELS = ENGINE | {"training", "registry"}
ESTIMATOR = MODELS | {"runs", "run_writer", "history_file", "tracing"}
GRAPH = ESTIMATOR | {"module_estimator", "report"}
FACADE = GRAPH | {"ctr", "graph", "vision", "data", "explain", "export", "estimators", "doctor"}
MAY_IMPORT = {
    "errors": set(),
    "data": set(),
    "figures": set(),
    "kernels": BASE,
    "pipelines": BASE,
    "metrics": BASE,
    "registry": BASE,
    "tracing": BASE,
    "report": BASE | {"metrics"},
    "training": ENGINE,
    "ctr": MODELS,
    "graph": GRAPH,
    "vision": GRAPH,
    "module_estimator": ESTIMATOR,
    "history_file": BASE,
    "runs": FACADE,
    "run_writer": BASE | {"runs"},
    "explain": FACADE,
    "export": FACADE,
    "doctor": FACADE,
    "estimators": FACADE,
    "running": FACADE,
    "cli": FACADE | {"graphrec", "running"},
    "examples": FACADE | {"graphrec"},
    "graphrec": FACADE | {"running"},
    "__main__": FACADE | {"cli"},
}
"""Part (a folder or module directly below graphrec) -> parts that it may import, itself apart."""

HEAVY = {
    "torch",
    "polars",
    "pyarrow",
    "sklearn",
    "pandas",
    "scipy",
    "matplotlib",
    "onnx",
    "timm",
    "torchvision",
    "PIL",
}
HEAVY |= {"lightning_fabric"}

DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "markupsafe": "jinja2",
    "triton": "torch",
    "PIL": "pillow",
}
"""Import name -> the dependency that brings it; triton comes with torch's builds for GPUs."""


def module_name(path: Path) -> str:
    """Dotted import name of a source file; that of the package for an ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((FOLDERS[parts[0]], *parts[1:])).removesuffix(".__init__")


def sources() -> list[Path]:
    """All Python files of the package."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a file imports, at any depth of nesting."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def part_of(name: str) -> str:
    """``graphrec.ctr.fcn`` -> ``ctr``; a name defined by graphrec/__init__.py itself -> ``graphrec``."""
    head = name.split(".")[1] if "." in name else "graphrec"
    return head if head in MAY_IMPORT else "graphrec"


def test_every_part_of_the_package_has_a_place_in_the_layers() -> None:
    parts = {path.stem if path.suffix == ".py" else path.name for path in (ROOT / "graphrec").iterdir()}
    parts = {part for part in parts if part not in {"py", "py.typed", "__init__", "__pycache__"}}
    assert parts - set(MAY_IMPORT) == set(), "give it a line in MAY_IMPORT"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    here = part_of(module_name(path))
    wrong = [
        f"line {line}: {name}"
        for line, name in imported_names(path)
        if name.startswith("graphrec.")
        and name != "graphrec.__version__"
        and part_of(name) not in MAY_IMPORT[here] | {here}
    ]
    assert not wrong, f"{here} may import {sorted(MAY_IMPORT[here])}, not {wrong}"


def test_folders_are_never_imported_by_their_bare_name() -> None:
    files = [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    bare = re.compile(r"^\s*(from|import) (kernels|pipelines|vision)\b", re.MULTILINE)
    assert [str(path) for path in files if bare.search(path.read_text(encoding="utf-8"))] == []


def third_party() -> set[str]:
    """Distributions that the package's code imports anywhere."""
    names = {name.split(".")[0] for path in sources() for _, name in imported_names(path)}
    names -= set(sys.stdlib_module_names) | {"graphrec"}
    return {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in names}


def declared(*groups: str) -> set[str]:
    """Distribution names of the required dependencies, or of the named extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for group in groups for text in project["optional-dependencies"][group]]
    wanted = extras if groups else project["dependencies"]
    return {re.split(r"[<>=!~;\[ ]", text)[0].lower() for text in wanted}


def test_everything_imported_is_declared() -> None:
    extras = declared("pandas", "onnx", "tensorboard", "triton", "transformers", "wandb", "dgl", "eeg")
    assert third_party() - declared() - extras == set()


def test_everything_required_is_imported() -> None:
    used_by_fabric_run = {"click"}  # lightning-fabric wants it for its command and does not install it
    assert declared() - third_party() - used_by_fabric_run == set()


def modules_after(code: str) -> set[str]:
    """Top-level names, and torch._dynamo, of modules that a fresh interpreter has loaded after ``code``."""
    names = "{m.split('.')[0] for m in sys.modules} | {'torch._dynamo'} & {*sys.modules}"
    ending = f"\nimport json, sys; print(); print(json.dumps(sorted({names})))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", ["graphrec", "graphrec.errors", "graphrec.data", "graphrec.cli"])
def test_import_loads_nothing_heavy(name: str) -> None:
    assert modules_after(f"import {name}") & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["predict", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["graphrec", *{arguments!r}]
from graphrec.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert modules_after(code) & HEAVY == set()


def test_tables_do_not_load_torch() -> None:
    assert "torch" not in modules_after("import graphrec.pipelines.tables")


def test_serving_loads_neither_compiler_nor_fabric() -> None:
    """Together they take as long to load as all the rest."""
    code = """
import torch
from graphrec import CTRClassifier, create_model
from graphrec.estimators import scoring
from graphrec.kernels import attention
from graphrec.kernels.patterns import Window
from graphrec.pipelines.tables import Features, FeatureSpec, Field, FieldKind
from graphrec.training import Trainer
spec = FeatureSpec(tuple(Field(name, FieldKind.CATEGORICAL, size=9) for name in "CD"), ("y",))
with torch.inference_mode():
    create_model("autoint", spec)(Features(torch.ones(2, 2, dtype=torch.int32), torch.empty(2, 0)))
    attention(*torch.randn(3, 1, 2, 30, 4), Window(3, 3))
"""
    assert modules_after(code) & {"torch._dynamo", "lightning_fabric"} == set()
