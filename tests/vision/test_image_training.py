"""How `ImageClassifier` trains: what is frozen, which rates, the average of weights, broken-off runs."""

from __future__ import annotations

import copy
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from picture_tools import classifier, squares, without_times
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import log_loss
from torch.nn import functional

from graphrec import vision
from graphrec.errors import ConfigError, DataError, RunError
from graphrec.pipelines.images import Augment, ImageBatch, ImageLoader
from graphrec.pipelines.images.stores import FileStore
from graphrec.training import TrainConfig
from graphrec.vision import ImageClassifier
from graphrec.vision.classification import settings
from graphrec.vision.classification.freezing import freeze
from graphrec.vision.classification.network import ImageNetwork
from graphrec.vision.classification.optimizers import make_optimizer, parameter_groups

TINY = vision.list_models(tests=True)
FIRST = sorted({vision.family(name).card.name: name for name in reversed(TINY)}.values())
"""One tiny variant of each system."""


def changed(model: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def batch(model: Any, count: int = 4, mixed: bool = False) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, *model.img_size, generator=generator)
    labels = torch.arange(count) % model.num_classes
    targets = torch.rand(count, model.num_classes, generator=generator).softmax(1) if mixed else None
    return ImageBatch(images, labels, targets)


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("what", ["stem", 1, "all-but-head"])
def test_what_is_frozen_has_no_gradient_and_the_rest_has(name: str, what: int | str) -> None:
    model = vision.create_model(name, num_classes=3)
    modules = freeze(model, what)
    kept = {key for key, one in model.named_parameters() if not one.requires_grad}
    free = {key for key, one in model.named_parameters() if one.requires_grad}
    heads = tuple(f"{head}." for head in model.classifier.split(","))
    assert free
    assert kept or what == "stem"
    assert {key for key in free if key.startswith(heads)} == {
        key for key, _ in model.named_parameters() if key.startswith(heads)
    }
    if what == 1:
        assert {key for key, _ in model.named_parameters() if key.startswith("stages.0.")} <= kept
        assert not any(key.startswith(("stages.1.", "norm.")) for key in kept)
    if what == "all-but-head":
        assert all(key.startswith(heads) for key in free)
    assert all(not one.requires_grad for module in modules for one in module.parameters())


@pytest.mark.filterwarnings("ignore:freeze")
def test_frozen_weights_and_statistics_stay_and_the_rest_learns() -> None:
    X, y = squares(32)
    options = {"model": "ecanet_basic_test", "epochs": 1, "drop_path": 0.5}
    start = settings.build(classifier(**options), "ecanet_basic_test", 2, pretrained=False)
    torch.manual_seed(0)
    before: dict[str, torch.Tensor] = {}

    def build(*args: Any, **kwargs: Any) -> Any:
        model = copy.deepcopy(start)
        before.update(copy.deepcopy(model.state_dict()))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "build", build)
        partly = classifier(**options, freeze=1, ema=0.5).fit(X, y)
        moved = changed(partly.module_, before)
        assert moved
        assert all(name.startswith(("stages.1.", "head.")) for name in moved)
        assert any("running_mean" in name for name in moved)
        head = classifier(**options, freeze="all-but-head").fit(X, y)
        assert changed(head.module_, before) == {"head.fc.weight", "head.fc.bias"}
    assert all(one.requires_grad for one in head.module_.parameters()), "a fitted model can be trained on"


@pytest.mark.parametrize("name", FIRST)
def test_rates_fall_from_the_head_to_the_stem(name: str) -> None:
    model = vision.create_model(name, num_classes=3)
    groups = parameter_groups(model, 1.0, 0.1, layer_decay=0.5)
    rates = {id(one): group["lr"] for group in groups for one in group["params"]}
    by_name = {key: rates[id(one)] for key, one in model.named_parameters()}
    assert len(by_name) == sum(len(group["params"]) for group in groups), "each parameter is in one group"
    heads = tuple(f"{head}." for head in model.classifier.split(","))
    assert {rate for key, rate in by_name.items() if key.startswith(heads)} == {1.0}
    assert groups[0]["lr"] == 1.0, "the history shows the rate of the head"
    assert all(float(np.log2(rate)).is_integer() for rate in rates.values())
    blocks = [
        max(r for k, r in by_name.items() if k.startswith(f"stages.{i}.")) for i in range(len(model.stages))
    ]
    assert blocks == sorted(blocks)
    assert min(by_name.values()) < blocks[-1] or len(set(blocks)) == 1
    plain = model.no_weight_decay()
    for group in groups:
        for one in group["params"]:
            key = next(key for key, other in model.named_parameters() if other is one)
            assert group["weight_decay"] == (0.0 if one.ndim <= 1 or key in plain else 0.1), key


