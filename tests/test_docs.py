"""Generated pages are fresh, links lead somewhere, and what a card claims has a test."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from graphrec.registry import card, list_models

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The module docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh(generate: ModuleType) -> None:
    assert generate.stale() == [], "run python docs/generate.py"


def test_every_model_is_in_the_catalogue_and_the_readme(generate: ModuleType) -> None:
    catalogue, readme = generate.catalogue(), generate.readme()
    for name in list_models(task="ctr"):
        assert f"\n## {name}\n" in catalogue
        assert f"[`{name}`](docs/models.md#{name})" in readme


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as the usual renderers make them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_every_page_of_the_documentation_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages - set(LINK.findall(index)) == set()


def defined_tests(path: Path) -> set[str]:
    """Names of the functions and methods of a test file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", list_models())
def test_what_a_card_calls_verified_has_a_test(name: str) -> None:
    assert card(name).verified, "nothing is verified"
    for claim, reference in card(name).verified.items():
        file, _, function = reference.partition("::")
        assert (ROOT / file).is_file(), f"{claim}: {reference}"
        assert function.partition("[")[0] in defined_tests(ROOT / file), f"{claim}: {reference}"


def test_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_pattern_is_drawn(generate: ModuleType) -> None:
    from graphrec.kernels import patterns

    drawing = generate.draw_patterns
    code = " ".join(one.code for group in drawing.VOCABULARY.values() for one in group)
    machinery = {"And", "BlockPlan", "Or", "Pattern", "TilePlan", "decode", "encode"}
    assert {name for name in patterns.__all__ if f"{name}(" not in code} == machinery
    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(pictures/([^)]+)\)", page)) == set(drawing.pictures())


def cells(path: str, rows: int, columns: int) -> set[tuple[int, int]]:
    """The cells that a path of a picture covers."""
    found: set[tuple[int, int]] = set()
    for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path):
        found |= {(int(y), int(x) + step) for step in range(int(width))}
    assert all(y < rows and x < columns for y, x in found)
    return found


def test_pictures_show_the_mask(generate: ModuleType) -> None:
    drawing = generate.draw_patterns
    for group in drawing.VOCABULARY.values():
        for picture in group:
            seen = drawing.made(picture).mask(*picture.lengths)
            last = seen.flatten(0, -3)[-1] if seen.dim() > 2 else seen
            text = (ROOT / "docs" / "pictures" / f"{picture.file}.svg").read_text(encoding="utf-8")
            shown = cells(text[text.rindex('<g transform="translate') :], *picture.lengths)
            assert shown == set(map(tuple, last.nonzero().tolist())), picture.code
