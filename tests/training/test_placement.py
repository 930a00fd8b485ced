"""Models are moved and switched only where they must be; processes keep what they launched."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from graphrec.training import TrainConfig
from graphrec.training.launch import launch
from graphrec.training.placement import evaluating, place


def test_place_moves_a_model_of_which_one_buffer_is_elsewhere() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    weight = model[0].weight
    model[1].running_mean = torch.zeros(2, device="meta")
    place(model, torch.device("meta"))
    assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {"meta"}
    assert weight.device.type == "cpu"


@pytest.mark.parametrize("root", [True, False])
def test_evaluating_switches_a_layer_that_alone_trains(root: bool) -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout()).train(root)
    model[1].train()
    with evaluating(model):
        assert not any(one.training for one in model.modules())
    assert model.training == root
    assert model[1].training == root


def test_evaluating_gives_the_mode_back_after_an_error() -> None:
    model = nn.Dropout()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert model.training


def test_one_fabric_serves_all_that_ask_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = launch(TrainConfig(accelerator="cpu"))
    assert launch(TrainConfig(accelerator="cpu", epochs=3)) is plain
    with warnings.catch_warnings(action="ignore"):  # without instructions for it, bfloat16 is slow
        rounded = launch(TrainConfig(accelerator="cpu", precision="bf16-mixed"))
    with rounded.autocast():
        assert torch.is_autocast_enabled("cpu")
    with launch(TrainConfig(accelerator="cpu")).autocast():
        assert not torch.is_autocast_enabled("cpu")
    monkeypatch.setenv("LT_PRECISION", "64-true")  # as `fabric run` gives it
    assert launch(TrainConfig(accelerator="cpu")) is not plain
