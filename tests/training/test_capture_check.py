import torch
from torch import nn
from training_tiny import Rows, make_model, quick_config

from graphrec.training import Trainer
from graphrec.training.capture_check import leave_out_capture_check


def looked(*args, **kwargs):
    raise AssertionError("looked for a GPU")


def test_training_on_a_cpu_does_not_look_for_a_gpu_in_its_steps(monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "_accelerator_graph_capture_health_check", looked)
    Trainer(quick_config(epochs=1)).fit(make_model(), Rows(150, 64))


def test_steps_do_not_look_for_a_gpu(monkeypatch):
    param = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([param])
    leave_out_capture_check(optimizer)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", looked)
    param.grad = torch.ones(3)
    optimizer.step()
    assert (param < 1).all()
