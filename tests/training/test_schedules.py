import pytest
import torch

from graphrec.training import TrainConfig
from graphrec.training.schedules import Schedule


def make(total=100, **options):
    dense, rows = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizers = [torch.optim.Adam([dense], lr=0.1), torch.optim.Adagrad([rows], lr=1.0)]
    return Schedule(optimizers, TrainConfig(**options), total)


def rates(schedule, step):
    schedule.apply(step)
    return [group["lr"] for group in schedule.groups]


def test_none_keeps_the_rates():
    schedule = make(scheduler="none")
    schedule.evaluated(False)
    assert rates(schedule, 99) == [0.1, 1.0]


def test_cosine_goes_from_the_rate_to_the_floor_for_all_optimisers():
    schedule = make(scheduler="cosine", min_lr_factor=0.1)
    assert rates(schedule, 0) == [0.1, 1.0]
    assert rates(schedule, 50) == pytest.approx([0.055, 0.55])
    assert rates(schedule, 100) == pytest.approx([0.01, 0.1])
    assert rates(schedule, 1000) == pytest.approx([0.01, 0.1])


def test_step_falls_after_epochs():
    schedule = make(total=50, epochs=10, scheduler="step", step_epochs=(3, 6), step_factor=0.5)
    seen = [rates(schedule, step)[0] for step in (0, 14, 15, 29, 30, 49)]
    assert seen == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert rates(schedule, 30) == [0.025, 0.25]


@pytest.mark.parametrize("scheduler", ["cosine", "plateau", "step", "none"])
def test_warm_up_rises_to_the_rate(scheduler):
    schedule = make(scheduler=scheduler, warmup_steps=9)
    rise = [schedule.factor(step) for step in range(10)]
    assert rise == pytest.approx([0.1 * k for k in range(1, 11)])


def test_plateau_falls_after_evaluations_without_a_best_and_stops_at_the_floor():
    schedule = make(scheduler="plateau", plateau_factor=0.1, plateau_patience=1, min_lr_factor=0.005)
    seen = []
    for improved in [True, False, True, False, False, False, False, False, False]:
        schedule.evaluated(improved)
        seen.append(schedule.factor(0))
    assert seen == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.005])


def test_state_round_trip():
    first, second = (make(scheduler="plateau", plateau_patience=1) for _ in range(2))
    for improved in (False, False, False):
        first.evaluated(improved)
    second.load_state_dict(first.state_dict())
    first.evaluated(False)
    second.evaluated(False)
    assert first.factor(0) == second.factor(0) == pytest.approx(0.01)
