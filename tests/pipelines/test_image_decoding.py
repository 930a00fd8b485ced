"""Pictures that are not plain RGB: grey, 16 bits, palettes, transparency, CMYK, EXIF, animations."""

from __future__ import annotations

import io

import numpy as np
import pytest
from image_tools import encoded, picture
from PIL import Image

from graphrec.errors import DataError
from graphrec.pipelines.images import decode


def read(content: bytes, channels: int = 3) -> np.ndarray:
    return np.asarray(decode(io.BytesIO(content), "x.png", channels))


def test_grey_has_three_equal_channels() -> None:
    grey = picture().convert("L")
    found = read(encoded(grey))
    assert found.shape == (16, 20, 3)
    np.testing.assert_array_equal(found, np.repeat(np.asarray(grey)[..., None], 3, -1))
    np.testing.assert_array_equal(read(encoded(grey), 1), np.asarray(grey))
    assert read(encoded(picture("green")), 1).shape == (16, 20)


def test_sixteen_bits_keep_the_upper_eight() -> None:
    values = (np.arange(20 * 16, dtype=np.uint16) * 200).reshape(16, 20)
    for kind in ("PNG", "TIFF"):
        found = read(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(found[..., 0], values >> 8)
    wide = Image.fromarray(np.full((4, 4), 70_000, np.int32))
    with pytest.raises(DataError, match=r"x\.png: has pixels from 70000 to 70000, more than 16 bits"):
        read(encoded(wide, "TIFF"))


def test_floating_pixels_are_refused() -> None:
    with pytest.raises(DataError, match=r"x\.png: has floating pixels"):
        read(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


def test_palettes_and_bits() -> None:
    palette = picture("blue").convert("P")
    np.testing.assert_array_equal(read(encoded(palette)), np.asarray(palette.convert("RGB")))
    bits = picture("blue").convert("1")
    assert set(np.unique(read(encoded(bits)))) <= {0, 255}


def test_what_is_transparent_lies_on_white() -> None:
    layers = picture("red").convert("RGBA")
    layers.putalpha(Image.fromarray((np.arange(20) < 10).astype(np.uint8)[None].repeat(16, 0) * 255))
    found = read(encoded(layers))
    np.testing.assert_array_equal(found[:, :10], np.asarray(picture("red"))[:, :10])
    assert (found[:, 10:] == 255).all()
    grey = read(encoded(layers.convert("LA")))
    assert (grey[:, 10:] == 255).all()
    assert (grey[:, :10] < 255).all()
    keyed = Image.new("P", (4, 4), 1)
    keyed.putpalette([0, 0, 0, 200, 0, 0])
    assert (read(encoded(keyed, transparency=1)) == 255).all()
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    np.testing.assert_allclose(read(encoded(half)), 127, atol=1)


def test_cmyk() -> None:
    found = read(encoded(picture("green", (32, 32)).convert("CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(found.reshape(-1, 3).mean(0), (30, 200, 60), atol=12)


def test_a_rotation_in_exif_is_applied() -> None:
    image = picture(size=(20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    found = read(encoded(image, "PNG", exif=exif))
    assert found.shape == (20, 10, 3)
    np.testing.assert_array_equal(found, np.rot90(np.asarray(image), -1))


def test_of_an_animation_the_first_picture_is_taken() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        np.testing.assert_array_equal(found[0, 0], (255, 0, 0))


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"x\.png: has more pixels than PIL takes"):
        read(encoded(picture(size=(20, 20))))


def test_a_broken_file_is_named() -> None:
    with pytest.raises(DataError, match=r"x\.png: is empty"):
        read(b"")
    with pytest.raises(DataError, match=r"x\.png: is broken \(.*truncated"):
        read(encoded(picture(size=(80, 80)), "JPEG")[:-300])
