"""The lazy optimisers equal torch's sparse ones and leave untouched rows alone."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.training import sparse as module
from graphrec.training.row_gradients import merge_rows, rows_and_values
from graphrec.training.sparse import LazyAdam, RowAdagrad, build_optimizers


def sparse(rows: list[int], n_rows: int, dim: int = 3) -> Tensor:
    index = torch.tensor([rows])
    return torch.sparse_coo_tensor(index, torch.randn(len(rows), dim), (n_rows, dim), check_invariants=True)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("ours", "theirs"), [(LazyAdam, torch.optim.SparseAdam), (RowAdagrad, torch.optim.Adagrad)]
)
def test_equals_torch(ours: type, theirs: type) -> None:
    torch.manual_seed(0)
    a = nn.Parameter(torch.randn(10, 3))
    b = nn.Parameter(a.detach().clone())
    first, second = ours([a], lr=0.1), theirs([b], lr=0.1)
    for rows in ([0, 3, 3, 9], [3], [5, 1, 0], [9, 9]):
        a.grad = sparse(rows, 10)
        b.grad = a.grad.clone()
        first.step()
        second.step()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", [LazyAdam, RowAdagrad, lambda p: RowAdagrad(p, per_row=True)])
def test_only_touched_rows_change(make: type) -> None:
    weight = nn.Parameter(torch.randn(6, 3))
    before = weight.detach().clone()
    optimizer = make([weight])
    weight.grad = sparse([4, 2, 4], 6)
    optimizer.step()
    changed = (weight != before).all(1)
    assert changed.tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize("make", [LazyAdam, RowAdagrad, lambda p: RowAdagrad(p, per_row=True)])
def test_blocks_of_rows_change_nothing(make: type, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    start, found = torch.randn(10, 3), []
    for numbers in (6, 1 << 16):
        monkeypatch.setattr(module, "_BLOCK", numbers)
        torch.manual_seed(1)
        weight, told = nn.Parameter(start.clone()), torch.zeros(10, 3)
        optimizer = make([weight])
        optimizer.on_change = lambda _, rows, change, told=told: told.index_add_(0, rows, change)
        for rows in ([0, 3, 3, 9, 7, 8], [3], [5, 1, 0, 2, 4], []):
            weight.grad = sparse(rows, 10)
            optimizer.step()
        weight.grad = torch.randn(10, 3)
        optimizer.step()
        torch.testing.assert_close(told, weight.detach() - start)
        found.append(weight.detach())
    assert torch.equal(*found)


def test_row_adagrad_with_one_accumulator_per_row() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = RowAdagrad([weight], lr=1.0, per_row=True, eps=0.0)
    weight.grad = torch.sparse_coo_tensor([[1]], [[3.0, 4.0]], (2, 2), check_invariants=True)
    optimizer.step()
    root_mean_square = (25 / 2) ** 0.5
    torch.testing.assert_close(weight.detach()[1], torch.tensor([-3.0, -4.0]) / root_mean_square)
    assert optimizer.state[weight]["sum"].shape == (2, 1)


def test_state_round_trip_continues_identically() -> None:
    torch.manual_seed(0)
    a = nn.Parameter(torch.randn(5, 3))
    first = LazyAdam([a])
    a.grad = sparse([1, 2], 5)
    first.step()
    b = nn.Parameter(a.detach().clone())
    second = LazyAdam([b])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    a.grad = sparse([2, 4], 5)
    b.grad = a.grad.clone()
    first.step()
    second.step()
    assert torch.equal(a, b)


@pytest.mark.parametrize("rows", [[], [3], [0, 2, 4]])
def test_rows_in_order_are_not_merged_again(rows: list[int]) -> None:
    values = torch.randn(len(rows), 2)
    grad = torch.sparse_coo_tensor([rows], values, (5, 2), check_invariants=True)
    assert grad.is_coalesced() == (len(rows) < 2)  # as autograd leaves it
    merged = merge_rows(grad)
    assert merged.is_coalesced()
    assert merged._values().data_ptr() == values.data_ptr()
    assert torch.equal(merged.to_dense(), torch.zeros(5, 2).index_copy(0, torch.tensor(rows).long(), values))


def test_entries_of_two_sparse_axes_are_merged() -> None:
    grad = torch.sparse_coo_tensor(
        [[0, 1, 1], [2, 0, 0]], torch.tensor([1.0, 2.0, 4.0]), (2, 3), check_invariants=True
    )
    assert torch.equal(merge_rows(grad).to_dense(), torch.tensor([[0, 0, 1.0], [6.0, 0, 0]]))
    distinct = torch.sparse_coo_tensor([[0, 1], [2, 0]], torch.ones(2), (2, 3), check_invariants=True)
    assert torch.equal(merge_rows(distinct).to_dense(), distinct.to_dense())


def test_repeated_rows_are_merged() -> None:
    grad = torch.sparse_coo_tensor([[3, 1, 3]], [[1.0], [2.0], [4.0]], (5, 1), check_invariants=True)
    rows, values = rows_and_values(grad)
    assert rows.tolist() == [1, 3]
    assert values.tolist() == [[2.0], [5.0]]


def test_parameters_are_divided_by_their_kind() -> None:
    model = nn.Module()
    model.table, model.dense = nn.Parameter(torch.ones(4, 2)), nn.Linear(2, 1)
    model.table.sparse_rows = True
    config = SimpleNamespace(
        learning_rate=1e-3,
        weight_decay=0.0,
        optimizer="adam",
        embedding_optimizer="row_adagrad",
        embedding_lr=None,
        batch_size=100,
    )
    dense, rows = build_optimizers(model, config)
    assert [p.shape for p in rows.param_groups[0]["params"]] == [(4, 2)]
    assert rows.param_groups[0]["lr"] == 0.05
    assert rows.param_groups[0]["initial"] == pytest.approx(1e-5)
    assert len(dense.param_groups[0]["params"]) == 2
    config.optimizer = "adan"
    with pytest.raises(ConfigError, match="optimizer: 'adan' is not one of adam"):
        build_optimizers(model, config)
