"""The Python examples of a page of the documentation, run one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Examples = Callable[[Path, int], tuple[dict[str, Any], str]]
"""The fixture ``run_examples``: page, how many examples it has -> the names they leave, what they print."""


def run_page(page: Path, count: int) -> dict[str, Any]:
    """Run a page's examples in the working folder and return the names that they leave behind.

    Args:
        page: A Markdown file.
        count: How many examples it must have.
    """
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == count
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name}, example {number + 1}", "exec"), names)
    return names