def test_layerwise_rates_as_computed_by_hand() -> None:
    model = vision.create_model("convnext_test", num_classes=3)
    groups = parameter_groups(model, 0.01, 0.1, layer_decay=0.8)
    rates = {id(one): group["lr"] for group in groups for one in group["params"]}
    rate = {key: rates[id(one)] for key, one in model.named_parameters()}
    last = "stages.1.blocks.1.mlp.fc1.weight"
    assert rate["head.fc.weight"] == pytest.approx(0.01)
    assert rate[last] < rate["head.fc.weight"]
    assert rate["stages.1.blocks.0.mlp.fc1.weight"] == pytest.approx(0.8 * rate[last])
    assert rate["stages.0.blocks.0.mlp.fc1.weight"] == pytest.approx(0.8**2 * rate[last])
    assert rate["stem.0.weight"] == pytest.approx(0.8**3 * rate[last])
    frozen = vision.create_model("convnext_test", num_classes=3)
    freeze(frozen, "all-but-head")
    config = TrainConfig(optimizer="sgd", learning_rate=0.5, weight_decay=0.1)
    optimizer = make_optimizer(frozen, config)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


def test_the_average_of_weights_is_what_is_kept() -> None:
    X, y = squares(32)
    options = {"model": "ecanet_basic_test", "validation": 0.0, "epochs": 2, "batch_size": 4}
    plain = classifier(**options).fit(X, y).module_.state_dict()
    averaged = classifier(**options, ema=0.9).fit(X, y).module_.state_dict()
    again = classifier(**options, ema=1e-6).fit(X, y).module_.state_dict()  # follows the weights at once
    assert not torch.allclose(averaged["head.fc.weight"], plain["head.fc.weight"], rtol=1e-2)
    torch.testing.assert_close(again["head.fc.weight"], plain["head.fc.weight"], rtol=1e-4, atol=1e-5)


def test_the_loss_smooths_weighs_and_takes_mixed_targets() -> None:
    model = vision.create_model("convnext_test", num_classes=3).eval()
    weight = torch.tensor([1.0, 2.0, 0.5])
    network = ImageNetwork(model, label_smoothing=0.1, class_weight=weight).eval()
    plain, mixed = batch(model), batch(model, mixed=True)
    logp = model(plain.images).log_softmax(1)
    smooth = 0.9 * functional.one_hot(plain.labels, 3) + 0.1 / 3
    by_hand = -(smooth * weight * logp).sum() / weight[plain.labels].sum()
    torch.testing.assert_close(network.training_loss(plain), by_hand)
    soft = 0.9 * mixed.targets + 0.1 / 3
    torch.testing.assert_close(network.training_loss(mixed), -(soft * weight * logp).sum(1).mean())


@pytest.mark.parametrize("mixed", [False, True])
def test_weights_count_as_copies_do_in_the_loss(mixed: bool) -> None:
    model = vision.create_model("convnext_test", num_classes=3).eval()
    network = ImageNetwork(model, label_smoothing=0.1, class_weight=torch.tensor([1.0, 2.0, 0.5])).eval()
    one, times = batch(model, mixed=mixed), torch.tensor([1, 3, 2, 1])
    copies = ImageBatch(*(None if t is None else t.repeat_interleave(times, 0) for t in one))
    weighted = network.training_loss(one._replace(weights=times.float()))
    torch.testing.assert_close(weighted, network.training_loss(copies))
    assert not torch.allclose(weighted, network.training_loss(one))


