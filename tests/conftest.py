"""Shared by all tests: one thread, and no test reads or fills the user's cache or configuration.

Property tests draw the same examples in every run, so that no change is refused by chance. Others are drawn
by ``pytest --hypothesis-profile=search --hypothesis-seed=1``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from page_examples import Examples, run_page

# Before torch is loaded: tensors as small as these gain nothing from threads, which only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("search", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache and configuration folders of this test run's own, also for the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture
def run_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Examples:
    """Run the Python examples of a page in order, in an empty folder, which the test is in from its start."""
    monkeypatch.chdir(tmp_path)

    def run(page: Path, count: int) -> tuple[dict[str, Any], str]:
        names = run_page(page, count)
        return names, capsys.readouterr().out

    return run
