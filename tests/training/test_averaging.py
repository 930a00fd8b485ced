"""The moving average of the weights: lazily for tables, the same in the end; evaluated, kept, and resumed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_tiny import Rows, Scores, Tiny, make_model, quick_config

from graphrec.errors import ConfigError
from graphrec.training import TrainConfig, Trainer
from graphrec.training import averaging as module
from graphrec.training.averaging import WeightAverage
from graphrec.training.sparse import LazyAdam, RowAdagrad, RowOptimizer


class Table(nn.Module):
    """A table with row gradients, a weight, a frozen weight, and a statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 3))
        self.table.sparse_rows = True  # type: ignore[attr-defined]
        self.weight = nn.Parameter(torch.randn(2))
        self.frozen = nn.Parameter(torch.randn(2), requires_grad=False)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def set_gradient(model: Table, rows: Tensor | None) -> None:
    """Of some rows, or of all (None)."""
    shape = model.table.shape
    if rows is None:
        model.table.grad = torch.randn(shape)
    else:
        values = torch.randn(len(rows), shape[1])
        model.table.grad = torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)


@pytest.mark.parametrize("optimizer", [LazyAdam, RowAdagrad])
@pytest.mark.parametrize("decay", [0.05, 0.5, 0.9, 0.999])
def test_lazy_averages_equal_plain_ones(
    decay: float, optimizer: type[RowOptimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4)
    torch.manual_seed(0)
    model = Table()
    lazy = optimizer([model.table], lr=0.3)  # type: ignore[call-arg]
    average = WeightAverage(model, decay, [torch.optim.SGD([model.weight]), lazy])
    plain = {name: one.detach().clone().double() for name, one in model.state_dict().items()}
    for step in range(1, 60):
        rows = None if step == 7 else torch.randint(0, 9, (3,)) if step % 4 else torch.empty(0).long()
        set_gradient(model, rows)
        lazy.step()
        with torch.no_grad():
            model.weight += torch.randn(2)
            model.mean += 1  # type: ignore[operator]
            model.count += 1  # type: ignore[operator]
        average.after()
        now = min(decay, (1 + step) / (10 + step))
        for name in ("table", "weight", "mean"):
            plain[name] = now * plain[name] + (1 - now) * model.state_dict()[name].double()
        weights = {name: one.clone() for name, one in model.state_dict().items()}
        if step % 20 == 19:
            with average.applied():
                for name in ("table", "weight", "mean"):
                    found = model.state_dict()[name].double()
                    torch.testing.assert_close(found, plain[name], rtol=1e-4, atol=1e-5)
                for name in ("frozen", "count"):
                    assert torch.equal(model.state_dict()[name], weights[name])
            for name, one in model.state_dict().items():
                assert torch.equal(one, weights[name]), name
    average.apply()
    torch.testing.assert_close(model.table.detach().double(), plain["table"], rtol=1e-4, atol=1e-5)


def test_a_step_leaves_what_is_kept_of_other_rows_alone() -> None:
    model = Table()
    lazy = LazyAdam([model.table])
    average = WeightAverage(model, 0.9, [lazy])
    seen = []
    for rows in ([1, 4], [4], [2]):
        set_gradient(model, torch.tensor(rows))
        lazy.step()
        average.after()
        seen.append(average.state_dict()["offsets"]["table"].clone())
    changed = [(b != a).any(1).nonzero().flatten().tolist() for a, b in itertools.pairwise(seen)]
    assert changed == [[4], [2]]


class Told(Scores):
    """Keeps what it saw last."""

    last: Any = None

    def compute(self) -> dict[str, float | None]:
        type(self).last = self.p
        return super().compute()


def test_the_average_is_evaluated_and_kept() -> None:
    model, valid = make_model(), Rows(333, 100, seed=1)
    trainer = Trainer(quick_config(ema=0.9, epochs=1))
    trainer.fit(model, Rows(600, 64, shuffle=True), valid, metrics=Told())
    assert torch.equal(torch.from_numpy(trainer.predict(model, valid)), torch.from_numpy(Told.last))
    plain = make_model()
    Trainer(quick_config(epochs=1)).fit(plain, Rows(600, 64, shuffle=True))
    assert not torch.allclose(plain.net[0].weight, model.net[0].weight)  # type: ignore[union-attr, arg-type]


def test_without_validation_the_last_average_is_kept() -> None:
    class Following(Tiny):
        def constrain(self) -> None:
            seen.append(self.net[0].weight.detach().clone())  # type: ignore[operator]

    torch.manual_seed(0)
    seen: list[Tensor] = []
    model = Following()
    expected = model.net[0].weight.detach().clone()  # type: ignore[operator]
    Trainer(quick_config(ema=0.8, epochs=2)).fit(model, Rows(600, 64, shuffle=True))
    for step, weight in enumerate(seen, 1):
        expected.lerp_(weight, 1 - min(0.8, (1 + step) / (10 + step)))
    torch.testing.assert_close(model.net[0].weight.detach(), expected)  # type: ignore[operator]


@pytest.mark.parametrize("decay", [1, -0.5, True, "often"])
def test_refused(decay: Any) -> None:
    with pytest.raises(ConfigError, match="ema"):
        TrainConfig(ema=decay)


def test_zero_is_none() -> None:
    assert TrainConfig(ema=0) == TrainConfig(ema=None)
