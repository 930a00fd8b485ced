"""`ImageClassifier` from outside: it learns, keeps scikit-learn's conventions, survives a folder."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from picture_tools import classifier, squares
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from graphrec import CTRClassifier, vision
from graphrec.errors import ConfigError, DataError, NonFiniteLossError, RunError
from graphrec.pipelines.images import Augment, open_images
from graphrec.vision import ImageClassifier
from graphrec.vision.classification.scores import confusion_matrix, evaluation, image_metrics, per_class


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> ImageClassifier:
    """Fitted into a run folder, ``fitted.folder``."""
    X, y = squares()
    model = classifier(ema=0.9, mixup=0.2, cutmix=1.0, label_smoothing=0.1)
    model.folder = tmp_path_factory.mktemp("work") / "run"
    return model.fit(X, y, test=0.2, run_dir=model.folder)


def test_it_learns_and_from_shuffled_labels_it_does_not(fitted: ImageClassifier) -> None:
    X, y = squares(seed=1)
    assert fitted.score(X, y) > 0.95
    assert fitted.metrics_["test"]["accuracy"] > 0.95
    lied_to = classifier().fit(X, np.random.default_rng(3).permutation(y))
    assert lied_to.score(*squares(seed=1)) < 0.8


def test_conventions(fitted: ImageClassifier) -> None:
    X, y = squares(12, seed=2)
    p = fitted.predict_proba(X)
    assert p.shape == (12, 2)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    assert fitted.predict(X).tolist() == fitted.classes_[p.argmax(1)].tolist()
    assert fitted.classes_.tolist() == ["plain", "square"]
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "module_")
    assert fitted.set_params().score(X, y) == fitted.score(X, y)
    weights = np.arange(12)
    expected = np.average(fitted.predict(X) == y, weights=weights)
    assert fitted.score(X, y, sample_weight=weights) == pytest.approx(expected)


def test_every_form_of_an_image_gives_the_same(fitted: ImageClassifier, tmp_path: Path) -> None:
    X, _ = squares(6, seed=3)
    pictures = [Image.fromarray(one) for one in X]
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    pl.DataFrame({"image": [path.read_bytes() for path in paths]}).write_parquet(tmp_path / "m.parquet")
    expected = fitted.predict_proba(X)
    torch_like = torch.from_numpy(X).permute(0, 3, 1, 2)
    for form in (pictures, paths, [str(p) for p in paths], torch_like, tmp_path / "m.parquet"):
        np.testing.assert_allclose(fitted.predict_proba(form), expected, atol=1e-5)
    for single in (pictures[0], paths[0], str(paths[0]), X[0], X[:1]):
        np.testing.assert_allclose(fitted.predict_proba(single), expected[:1], atol=1e-5)


def test_labels_keep_their_type() -> None:
    X, y = squares(32)
    numbers = np.where(y == "square", 30, 4)
    model = classifier(epochs=1, validation=0.0).fit(X, numbers)
    assert model.classes_.tolist() == [4, 30]
    assert set(model.predict(X).tolist()) <= {4, 30}
    assert model.metrics_["train"]["accuracy"] == model.score(X, numbers)


@pytest.mark.parametrize("kind", [pl.Int8, pl.Float64, pl.Boolean, pl.String])
def test_labels_of_a_table_keep_their_type_too(kind: type[pl.DataType], tmp_path: Path) -> None:
    X, y = squares(16)
    rows = pl.DataFrame({"label": (y == "square").astype(int)}).select(pl.col("label").cast(kind))
    for i, pixels in enumerate(X):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    rows = rows.with_columns(path=pl.Series([str(tmp_path / f"{i}.png") for i in range(len(X))]))
    model = classifier(epochs=1).fit(rows, validation=0.0, run_dir=tmp_path / "run")
    assert set(model.classes_.tolist()) == set(rows["label"].to_list())
    model = ImageClassifier.load(tmp_path / "run")
    assert model.classes_.dtype.kind == {pl.Boolean: "b", pl.String: "U"}.get(kind, "i")
    right = float(np.mean(model.predict(rows) == rows["label"].to_numpy()))
    assert model.score(rows) == right > 0


def test_folders_and_manifests_fit(tmp_path: Path) -> None:
    X, y = squares(40)
    for i, (pixels, label) in enumerate(zip(X, y, strict=True)):
        part = "train" if i < 28 else "test"
        (tmp_path / "photos" / part / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / part / label / f"{i}.png")
    by_folder = classifier().fit(tmp_path / "photos")
    assert set(by_folder.metrics_) == {"valid", "test"}
    rows = [
        {"picture": str(p), "kind": p.parent.name, "who": p.stem} for p in sorted(tmp_path.rglob("*.png"))
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "list.csv")
    by_list = classifier().fit(tmp_path / "list.csv", image="picture", label="kind", group="who", test=0.2)
    assert by_list.classes_.tolist() == by_folder.classes_.tolist() == ["plain", "square"]
    own = classifier(epochs=1).fit(X, y, validation=open_images(*squares(10, seed=7)))
    assert own.history_[0]["valid_accuracy"] is not None


def test_a_run_folder_explains_itself_and_loads(fitted: ImageClassifier) -> None:
    X, _ = squares(10, seed=4)
    folder: Path = fitted.folder
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml", "history.csv", "metrics.json", "model.safetensors", "preprocess.yaml", "report.html",
        "run.json",
    }  # fmt: skip
    loaded = ImageClassifier.load(folder)
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert loaded.metrics_ == fitted.metrics_
    assert loaded.get_params()["ema"] == 0.9
    page = (folder / "report.html").read_text()
    assert all(text in page for text in ("convnext_test", "Who is taken for whom", "Test", "square"))
    info = json.loads((folder / "run.json").read_text())
    assert info["facts"] == {"variant": "convnext_test", "classes": 2, "seed": 0}


def test_a_saved_estimator_with_objects_for_arguments_loads(tmp_path: Path) -> None:
    X, y = squares(16)
    model = classifier(epochs=1, augment=Augment(crop="none"), random_state=np.random.RandomState(3))
    model.fit(X, y).save(tmp_path / "saved")
    loaded = ImageClassifier.load(tmp_path / "saved")
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert loaded.augment == Augment(crop="none").to_dict()
    asked = model.get_params()
    model.set_params(model="swin_test", image_size=64, model_options=None).save(tmp_path / "set since")
    loaded = ImageClassifier.load(tmp_path / "set since")
    assert loaded.model == asked["model"]
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


def test_weights_of_another_model_are_refused(fitted: ImageClassifier, tmp_path: Path) -> None:
    X, y = squares(16)
    other = classifier(model="swin_test", epochs=1).fit(X, y).save(tmp_path / "swin")
    wide = classifier(model_options={"dims": (8, 24)}, epochs=1).fit(X, y).save(tmp_path / "wide")
    for folder in (other, wide):
        broken = tmp_path / f"{folder.name}-broken"
        fitted.save(broken)
        (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        with pytest.raises(RunError, match=r"model\.safetensors: does not hold this model's weights"):
            ImageClassifier.load(broken)


def test_an_official_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "swin.safetensors"
    vision.save_weights(vision.create_model("swin_test"), file, official=True)
    with pytest.raises(RunError, match=r"swin\.safetensors"):
        classifier(pretrained=str(file)).fit(*squares(16))
    assert classifier(model="swin_test", pretrained=str(file), epochs=1).fit(*squares(16)).metrics_


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_fine_tuning_starts_from_an_official_file_with_a_head_of_its_own(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    teacher = vision.create_model("swin_test", num_classes=7)
    file = tmp_path / f"weights.{suffix}"
    official = vision.official_state(teacher)
    if suffix == "pth":
        torch.save({"model": official, "epoch": 3}, file)  # as official training scripts leave it
    else:
        vision.save_weights(teacher, file, official=True)
    assert any(name.startswith("layers.0.") for name in official), "the names are not this package's"
    X, y = squares(64)
    options = {"model": "swin_test", "pretrained": str(file), "learning_rate": 0.05}
    tuned = classifier(**options, freeze="all-but-head", epochs=6).fit(X, y)
    own = tuned.module_.state_dict()
    for name, value in teacher.state_dict().items():
        assert name.startswith("head.") or torch.equal(own[name], value), name
    assert own["head.fc.weight"].shape[0] == 2
    assert tuned.score(X, y) > 0.7, "the head learns on features that stay as they are"
    loaded = ImageClassifier.load(tuned.save(tmp_path / "saved"))
    file.unlink()  # a saved model has all its weights
    assert np.array_equal(loaded.predict_proba(X), tuned.predict_proba(X))


BAD_ARGUMENTS = [
    ({"model": "resnet999"}, "model: there is no 'resnet999'"),
    ({"model": "swin_tny"}, "did you mean swin_tiny"),
    ({"model": "swin_"}, "is the beginning of swin_base_patch4_window12_384"),
    ({"image_size": 2}, "img_size: 2x2, but the model takes at least"),
    ({"model": "maxvit_test", "image_size": 48}, "img_size: 48x48, but both sides must be multiples of 32"),
    ({"model_options": {"width": 3}}, "width: convnext_test has no such option"),
    ({"model_options": {"img_size": 32}}, "image_size: is given twice"),
    ({"freeze": 7}, "freeze: 7 is none of a number of stages from 1 to 2"),
    ({"freeze": "most"}, "freeze: 'most' is none of"),
    ({"layer_decay": 0}, "layer_decay: 0 is not allowed; it is above 0"),
    ({"label_smoothing": 1.0}, "label_smoothing: 1.0 is not allowed"),
    ({"ema": 1}, "ema: should be less than 1, got 1"),
    ({"validation": 1.5}, "validation: 1.5 is not allowed"),
    ({"augment": "wild"}, "augment='wild'"),
    ({"mixup": -1.0}, "mixup=-1.0"),
    ({"class_weight": {"plain": 1.0}}, "class_weight: .* for each of plain, square"),
    ({"class_weight": "heavy"}, "class_weight: 'heavy' is neither"),
    ({"train_options": {"epochs": 3}}, "epochs: is an argument of its own"),
    ({"train_options": {"warm": 3}}, "warm: unknown training option"),
    ({"monitor": "beauty"}, "monitor"),
    ({"precision": "64"}, "precision: "),
    ({"cache": 3}, "cache: 3 is neither None, True, False nor a folder"),
    ({"random_state": -1}, "random_state=-1: must be a seed"),
    ({"random_state": "abc"}, "random_state='abc': must be a seed"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_wrong_arguments_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        classifier(**changes).fit(*squares(16))
    assert "\n" not in str(error.value)


def bad_data() -> list[tuple[object, object, str]]:
    X, y = squares(8)
    return [
        (X.astype(np.float32), y, "float32"),
        (X[..., :2], y, "2"),
        (X, y[:5], "5"),
        (X, None, "label"),
        (X, ["plain"] * 8, "all training images are of class plain"),
        ("no/such/folder", None, "no/such/folder"),
        ([1, 2, 3], [0, 1, 0], "int"),
        (X, np.eye(2)[[0, 1] * 4], "y: an array of shape (8, 2) must be (images,)"),
        (X, [*y[:-1], None], "y: image 7 has no label"),
        (X, [0.0, float("nan"), *[1.0] * 6], "y: image 1 has no label"),
        (open_images(X, [str(one) for one in y]), y, "brings its own labels"),
    ]


@pytest.mark.parametrize(("X", "y", "message"), bad_data(), ids=lambda value: str(value)[:25])
def test_wrong_data_are_named(X: object, y: object, message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=re.escape(message)) as error:
        classifier(epochs=1).fit(X, y)
    assert "\n" not in str(error.value)


def test_images_that_a_fitted_model_cannot_measure_are_named(fitted: ImageClassifier) -> None:
    X, y = squares(6)
    with pytest.raises(DataError, match="triangle"):
        fitted.evaluate(X, [*y[:5], "triangle"])
    with pytest.raises(DataError, match="label"):
        fitted.score(X)


def test_an_estimator_that_is_not_fitted_says_so() -> None:
    for ask in (classifier().predict, classifier().predict_proba, classifier().evaluate):
        with pytest.raises(NotFittedError, match="not fitted"):
            ask(squares(2)[0])


def test_a_fit_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        classifier(freeze=9).fit(*squares(16), run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    classifier(epochs=1).fit(*squares(16), run_dir=tmp_path / "run")
    with pytest.raises(RunError, match="the run folder exists already"):
        classifier(epochs=1).fit(*squares(16), run_dir=tmp_path / "run")


def test_freezing_random_weights_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="freeze: 1 keeps random weights"):
        classifier(epochs=1, freeze=1).fit(*squares(16))


def test_names_are_matched_loosely() -> None:
    assert vision.find_variant("swin_tiny") == "swin_tiny_patch4_window7_224"
    assert vision.find_variant("volo_d1") == "volo_d1_224", "the smallest images are meant"
    assert vision.find_variant("maxvit_tiny") == "maxvit_tiny_tf_224"
    assert vision.find_variant("convnext_tiny") == "convnext_tiny"
    assert vision.find_variant("ecanet_mobile") == "ecanet_mobilenetv2_100"
    assert vision.find_variant("graphrec_swin_test") == "swin_test"
    for name in vision.list_models():
        assert vision.find_variant(name) == name


def test_metrics_of_images() -> None:
    y, p = np.array([0, 1, 6, 2]), np.eye(7)[[0, 1, 2, 2]] * 0.4 + 0.6 / 7
    found = image_metrics(y, p)
    assert found["accuracy"] == 0.75
    assert found["top5_accuracy"] in (0.75, 1.0)
    assert list(found)[:2] == ["accuracy", "top5_accuracy"]
    assert "top5_accuracy" not in image_metrics(y[:2], p[:2, :3])
    table = confusion_matrix(y, p.argmax(1), 7)
    assert table[6].tolist() == [0, 0, 1, 0, 0, 0, 0]
    rows = per_class(table)
    assert rows[2] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "images": 1}
    assert rows[6] == {"precision": None, "recall": 0.0, "f1": 0.0, "images": 1}
    assert rows[3] == {"precision": None, "recall": None, "f1": None, "images": 0}
    whole = evaluation(y, p, np.array(list("abcdefg")))
    assert whole["per_class"]["c"] == rows[2]
    assert np.array(whole["confusion"]).sum() == 4
    json.dumps(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_options": ["dims"]}, "model_options=.*: must be a dict"),
        ({"train_options": ["epochs"]}, "train_options=.*: must be a dict"),
        (
            {"model_options": {"num_classes": 4}},
            "num_classes: is no option of a classifier's model; the",
        ),
        ({"model_options": {"features_only": True}}, "features_only: is no option of a classifier's model"),
        ({"model_options": {"global_pool": ""}}, "global_pool: '' leaves a map of logits"),
        ({"augment": 3}, "augment=3: must be a recipe's name"),
        ({"cutmix": "a"}, "cutmix='a': must be a number"),
        ({"workers": 1.5}, "workers=1.5: must be a whole number from 0 up"),
    ],
)
def test_arguments_of_a_wrong_type(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        classifier(**arguments).fit(*squares(12))


def test_a_folder_of_another_estimator_and_a_picture_into_a_new_folder(
    fitted: ImageClassifier, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="holds a ImageClassifier, not a CTRClassifier"):
        CTRClassifier.load(fitted.folder)
    X, _ = squares(2)
    fitted.draw_attention(X, path=tmp_path / "new" / "attention.png")
    assert (tmp_path / "new" / "attention.png").stat().st_size > 1000


def test_a_fit_that_fails_leaves_no_old_weights_with_new_classes() -> None:
    X, y = squares(24)
    model = classifier(epochs=1).fit(X, y)
    with pytest.raises(NonFiniteLossError):
        model.set_params(learning_rate=1e30).fit(X, np.arange(len(X)) % 3)
    with pytest.raises(NotFittedError):
        model.predict(X)
