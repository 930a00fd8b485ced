"""PLE against its equations, and who learns from whom at one level and at two."""

from __future__ import annotations

import pytest
import torch
from ctr_tables import CATEGORICAL, ITEM, NUMERIC, TAGS, make_batch, make_features, make_spec
from torch import Tensor, nn

from graphrec.ctr import PLE
from graphrec.ctr.experts import Experts, mixture
from graphrec.errors import ConfigError

SPEC = make_spec(CATEGORICAL, NUMERIC, ITEM, TAGS, labels=3)


def build(levels: int, share_all: bool = True) -> PLE:
    torch.manual_seed(0)
    model = PLE(
        SPEC,
        embedding_dim=4,
        embedding_std=1.0,
        num_levels=levels,
        num_task_experts=2,
        num_shared_experts=3,
        expert_units=(6, 5),
        tower_units=(4,),
        share_all=share_all,
        activation="tanh",
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return model


def weighted(scores: Tensor, outputs: list[Tensor]) -> Tensor:
    """One row: what a gate makes of a list of experts' outputs."""
    e = (scores - scores.max()).exp()
    return sum((w * output for w, output in zip(e / e.sum(), outputs, strict=True)), torch.zeros(()))


@pytest.mark.parametrize("share_all", [True, False])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_paper_equations(levels: int, share_all: bool) -> None:
    model = build(levels, share_all)
    features = make_features(SPEC, 4)
    rows = []
    for x in model.embedding(features).flatten(1):
        tasks, shared = [x, x, x], x
        for number, level in enumerate(model.levels):
            common = [expert(shared) for expert in level.shared_experts]
            own = [[e(g) for e in experts] for experts, g in zip(level.task_experts, tasks, strict=True)]
            new = [
                weighted(gate(g), mine + common)
                for gate, g, mine in zip(level.gates, tasks, own, strict=True)
            ]
            if number < levels - 1:
                everything = [*own[0], *own[1], *own[2], *common] if share_all else common
                shared = weighted(level.shared_gate(shared), everything)
            tasks = new
        rows.append(torch.cat([tower(g) for tower, g in zip(model.towers, tasks, strict=True)]))
    expected = torch.stack(rows)
    assert expected.std() > 0.05
    torch.testing.assert_close(model(features), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("levels", "share_all", "reached"),
    [(1, True, [False, True, False]), (2, False, [False, True, False]), (2, True, [True, True, True])],
)
def test_whom_the_experts_of_a_task_reach(levels: int, share_all: bool, reached: list[bool]) -> None:
    """At one level their own task; at two, by the shared gate, all tasks."""
    model = build(levels, share_all)
    features = make_features(SPEC, 8)
    before = model(features)
    with torch.no_grad():
        for parameter in model.levels[0].task_experts[1].parameters():
            parameter += 0.5
    changed = (model(features) - before).abs().amax(0) > 1e-4
    assert changed.tolist() == reached


def test_the_last_level_has_no_shared_gate() -> None:
    levels = build(3).levels
    assert [level.shared_gate is None for level in levels] == [False, False, True]
    assert levels[0].shared_gate[-1].out_features == 3 * 2 + 3
    assert build(2, share_all=False).levels[0].shared_gate[-1].out_features == 3


def test_mixture_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0, 4.0]]).log()
    first, rest = torch.tensor([[[8.0, 0.0]]]), torch.tensor([[[0.0, 8.0], [16.0, 2.0]]])
    expected = torch.tensor([[9.0, 4.0]])  # (1, 3, 4) / 8 of the three
    torch.testing.assert_close(mixture(scores, first, rest), expected)
    torch.testing.assert_close(mixture(scores, torch.cat([first, rest], 1)), expected)


def test_experts_stack_their_outputs() -> None:
    experts, x = Experts(3, 4, (6, 5)), torch.randn(7, 4)
    assert experts.out_features == 5
    torch.testing.assert_close(experts(x)[:, 1], experts[1](x))
    assert Experts(2, 4, ()).out_features == 4


def test_experts_without_layers_pass_fields_on() -> None:
    spec = make_spec(CATEGORICAL, ITEM, labels=2)
    model = PLE(spec, expert_units=(), tower_units=())
    batch = make_batch(spec, 5)
    assert model.training_loss(batch).isfinite()
    assert model.levels[1].out_features == 2 * 16


@pytest.mark.parametrize("option", ["num_levels", "num_task_experts", "num_shared_experts"])
def test_mistakes_are_named(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}: 0 is too few"):
        PLE(SPEC, **{option: 0})  # type: ignore[arg-type]
