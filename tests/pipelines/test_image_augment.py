"""Preprocessing and augmentation: timm's numbers, batched forms against one picture at a time, bad values."""

from __future__ import annotations

import random

import numpy as np
import pytest
import timm
import torch
from image_tools import arrays, picture
from PIL import Image
from timm.data import auto_augment as timm_ops
from torchvision.transforms.v2 import functional as transforms

from graphrec import vision
from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.images import Augment, ImageLoader, Preprocess, open_images
from graphrec.pipelines.images.batched import augment_batch, draw_boxes, flipped, jittered, shifted
from graphrec.pipelines.images.rand_augment import AFFINE, CHANGES, can_batch, warp

PREP = Preprocess(size=(16, 16), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=1.0)
BATCH = torch.from_numpy(arrays(32, 16)[0]).permute(0, 3, 1, 2)


def test_a_models_configuration() -> None:
    model = vision.create_model("swin_test", num_classes=3)
    prep = Preprocess.of_model(model)
    assert prep.size == tuple(model.default_cfg["input_size"][1:])
    assert prep.mean == tuple(model.default_cfg["mean"])
    assert prep.crop_pct == model.default_cfg["crop_pct"]
    assert Preprocess.of_model(model, img_size=40, crop_pct=1.0).size == (40, 40)
    assert Preprocess.of_model({"input_size": (1, 28, 28)}).mean == pytest.approx([0.449], abs=1e-3)
    assert Preprocess.of_model(vision.create_model("convnext_test", in_chans=1)).channels == 1
    assert Preprocess.from_dict(prep.to_dict()) == prep
    with pytest.raises(ConfigError, match="a Linear has no default_cfg"):
        Preprocess.of_model(torch.nn.Linear(2, 2))
    for four in ({"input_size": (4, 28, 28)}, vision.create_model("convnext_test", in_chans=4)):
        with pytest.raises(ConfigError, match="takes 4 channels"):
            Preprocess.of_model(four)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_evaluation_is_timms(mode: str) -> None:
    prep = Preprocess((24, 20), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 0.9, mode)
    image = picture(size=(50, 40))
    expected = timm.data.create_transform(
        (3, 24, 20),
        interpolation="bilinear",
        mean=prep.mean,
        std=prep.std,
        crop_pct=0.9,
        crop_mode=mode,
    )(image)
    torch.testing.assert_close(prep(image)[0], expected, atol=1e-6, rtol=1e-6)
    # An array is cut as one tensor; scaling it differs by what torchvision's kernel rounds otherwise.
    batch = np.stack([np.asarray(image)] * 2)
    assert (prep(batch)[1] - expected).abs().max() < 2.1 / 255 / 0.2
    torch.testing.assert_close(prep(open_images(batch, [0, 1])), prep(batch))
    torch.testing.assert_close(prep([image, image])[1:], prep(image))


def test_grey_models() -> None:
    prep = Preprocess((16, 16), (0.5,), (0.5,), crop_pct=1.0)
    colour, _ = arrays(4, 16)
    grey = prep(colour)
    assert grey.shape == (4, 1, 16, 16)
    expected = np.asarray(Image.fromarray(colour[0]).convert("L"))
    np.testing.assert_allclose((grey[0, 0] * 0.5 + 0.5) * 255, expected, atol=1.01)
    images = open_images(colour, [0, 1, 0, 1])
    augment = Augment(jitter=0.4, policy="rand-m9-n2")
    assert next(iter(ImageLoader(images, prep, 4, augment=augment))).images.shape == (4, 1, 16, 16)


def test_pictures_that_are_none() -> None:
    for wrong, words in (([], "at least one"), (["a"], "PIL images"), (3, "a int is no picture")):
        with pytest.raises(DataError, match=words):
            PREP(wrong)
    assert PREP(arrays(2, 16)[0][0]).shape == (1, 3, 16, 16)


def test_shifts_are_crops_of_the_padded_picture() -> None:
    torch.manual_seed(0)
    moved = shifted(BATCH, 2)
    padded = torch.nn.functional.pad(BATCH, (2, 2, 2, 2))
    found = set()
    for i in range(len(BATCH)):
        places = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(moved[i], padded[i, :, top : top + 16, left : left + 16])
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 12


