"""timm's own tests of models, run for ours: ``python tests/vision/timm_own_tests.py CLONE [GFLOPS]``.

CLONE is a clone of huggingface/pytorch-image-models. Its ``tests/test_models.py`` runs as it is, but that
``list_models`` gives the names ``graphrec_*``: those made for tests, and published ones up to GFLOPS (6).
TorchScript and torch.fx, which our models do without, are left out.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm

from graphrec import vision

PREFIX = "graphrec_"
CASES = "(forward or backward or default_cfgs) and graphrec and not fx and not torchscript"
TOKENS = "pvt_[tsml]*"
"""PVT, whose final features are tokens, as those of timm's NON_STD_FILTERS are; PVT v2 has maps."""


def chosen(limit: float) -> list[str]:
    """Our names in timm."""
    names = [name.removeprefix(PREFIX) for name in timm.list_models(f"{PREFIX}*")]
    rows = ((name, vision.family(name).card.variants[name]) for name in names)
    return [PREFIX + name for name, row in rows if not row.published or (row.gflops or limit + 1) <= limit]


def main(clone: Path, limit: float) -> int:
    """Run them; returns pytest's exit status."""
    ours = chosen(limit)

    def matches(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(name.removeprefix(PREFIX), one) for one in patterns)

    def list_models(filter: Sequence[str] = (), exclude_filters: Sequence[str] = (), **_: Any) -> list[str]:
        keep, drop = ([*one, TOKENS] if "tnt_*" in one else one for one in (filter, exclude_filters))
        return [name for name in ours if (not keep or matches(name, keep)) and not matches(name, drop)]

    timm.list_models, timm.list_pretrained = list_models, lambda *_: []
    options = ["-c", os.devnull, "--rootdir", str(clone), "-p", "no:cacheprovider", "-W", "ignore"]
    return int(
        pytest.main([*options, "-q", "--tb=line", "-k", CASES, str(clone / "tests" / "test_models.py")])
    )


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: timm_own_tests.py CLONE [GFLOPS]")
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) == 3 else 6.0))