def test_weights_of_mixed_images_are_mixed_as_they_are() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    weights = torch.tensor([1.0, 5.0, 2.0, 3.0])
    for augment in (Augment(mixup=1.0), Augment(cutmix=1.0)):
        torch.manual_seed(3)
        plain_images, plain, none = augment.mixed(images, labels, 3)
        torch.manual_seed(3)
        mixed_images, targets, mixed = augment.mixed(images, labels, 3, weights)
        assert none is None
        assert torch.equal(mixed_images, plain_images)
        share = plain[1, 1]  # of the second image; the rest is the first's
        torch.testing.assert_close(mixed[1], share * 5 + (1 - share) * 1)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        torch.testing.assert_close(targets[1, 1], share * 5 / mixed[1])


def test_images_of_weight_zero_are_as_if_they_were_not_there() -> None:
    X, y = squares(48)
    kept = np.arange(48) % 5 > 0
    other = np.where(kept, y, "square")  # what nobody looks at is labelled wrongly
    options = {"model": "ecanet_basic_test", "validation": 0.0, "epochs": 2}
    without = classifier(**options).fit(X[kept], y[kept])
    weighted = classifier(**options).fit(X, other, kept.astype(float))
    assert not changed(weighted.module_, without.module_.state_dict())
    assert weighted.metrics_ == without.metrics_