def test_flips_are_drawn_for_each() -> None:
    torch.manual_seed(0)
    turned = flipped(BATCH, 0.5, -1)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(turned, BATCH, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(turned, BATCH, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 8 < sum(mirrored) < 24
    assert torch.equal(flipped(BATCH, 1.0, -2), BATCH.flip(-2))


def test_boxes_lie_inside_and_have_the_asked_area_and_ratio() -> None:
    torch.manual_seed(0)
    top, left, height, width = draw_boxes(4000, 60, 80, (0.2, 0.8), (0.5, 2.0)).T
    assert (top >= 0).all()
    assert (top + height <= 60).all()
    assert (left >= 0).all()
    assert (left + width <= 80).all()
    area, ratio = height * width / 4800, width / height
    assert area.min() > 0.18
    assert area.max() < 0.82
    assert ratio.min() > 0.47
    assert ratio.max() < 2.1
    assert float(top.float().std()) > 3
    _, _, height, width = draw_boxes(4000, 80, 80, (0.2, 0.8), (0.5, 2.0)).T
    assert abs(float((width / height).log().mean())) < 0.05
    whole = draw_boxes(5, 10, 100, (1.0, 1.0), (1.0, 1.0))
    assert whole.tolist() == [[0, 45, 10, 10]] * 5


def test_jitter_is_torchvisions_with_factors_for_each() -> None:
    torch.manual_seed(3)
    found = jittered(BATCH, 0.4)
    torch.manual_seed(3)
    bright, contrast, saturation = torch.empty(3, len(BATCH)).uniform_(0.6, 1.4).tolist()
    for i, image in enumerate(BATCH):
        expected = transforms.adjust_brightness(image, bright[i])
        expected = transforms.adjust_contrast(expected, contrast[i])
        expected = transforms.adjust_saturation(expected, saturation[i])
        assert (found[i].int() - expected.int()).abs().max() <= 3  # it rounds once, torchvision three times


@pytest.mark.parametrize("policy", ["rand-m10-n3-inc1", "augmix-m3-w3", "original", "3a", "v0"])
def test_timms_policies_run(policy: str) -> None:
    torch.manual_seed(0)
    changed = augment_batch(BATCH, Augment(policy=policy, hflip=0.0, crop="none"), PREP)
    assert changed.shape == BATCH.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, BATCH)
    one = Augment(policy=policy).per_image(PREP)
    assert all(one(picture(seed=i)).shape == (3, 16, 16) for i in range(20))


def test_recipes_and_values() -> None:
    for name in ("imagenet", "small", "none"):
        augment = Augment.of_name(name)
        assert Augment.from_dict(augment.to_dict()) == augment
    assert torch.equal(augment_batch(BATCH, Augment.of_name("none"), PREP), BATCH)
    for options, words in (
        ({"crop": "middle"}, "crop='middle': must be one of resized, pad, none"),
        ({"scale": (0.5, 0.2)}, "scale="),
        ({"scale": (0.5, 1.2)}, "scale="),
        ({"scale": 0.5}, "scale=0.5: must be two positive numbers"),
        ({"ratio": ["a", 1]}, "ratio=.*: must be two positive numbers"),
        ({"hflip": 1.5}, "hflip=1.5: must be a probability"),
        ({"mixup": -1}, "mixup=-1: must not be negative"),
        ({"policy": "strong"}, "policy='strong': timm has no such policy"),
        ({"policy": "rand-q9"}, "policy='rand-q9': timm has no such policy"),
        ({"policy": 5}, "policy=5: timm has no such policy"),
    ):
        with pytest.raises(ConfigError, match=words):
            Augment(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="augment='strong': must be one of imagenet"):
        Augment.of_name("strong")
    with pytest.raises(ConfigError, match="augment: has no 'krop'; it has crop, scale"):
        Augment.from_dict({"krop": "pad"})
    for wrong in ({"size": (0, 4)}, {"std": (1, 1, 0)}, {"crop_pct": 1.5}, {"interpolation": "cubic"}):
        with pytest.raises(ConfigError):
            PREP.replace(**wrong)


OPERATIONS = {
    "Brightness": (timm_ops.brightness, (0.1, 1.7), 1),
    "Contrast": (timm_ops.contrast, (0.2, 1.8), 2),
    "Color": (timm_ops.color, (0.1, 1.9), 2),
    "Sharpness": (timm_ops.sharpness, (0.1, 1.9), 2),
    "Posterize": (timm_ops.posterize, (1, 4), 0),
    "Solarize": (timm_ops.solarize, (0, 100), 0),
    "SolarizeAdd": (timm_ops.solarize_add, (30, 110), 0),
    "Invert": (timm_ops.invert, (), 0),
    "AutoContrast": (timm_ops.auto_contrast, (), 1),
    "Equalize": (timm_ops.equalize, (), 1),
    "Rotate": (timm_ops.rotate, (-30, 17), 2),
    "ShearX": (timm_ops.shear_x, (0.3, -0.2), 2),
    "ShearY": (timm_ops.shear_y, (0.25, -0.3), 2),
    "TranslateXRel": (timm_ops.translate_x_rel, (0.45, -0.2), 2),
    "TranslateYRel": (timm_ops.translate_y_rel, (0.3, -0.1), 2),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_batched_changes_are_pillows(name: str) -> None:
    change, strengths, most = OPERATIONS[name]
    images = [picture("green", (24, 20)), picture("red", (24, 20), 1).rotate(40, expand=False)]
    pixels = torch.stack([transforms.pil_to_tensor(image) for image in images])
    options = {"fillcolor": (10, 200, 90), "resample": Image.BILINEAR}
    arguments = [(value,) for value in strengths] or [(), ()]
    expected = torch.stack(
        [
            transforms.pil_to_tensor(change(image, *given, **options))
            for image, given in zip(images, arguments, strict=True)
        ]
    )
    given = torch.tensor([*strengths] or [0.0, 0.0], dtype=torch.float32)
    if name in AFFINE:
        found = warp(pixels, AFFINE[name](pixels, given), options["fillcolor"], "bilinear")
    else:
        found = CHANGES[name](pixels, given)
    assert not torch.equal(expected, pixels)
    difference = (found.int() - expected.int()).abs()
    assert float((difference <= most).float().mean()) > 0.985  # places on the very edge may fall either way
    assert float(difference.float().mean()) < 1.0


def test_rand_augment_draws_for_each_picture() -> None:
    policy = "rand-m9-n2-p0.5-mstd0.5-inc1"
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    same = BATCH[:1].expand(200, -1, -1, -1)
    changed = augment_batch(same, Augment(policy=policy, hflip=0.0, crop="none"), PREP)
    kept = sum(torch.equal(image, BATCH[0]) for image in changed)
    assert (
        0.15 * 200 < kept < 0.45 * 200
    )  # a quarter draws nothing twice; weak changes leave some as they are
    assert len({image.numpy().tobytes() for image in changed}) > 100


def test_which_policies_are_batched() -> None:
    for policy, batched in (
        ("rand-m9-n3", True),
        ("rand-m9-inc1", True),
        ("rand-m9-t3a", False),
        ("3a", False),
    ):
        [step] = Augment(policy=policy).colour(PREP).transforms
        assert can_batch(step) == batched
