"""Large tables ask for huge pages, small ones and other systems do not, and the numbers are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graphrec.training import huge_pages
from graphrec.training.huge_pages import empty_table, full_table, in_huge_pages
from graphrec.training.sparse import LazyAdam, RowAdagrad

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LARGE = (1 << 18, 16)


def flags(x: Tensor) -> list[str]:
    """What the system notes of the memory in the middle of a tensor."""
    place = x.data_ptr() + x.numel() * x.element_size() // 2
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(one, 16) for one in first.split("-"))
            inside = low <= place < high
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("no mapping holds the tensor")


@pytest.mark.skipif(not ENABLED.exists(), reason="this system has no transparent huge pages")
def test_large_tables_and_their_moments_ask_for_huge_pages() -> None:
    weight = nn.Parameter(empty_table(*LARGE, like=torch.empty(0)).zero_())
    assert "hg" in flags(weight.data)
    for optimizer, name in ((LazyAdam([weight]), "moments"), (RowAdagrad([weight]), "sum")):
        weight.grad = torch.sparse_coo_tensor(
            torch.tensor([[3]]), torch.ones(1, 16), LARGE, check_invariants=True
        )
        optimizer.step()
        assert "hg" in flags(optimizer.state[weight][name])


def test_the_numbers_do_not_depend_on_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.randn(LARGE)
    assert torch.equal(in_huge_pages(drawn), drawn)
    monkeypatch.setattr(huge_pages, "c_function", lambda *_: None)
    assert torch.equal(in_huge_pages(drawn), drawn)
    assert torch.equal(full_table(3, 2, value=0.5, like=drawn), torch.full((3, 2), 0.5))


def test_small_tables_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(huge_pages, "_advise", lambda start, nbytes: asked.append(nbytes))
    empty_table(1000, 16, like=torch.empty(0))
    empty_table(*LARGE, like=torch.empty(0))
    assert asked == [LARGE[0] * LARGE[1] * 4]


def test_takes_dtype_and_device_of_the_model() -> None:
    half = full_table(2, 3, value=1, like=torch.empty(0, dtype=torch.float64))
    assert half.dtype == torch.float64
    assert empty_table(1 << 40, 16, like=torch.empty(0, device="meta")).is_meta