def test_weights_of_arrays_and_of_a_column_are_the_same_and_change_what_is_learned(tmp_path: Path) -> None:
    X, y = squares(48)
    weights = np.linspace(0.1, 4, 48)
    frame = pl.DataFrame({"image": [f"{i:02}.png" for i in range(48)], "label": y, "times": weights})
    for name, pixels in zip(frame["image"], X, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    options = {"epochs": 1, "augment": "none", "validation": 0.25}
    arrays = classifier(**options).fit(X, y, weights)
    column = classifier(**options).fit(frame, weight="times", root=tmp_path, run_dir=tmp_path / "run")
    learned = dict(arrays.module_.named_parameters())
    plain = dict(classifier(**options).fit(X, y).module_.named_parameters())
    for name, value in column.module_.named_parameters():
        torch.testing.assert_close(value, learned[name], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain["head.fc.bias"], learned["head.fc.bias"], rtol=1e-2)
    found, p = arrays.evaluate(X, y, weights), arrays.predict_proba(X)
    codes = (y == "square").astype(int)
    assert found["accuracy"] == pytest.approx(np.average(p.argmax(1) == codes, weights=weights))
    assert found["logloss"] == pytest.approx(log_loss(codes, p, sample_weight=weights), rel=1e-5)
    assert sum(map(sum, found["confusion"])) == 48
    by_column = column.evaluate(frame, weight="times", root=tmp_path)
    assert by_column["logloss"] == pytest.approx(found["logloss"])
    assert column.score(X, y, weights) == pytest.approx(found["accuracy"])
    assert "weight: times" in (tmp_path / "run" / "config.yaml").read_text()


def test_wrong_weights_are_named() -> None:
    X, y = squares(8)
    for weights, message in (
        (np.ones(7), r"sample_weight: shape is \(7,\), expected one weight for each of 8 images"),
        (-np.ones(8), "sample_weight: has missing, negative or infinite values"),
        (np.zeros(8), "sample_weight: all weights are zero"),
        (["heavy"] * 8, "sample_weight: holds what is no number"),
    ):
        with pytest.raises(DataError, match=message):
            classifier().fit(X, y, weights)
    frame = pl.DataFrame({"image": ["a.png", "b.png"], "label": ["a", "b"], "times": [1.0, None]})
    with pytest.raises(DataError, match=r"column 'times': has missing"):
        classifier().fit(frame, weight="times")
    with pytest.raises(ConfigError, match="weight: is for manifests"):
        classifier().fit(X, y, weight="times")


def test_class_weights() -> None:
    classes, counts = np.array(["a", "b", "c"]), np.array([6, 3, 0])
    balanced = settings.class_weights(classifier(class_weight="balanced"), counts, classes)
    assert balanced.tolist() == [0.75, 1.5, 1.0]
    named = settings.class_weights(classifier(class_weight={"c": 2, "a": 1, "b": 3}), counts, classes)
    assert named.tolist() == [1, 3, 2]
    assert settings.class_weights(classifier(), counts, classes) is None


def test_the_rate_rises_and_falls() -> None:
    config = settings.train_config(classifier(epochs=20, warmup_epochs=2), 0, steps=10)
    assert (config.warmup_steps, config.scheduler, config.optimizer) == (20, "cosine", "adamw")
    assert settings.train_config(classifier(epochs=3, warmup_epochs=2), 0, steps=10).warmup_steps == 6
    own = classifier(train_options={"scheduler": "none", "clip_norm": None, "warmup_steps": 3})
    config = settings.train_config(own, 0, steps=10)
    assert (config.scheduler, config.clip_norm, config.warmup_steps) == ("none", None, 3)


def test_augmentation_by_size_and_name() -> None:
    assert settings.augmentation(classifier(), 32).crop == "pad"
    assert settings.augmentation(classifier(), 224).policy is not None
    mixed = settings.augmentation(classifier(augment="none", cutmix=0.5), 32)
    assert (mixed.crop, mixed.cutmix, mixed.mixup) == ("none", 0.5, 0.0)
    assert settings.augmentation(classifier(augment={"crop": "pad", "pad": 2}), 224).pad == 2


@pytest.mark.parametrize("name", TINY)
def test_arguments_are_checked_without_making_the_weights(name: str) -> None:
    settings.check(classifier(model=name, image_size=None))


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    X, y = squares(32)
    one, two, other = (classifier(epochs=1, random_state=s).fit(X, y).module_ for s in (0, 0, 1))
    assert not changed(one, two.state_dict())
    assert changed(one, other.state_dict())


@pytest.mark.filterwarnings("ignore:precision")
def test_early_stopping_and_bfloat16() -> None:
    X, y = squares(48)
    stopped = classifier(epochs=12, patience=2, learning_rate=1e-2, precision="bf16-mixed").fit(X, y)
    assert len(stopped.history_) < 12
    assert stopped.module_.head.fc.weight.dtype == torch.float32


def test_a_disk_too_full_for_the_model_is_told_with_the_folder_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    X, y = squares(32)
    with monkeypatch.context() as patched:
        patched.setattr(ImageClassifier, "_write", full)
        with pytest.raises(RunError, match=r"run\.partial: cannot be written \(No space left on device\)"):
            classifier(epochs=1).fit(X, y, run_dir=tmp_path / "run")
    classifier(epochs=1).fit(X, y, run_dir=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "report.html").exists()


def test_small_images_in_files_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those of the validation part, which is measured once more at the end; no bit changes."""
    X, y = squares(48)
    for number, (pixels, name) in enumerate(zip(X, y, strict=True)):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    seen, image = [0], FileStore.image

    def count(self: FileStore, row: int, channels: int) -> Any:
        seen[0] += 1
        return image(self, row, channels)

    monkeypatch.setattr(FileStore, "image", count)
    states, read = [], []
    for cache in (None, False, str(tmp_path / "cache"), str(tmp_path / "cache")):
        seen[0] = 0
        model = classifier(augment="none", cache=cache, epochs=3).fit(tmp_path / "set")
        states.append(model.module_.state_dict())
        read.append(seen[0])
    valid = 48 // 10
    assert [read[place] for place in (0, 2, 3)] == [48 + valid, 48 + valid, valid]
    assert read[1] >= 3 * 48 + valid
    for other in states[1:]:
        torch.testing.assert_close(other, states[0], rtol=0, atol=0)
    seen[0] = 0
    classifier(augment="imagenet", image_size=16, epochs=2).fit(tmp_path / "set")
    assert seen[0] >= 2 * 48 + valid  # random crops of larger pictures need all of them


@pytest.mark.slow
def test_a_compiled_model_learns_the_same() -> None:
    X, y = squares(40)
    plain, fast = (classifier(epochs=2, augment="none", compile=one).fit(X, y) for one in (False, True))
    np.testing.assert_allclose(fast.predict_proba(X), plain.predict_proba(X), atol=1e-3)
    assert type(fast.module_) is type(plain.module_)


class Stop(Exception):
    """As if the machine had gone off."""


def stopping(patch: pytest.MonkeyPatch, at: int) -> None:
    """Raise before so many batches of training."""
    epoch, seen = ImageLoader.epoch, [0]

    def stop(self: ImageLoader, number: int = 0, start_step: int = 0) -> Any:
        for one in epoch(self, number, start_step):
            if self.shuffle:
                seen[0] += 1
                if seen[0] > at:
                    raise Stop
            yield one

    patch.setattr(ImageLoader, "epoch", stop)


def test_a_run_that_is_broken_off_resumes_to_the_same_bits(tmp_path: Path) -> None:
    X, y = squares(48)
    options = {
        "model": "ecanet_basic_test", "ema": 0.9, "mixup": 0.4, "cutmix": 1.0, "drop_path": 0.2,
        "train_options": {"checkpoint_every": 1},
    }  # fmt: skip
    whole = classifier(**options).fit(X, y)
    for at in (1, 2, 4):
        with pytest.MonkeyPatch.context() as patch:
            stopping(patch, at)
            with pytest.raises(Stop):
                classifier(**options).fit(X, y, run_dir=tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="holds an unfinished run; continue it with --resume"):
        classifier(**options).fit(X, y, run_dir=tmp_path / "run")
    with pytest.raises(RunError, match=r"was started with ema=0\.9, not 0\.5"):
        classifier(**options | {"ema": 0.5}).fit(X, y, run_dir=tmp_path / "run", resume=True)
    resumed = classifier(**options).fit(X, y, run_dir=tmp_path / "run", resume=True)
    assert not changed(resumed.module_, whole.module_.state_dict())
    assert without_times(resumed.history_) == without_times(whole.history_)
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_killed_fit_resumes_to_the_same_bits(tmp_path: Path) -> None:
    X, y = squares(200)
    rows = []
    for i, (pixels, label) in enumerate(zip(X, y, strict=True)):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "label": label})
    pl.DataFrame(rows).write_parquet(tmp_path / "images.parquet")
    settings_ = ("ema=0.9", "mixup=0.3", "checkpoint_every=1", "batch_size=8", "drop_path=0.2")

    def command(out: str, *more: str) -> list[str]:
        options = [part for one in settings_ for part in ("--set", one)]
        fit = [sys.executable, "-m", "graphrec", "fit", str(tmp_path / "images.parquet"), "--task", "image"]
        what = [
            "--model",
            "ecanet_basic_test",
            "--image-size",
            "32",
            "--epochs",
            "4",
            "--device",
            "cpu",
            "-q",
        ]
        return [*fit, *what, *options, "--out", str(tmp_path / out), *more]

    subprocess.run(command("whole"), check=True, capture_output=True)
    partial = tmp_path / "killed.partial" / "checkpoints"
    for _ in range(2):
        before = {p: p.stat().st_mtime_ns for p in partial.glob("epoch*")}
        process = subprocess.Popen(command("killed", "--resume"), stdout=subprocess.DEVNULL)
        while process.poll() is None and not set(partial.glob("epoch*")) - set(before):
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the fit ended before it could be killed"
    subprocess.run(command("killed", "--resume"), check=True, capture_output=True)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(np.array_equal(one[key], two[key]) for key in one)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("image_script.py"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, script, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    # 45 train: the last batch of 11 is divided into 6 and 5.
    alone = classifier(epochs=2, augment="none", batch_size=17).fit(*squares(50))
    for name, value in alone.module_.state_dict().items():
        assert np.array_equal(first[name], second[name]), name
        np.testing.assert_allclose(first[name], value.numpy(), rtol=1e-3, atol=1e-4)
    loaded = ImageClassifier.load(tmp_path / "run")
    assert loaded.metrics_["valid"]["logloss"] == pytest.approx(alone.metrics_["valid"]["logloss"], rel=1e-3)
    assert without_times(loaded.history_)[-1]["step"] == 6
    assert (tmp_path / "run" / "report.html").exists()
