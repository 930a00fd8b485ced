"""Images on the command line: fit, evaluate, predict, a recipe, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from graphrec import ImageClassifier
from graphrec.cli import app
from graphrec.pipelines.images import shape_images

FIT = ["--task", "image", "--model", "convnext_test", "--image-size", "32", "--device", "cpu", "--quiet"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def good(*arguments: str | Path) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes in folders of their classes and in a table, and a run on the table."""
    folder = tmp_path_factory.mktemp("work")
    images = shape_images(64)
    rows = []
    for i in range(len(images)):
        kind = images.classes[int(images.labels[i])]
        path = folder / "shapes" / kind / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.pil(i).save(path)
        rows.append(
            {"image": path.read_bytes(), "label": kind, "who": i // 4, "part": "test" if i < 16 else "train"}
        )
    pl.DataFrame(rows).write_parquet(folder / "images.parquet")
    options = ["--split", "part", "--epochs", "2", "--set", "batch_size=16", "--set", "dims=[8,24]"]
    result = good("fit", folder / "images.parquet", *FIT, *options, "--out", folder / "run")
    assert "accuracy" in result.stdout
    assert "report.html" in result.stdout.replace("\n", "")
    return folder


def test_what_was_asked_for_was_done(folder: Path) -> None:
    model = ImageClassifier.load(folder / "run")
    assert model.module_.feature_info[-1]["num_chs"] == 24
    assert set(model.metrics_) == {"valid", "test"}
    assert (model.epochs, model.batch_size, model.image_size) == (2, 16, 32)
    config = (folder / "run" / "config.yaml").read_text()
    assert "split: part" in config
    assert "images.parquet" in config
    assert (folder / "run" / "report.html").read_text().count("<svg") >= 3


def test_evaluate_and_predict(folder: Path) -> None:
    found = json.loads(good("evaluate", folder / "run", folder / "shapes", "--json").stdout)
    assert found == json.loads(json.dumps(ImageClassifier.load(folder / "run").evaluate(folder / "shapes")))
    assert "taken for" in good("evaluate", folder / "run", folder / "shapes").stdout
    renamed = pl.read_parquet(folder / "images.parquet").rename({"image": "photo", "label": "kind"})
    renamed.with_columns(other="photo").write_parquet(folder / "renamed.parquet")
    columns = ["--label", "kind", "--image-column", "photo", "--json"]
    again = json.loads(good("evaluate", folder / "run", folder / "renamed.parquet", *columns).stdout)
    assert again["accuracy"] == found["accuracy"]
    weighed = pl.read_parquet(folder / "images.parquet").with_columns(
        w=pl.when(pl.col("label") == "circle").then(3.0).otherwise(0.5)
    )
    weighed.write_parquet(folder / "weighed.parquet")
    told = good("evaluate", folder / "run", folder / "weighed.parquet", "--weight", "w", "--json").stdout
    model = ImageClassifier.load(folder / "run")
    assert json.loads(told) == json.loads(json.dumps(model.evaluate(folder / "weighed.parquet", weight="w")))
    assert json.loads(told)["logloss"] != found["logloss"]
    wrong = run("evaluate", folder / "run", folder / "weighed.parquet", "--weight", "x")
    assert wrong.exit_code == 2
    assert "column 'x' (argument weight) is missing" in wrong.stderr
    good(
        "predict",
        folder / "run",
        folder / "images.parquet",
        "--out",
        folder / "s.parquet",
        "--keep",
        "who,label",
    )
    scores = pl.read_parquet(folder / "s.parquet")
    kinds = ["circle", "cross", "square", "triangle"]
    assert scores.columns == [
        "who",
        "label",
        "image",
        "class",
        "probability",
        *(f"probability_{k}" for k in kinds),
    ]
    expected = ImageClassifier.load(folder / "run").predict_proba(folder / "images.parquet")
    np.testing.assert_allclose(scores.select(r"^probability_.*$").to_numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(scores["probability"], expected.max(1), atol=1e-6)
    good("predict", folder / "run", folder / "shapes" / "circle", "--out", folder / "s.csv")
    assert pl.read_csv(folder / "s.csv")["image"].to_list()[0].endswith("circle/0.png")


def test_export_gives_the_same_probabilities(folder: Path) -> None:
    result = good("export", folder / "run", "--format", "torch", "--out", folder / "served")
    assert "largest difference" in result.stdout
    assert {p.name for p in (folder / "served").iterdir()} == {"model.pt2", "preprocess.yaml"}
    images = shape_images(4, seed=1)
    pixels = torch.stack([torch.from_numpy(np.array(images.pil(i))).permute(2, 0, 1) for i in range(4)])
    served = torch.export.load(folder / "served" / "model.pt2").module()(pixels)
    expected = ImageClassifier.load(folder / "run").predict_proba(pixels)
    np.testing.assert_allclose(served.detach().numpy(), expected, atol=1e-5)
    wrong = run("export", folder / "run", "--format", "tflite", "--out", folder / "other")
    assert wrong.exit_code == 2
    assert "--format: 'tflite' is not one of onnx, torch" in wrong.stderr


def test_the_configuration_of_a_run_makes_the_same_run(folder: Path) -> None:
    config = ["--config", folder / "run" / "config.yaml", "--task", "image", "--quiet"]
    good("fit", folder / "images.parquet", *config, "--out", folder / "again")
    one, two = (
        ImageClassifier.load(folder / name).predict_proba(folder / "shapes") for name in ("run", "again")
    )
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "video"], "--task: 'video' is neither ctr nor image"),
        (["--image-size", "32"], "--image-size: is for images, `graphrec fit --task image`"),
        ([*FIT, "--role", "a=b"], "--role: is for tables, not for images"),
        ([*FIT, "--label", "a,b"], "--label: an image has one"),
        ([*FIT, "--model", "swin_tny"], "did you mean swin_tiny"),
        ([*FIT, "--freeze", "9"], "freeze: 9 is none of a number of stages"),
        ([*FIT, "--set", "dimms=[8]"], "dimms: no such setting; did you mean dims"),
        ([*FIT, "--image-size", "3"], "img_size: 3x3, but the model takes at least"),
        ([*FIT, "--label", "colour"], "colour"),
        ([*FIT, "--valid", "2"], "2"),
    ],
)
def test_mistakes_are_told_in_one_line(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run("fit", folder / "images.parquet", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_explain_draws_and_columns_are_checked(folder: Path, tmp_path: Path) -> None:
    good("explain", folder / "run", folder / "images.parquet", "--out", tmp_path / "seen")
    assert {p.name for p in (tmp_path / "seen").iterdir()} == {"attention.png", "attention.svg"}
    more = run("explain", folder / "run", folder / "images.parquet", "--rows", "5", "--out", tmp_path / "no")
    assert more.exit_code == 2
    assert "--rows: is for runs on tables" in more.stderr
    assert not (tmp_path / "no").exists()
    keep = run(
        "predict", folder / "run", folder / "images.parquet", "--out", tmp_path / "s.csv", "--keep", "size"
    )
    assert keep.exit_code == 2
    assert "column 'size' of --keep is missing; it has image, label, who, part" in keep.stderr


def test_columns_that_are_kept_beside_the_classes(folder: Path, tmp_path: Path) -> None:
    predict = ("predict", folder / "run")
    out = tmp_path / "s.csv"
    good(*predict, folder / "images.parquet", "--out", out, "--keep", "all")
    assert pl.read_csv(out).columns[:6] == ["label", "who", "part", "image", "class", "probability"]
    good(*predict, folder / "images.parquet", "--out", tmp_path / "s.parquet", "--keep", "image,who,who")
    kept, given = pl.read_parquet(tmp_path / "s.parquet"), pl.read_parquet(folder / "images.parquet")
    assert kept.columns[:3] == ["image", "who", "class"]
    assert kept["image"].equals(given["image"])
    given.rename({"who": "class"}).write_parquet(tmp_path / "taken.parquet")
    for data, keep, message in (
        (folder / "images.parquet", "image", "column 'image' is Binary, which CSV cannot hold"),
        (tmp_path / "taken.parquet", "class", "has a column 'class', which is the name of the scores"),
        (folder / "shapes", "who", "--keep: is for manifests"),
    ):
        wrong = run(*predict, data, "--out", tmp_path / "t.csv", "--keep", keep)
        assert wrong.exit_code == 2, wrong.output
        assert message in wrong.stderr
    assert not (tmp_path / "t.csv").exists()


def test_broken_images_are_left_out_on_request_alone(folder: Path, tmp_path: Path) -> None:
    rows = pl.read_parquet(folder / "images.parquet")
    rows[3, "image"] = b"no picture"
    rows.write_parquet(tmp_path / "broken.parquet")
    named = "row 4 (is text, not an image)"
    for arguments in (
        ("fit", tmp_path / "broken.parquet", *FIT, "--epochs", "1", "--out", tmp_path / "run"),
        ("evaluate", folder / "run", tmp_path / "broken.parquet", "--json"),
        (
            "predict",
            folder / "run",
            tmp_path / "broken.parquet",
            "--out",
            tmp_path / "s.csv",
            "--keep",
            "who",
        ),
        ("explain", folder / "run", tmp_path / "broken.parquet", "--out", tmp_path / "seen"),
    ):
        refused = run(*arguments)
        assert refused.exit_code == 2, refused.output
        assert named in refused.stderr
        assert "--skip-broken" in refused.stderr
        assert named in good(*arguments, "--skip-broken").stderr
    assert "on_corrupt: skip" in (tmp_path / "run" / "config.yaml").read_text()
    assert "1 images could not be read" in (tmp_path / "run" / "report.html").read_text()
    scores = pl.read_csv(tmp_path / "s.csv")
    assert scores["who"].to_list() == [i // 4 for i in range(64) if i != 3]
    of_tables = run("fit", folder / "images.parquet", "--label", "who", "--skip-broken")
    assert "--skip-broken: is for images" in of_tables.stderr


def test_a_recipe_of_images(tmp_path: Path) -> None:
    changes = ("data.count=48", "training.epochs=1", "data.side=32", "training.batch_size=16")
    options = [part for one in changes for part in ("--set", one)]
    result = good(
        "run", "images-shapes", *options, "--only", "convnext", "--quiet", "--out", tmp_path / "run"
    )
    assert "convnext" in result.stdout
    assert {p.name for p in (tmp_path / "run" / "figures").glob("*.png")} >= {
        "convnext-confusion.png", "convnext-mistakes.png"
    }  # fmt: skip
    model = next((tmp_path / "run").glob("repetitions/**/model"))
    assert ImageClassifier.load(model).classes_.tolist() == ["circle", "cross", "square", "triangle"]
