"""The examples of docs/eeg.md run, in order, on small files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from eeg_files import dreamer, eye_state
from page_examples import Examples

import graphrec.graph.eeg as package

PAGE = Path(__file__).resolve().parents[2] / "docs" / "eeg.md"


@pytest.mark.filterwarnings("ignore:the validation rows do not define")
def test_the_examples_run(run_examples: Examples) -> None:
    eye_state(Path("EEG_Eye_State.arff"), seconds=40)
    dreamer(Path("DREAMER.mat"), people=2, clips=5, samples=768)
    _, printed = run_examples(PAGE, 10)
    assert re.search(r"window \d+ \(\w+\) and window \d+ \(\w+\) share samples", printed)
    random, last = (float(v) for v in re.findall(r"a random fifth (\S+)\nthe last fifth (\S+)", printed)[0])
    assert random > last + 0.3, "the generated recording drifts, so it leaks as the real one does"
    assert "1181" in printed
    assert Path("gates.png").stat().st_size > 10_000


def test_every_public_name_exists() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing
    assert np.array_equal(sorted(package.__all__), sorted(set(package.__all__)))


def test_its_pictures_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(found) == 2
    assert all((PAGE.parent / name).is_file() for name in found)
