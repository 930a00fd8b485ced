import subprocess
import sys

import pytest

from graphrec.errors import ConfigError
from graphrec.training import TrainConfig
from graphrec.training.config import Cadence, parse_cadence


def test_defaults_are_valid_and_frozen():
    config = TrainConfig()
    assert TrainConfig(**config.model_dump()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "learning_rat: unknown training option; did you mean learning_rate?"),
        ({"zzz": 1}, "zzz: unknown training option"),
        ({"patience": -1}, "patience: should be greater than or equal to 0, got -1"),
        (
            {"patience": 1.5},
            "patience: should be a valid integer, got a number with a fractional part, got 1.5",
        ),
        ({"patience": False}, "patience: should not be true or false, got False"),
        ({"epochs": True}, "epochs: should not be true or false, got True"),
        ({"learning_rate": True}, "learning_rate: should not be true or false, got True"),
        ({"epochs": 0}, "epochs: should be greater than or equal to 1, got 0"),
        ({"learning_rate": -1}, "learning_rate: should be greater than 0, got -1"),
        ({"learning_rate": float("nan")}, "learning_rate: should be a finite number, got nan"),
        ({"scheduler": "linear"}, "scheduler: should be 'plateau', 'cosine', 'step' or 'none', got 'linear'"),
        ({"precision": "16"}, "precision: should be '32-true' or 'bf16-mixed', got '16'"),
        ({"checkpoint_every": "often"}, "checkpoint_every: 'often' is neither a number of steps"),
        ({"checkpoint_every": 0}, "checkpoint_every: 0 is neither"),
        ({"devices": 0}, "devices: 0 is less than 1"),
        ({"loggers": ["csv", "mlflow"]}, "loggers: should be 'csv', 'tensorboard' or 'wandb', got 'mlflow'"),
    ],
)
def test_errors_name_the_key(values, message):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_patience_of_zero_is_never():
    assert TrainConfig(patience=0) == TrainConfig(patience=None)


def test_every_wrong_key_is_named():
    with pytest.raises(ConfigError, match=r"epochs: .*; clip_norm: "):
        TrainConfig(epochs="many", clip_norm=0)


@pytest.mark.parametrize(
    ("value", "cadence"),
    [
        (500, Cadence(steps=500)),
        ("500", Cadence(steps=500)),
        ("500 steps", Cadence(steps=500)),
        ("60s", Cadence(seconds=60)),
        ("0.5 min", Cadence(seconds=30)),
        (None, Cadence()),
    ],
)
def test_cadence(value, cadence):
    assert parse_cadence(value) == cadence == TrainConfig(checkpoint_every=value).cadence


def test_yaml_round_trip(tmp_path):
    config = TrainConfig(epochs=3, loggers=("csv",), checkpoint_every="5 min", clip_norm=None)
    config.to_yaml(tmp_path / "c.yaml")
    assert TrainConfig.from_yaml(tmp_path / "c.yaml") == config


def test_yaml_numbers_without_a_point(tmp_path):
    (tmp_path / "c.yaml").write_text("learning_rate: 1e-3\n")  # a string to YAML 1.1
    assert TrainConfig.from_yaml(tmp_path / "c.yaml").learning_rate == 1e-3


@pytest.mark.parametrize("content", ["- a\n- b\n", "epochs: [", "1: 2\n", "epocs: 3\n"])
def test_wrong_yaml_names_the_file(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        TrainConfig.from_yaml(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_missing_yaml_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        TrainConfig.from_yaml(tmp_path / "none.yaml")


def test_replace_checks():
    assert TrainConfig().replace(epochs=7).epochs == 7
    with pytest.raises(ConfigError, match="epochs"):
        TrainConfig().replace(epochs=0)


def test_the_configuration_does_not_need_torch():
    code = "import sys; from graphrec.training import TrainConfig; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
