import torch
from torch import nn

from graphrec.training.capture_check import leave_out_capture_check


def step(optimizer: torch.optim.Optimizer, param: nn.Parameter) -> None:
    param.grad = torch.ones_like(param)
    optimizer.step()


def test_steps_do_not_look_for_a_gpu(monkeypatch):
    def looked(*args, **kwargs):
        raise AssertionError("looked for a GPU")

    param = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([param])
    leave_out_capture_check(optimizer)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", looked)
    step(optimizer, param)
    assert (param < 1).all()


def test_other_optimisers_are_left_alone():
    param = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([param], lr=0.1)
    leave_out_capture_check(optimizer)
    step(optimizer, param)
    assert torch.allclose(param, torch.full((3,), 0.9))
