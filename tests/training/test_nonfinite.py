import re

import pytest
import torch
from safetensors.torch import load_file
from training_tiny import Rows, Tiny, make_model, quick_config

from graphrec.errors import NonFiniteLossError
from graphrec.training import Trainer


class Poisoned(Rows):
    """Batch 3 of each epoch holds what a reader let through."""

    value = float("inf")

    def epoch(self, epoch, start_step=0):
        for step, batch in enumerate(super().epoch(epoch, start_step), start_step):
            if step == 3:
                batch.features.numeric[:2, 1] = self.value
            yield batch


def failure(tmp_path, source, model=None, **config):
    """The message of a run in a folder that need not exist."""
    with pytest.raises(NonFiniteLossError) as error:
        Trainer(quick_config(**config)).fit(model or make_model(norm=False), source, run_dir=tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_message_names_place_input_and_saved_batch(tmp_path):
    tmp_path /= "new"
    message = failure(tmp_path, Poisoned(600, 64))
    assert "the loss is nan at epoch 1, step 4 (features.numeric has 2 infinite)" in message
    path = tmp_path / "nonfinite-epoch1-step4.safetensors"
    assert str(path) in message
    batch = load_file(path)
    assert sorted(batch) == ["features.categorical", "features.numeric", "labels"]
    assert batch["features.numeric"].shape == (64, 2)
    assert int(batch["features.numeric"].isinf().sum()) == 2


def test_huge_inputs_are_named(tmp_path):
    source = Poisoned(600, 64)
    source.value = 3e38
    assert "features.numeric has values up to 3e+38" in failure(tmp_path, source)


def test_without_a_run_folder_the_batch_is_kept_as_well():
    message = failure(None, Poisoned(600, 64))
    path = re.search(r"the batch is in (\S+)$", message)[1]
    assert "labels" in load_file(path)


def test_weights_are_not_touched_by_the_bad_batch(tmp_path):
    model = make_model(norm=False)
    failure(tmp_path, Poisoned(600, 64), model)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_bad_gradient_under_a_good_loss_is_caught(tmp_path):
    class Root(Tiny):
        def training_loss(self, batch):
            return super().training_loss(batch) + (0 * self(batch.features).sum()).sqrt()

    message = failure(tmp_path, Rows(600, 64), Root(norm=False))
    assert re.search(
        r"the loss is 0\.\d+ but the gradient is nan at epoch 1, step 1 \(inputs and weights", message
    )


def test_bad_weights_are_named(tmp_path):
    model = make_model(norm=False)
    with torch.no_grad():
        model.net[0].bias[0] = float("nan")
    assert "weight net.0.bias is not finite" in failure(tmp_path, Rows(600, 64), model)


def test_a_bad_loss_leaves_the_checkpoint_before_it(tmp_path):
    failure(tmp_path, Poisoned(600, 64), checkpoint_every=2)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["epoch00000-step000000002.safetensors"]
