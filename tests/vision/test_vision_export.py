"""Backbones written as ONNX and torch.export compute what they did, for any number of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from vision_tools import randomized

from graphrec import vision
from graphrec.errors import ConfigError, RunError
from graphrec.pipelines.images import Preprocess, shape_images
from graphrec.vision import exporting

onnxruntime = pytest.importorskip("onnxruntime")
TINY = vision.list_models(tests=True)


def test_uint8_pictures_to_probabilities_by_onnx(tmp_path: Path) -> None:
    model = randomized(vision.create_model("convnext_test", num_classes=4))
    classes = ("circle", "cross", "square", "triangle")
    path = tmp_path / "model.onnx"
    facts = vision.export(model, path, normalise=True, softmax=True, classes=classes)
    assert facts["check"]["max_abs_difference"] < 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    written = json.loads(session.get_modelmeta().custom_metadata_map["graphrec"])
    assert written["classes"] == list(classes)
    assert written["input"]["dtype"] == "uint8"
    assert written["input"]["shape"] == ["rows", 3, *model.img_size]
    images = shape_images(5, 48)
    prep = Preprocess.of_model(model, img_size=model.img_size, crop_pct=1.0)
    pixels = prep.pixels(images, torch.arange(5))
    with torch.no_grad():
        expected = model(prep.normalise(pixels)).softmax(1)
    for rows in (1, 5):
        found = session.run(["probability"], {"image": pixels[:rows].numpy()})[0]
        np.testing.assert_allclose(found, expected[:rows], atol=1e-5)


@pytest.mark.slow
def test_attention_by_torch_export(tmp_path: Path) -> None:
    model = randomized(vision.create_model("swin_test", num_classes=4))
    path = tmp_path / "model.pt2"
    facts = vision.export(model, path)
    assert facts["format"] == "torch"
    extra = {"graphrec": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["graphrec"])["output"] == {"name": "logits", "classes": 4}
    x = torch.randn(7, 3, *model.img_size)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-4)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vision.create_model("convnext_test", num_classes=4)
    with pytest.raises(ConfigError, match=r"'model\.bin' must end in \.onnx or \.pt2"):
        vision.export(model, tmp_path / "model.bin")
    with pytest.raises(ConfigError, match="classes: 2 names for a model of 4 classes"):
        vision.export(model, tmp_path / "model.pt2", classes=["a", "b"])
    monkeypatch.setattr(exporting.tracing, "write_torch", lambda *_: None)
    monkeypatch.setattr(exporting.tracing, "run_torch", lambda _, inputs: np.ones((len(inputs[0]), 4)))
    with pytest.raises(RunError, match=r"model\.pt2: what was exported differs by"):
        vision.export(model, tmp_path / "model.pt2")

    def fail(*_: object) -> None:
        raise ValueError("no such operator\nin a long story")

    monkeypatch.setattr(exporting.tracing, "write_torch", fail)
    with pytest.raises(RunError, match=r"model\.pt2: cannot be exported \(no such operator\)"):
        vision.export(model, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("name", TINY)
def test_every_backbone_exports(name: str, suffix: str, tmp_path: Path) -> None:
    model = randomized(vision.create_model(name, num_classes=5))
    path = tmp_path / f"model{suffix}"
    facts = vision.export(model, path, normalise=True)
    assert facts["check"]["max_abs_difference"] < 1e-3
