"""Folders, archives, arrays and lists open as one set; what is wrong with them is told by name."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from image_tools import arrays, class_folders, encoded, picture, write

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.images import open_images

CIFAR = Path(os.environ.get("GRAPHREC_DATA", "")) / "cifar10"


def test_a_folder_per_class(tmp_path: Path) -> None:
    images = open_images(class_folders(tmp_path / "set"))
    assert images.classes == ("blue", "green", "red")
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.names[5].endswith(os.path.join("green", "1.jpg"))
    assert images.split is None
    red, green, blue = np.asarray(images.pil(8)).reshape(-1, 3).mean(0)
    assert red > 200 > 60 > green
    assert blue < 60
    text = images.describe()
    assert "12 images" in text
    assert "blue (4)" in text
    assert "20x16 (3)" in text
    assert "widths 20 to 23, heights 16 to 22" in text
    assert "modes: RGB (12)" in text


def test_folders_of_parts_and_a_common_folder_above(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        class_folders(tmp_path / "set" / part, each=2)
    write(tmp_path / "set" / "README.txt", b"hello")
    write(tmp_path / "set" / ".hidden" / "x.jpg", b"nothing")
    images = open_images(tmp_path)
    assert images.classes == ("blue", "green", "red")
    assert images.split is not None
    assert [len(images.split.train), len(images.split.valid), len(images.split.test)] == [6, 6, 6]
    assert all("train" in images.names[i] for i in images.split.train)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "car"):
        write(tmp_path / name / "a.png", picture())
    images = open_images(tmp_path)
    assert images.classes == ("car", "train")
    assert images.split is None


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives(tmp_path: Path, kind: str) -> None:
    source = class_folders(tmp_path / "train")
    path = tmp_path / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(source.rglob("*.jpg")):
                archive.write(file, file.relative_to(tmp_path))
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as tar:
            tar.add(source, "train")
    images = open_images(path)
    assert images.classes == ("blue", "green", "red")
    assert images.split is not None
    assert len(images.split.train) == 12
    np.testing.assert_array_equal(np.asarray(images.pil(0)), np.asarray(open_images(source).pil(0)))
    assert "set." in images.names[0]


def test_broken_archives(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", b"PK, not really")
    with pytest.raises(DataError, match=r"a\.zip: broken archive"):
        open_images(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(class_folders(tmp_path / "x"), "x")
    content = (tmp_path / "b.tar.gz").read_bytes()
    write(tmp_path / "b.tar.gz", content[: len(content) // 2])
    with pytest.raises(DataError, match=r"b\.tar\.gz: broken archive"):
        open_images(tmp_path / "b.tar.gz")
    with pytest.raises(DataError, match=r"c\.zip: no such file"):
        open_images(tmp_path / "c.zip")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"just a line of text\n", "is text, not an image"),
        (bytes(range(200)), r"is not an image \(it begins with"),
        (encoded(picture(size=(80, 80)), "JPEG")[:-200], "is broken"),
        (encoded(picture(size=(80, 80)), "PNG")[:-200], "is broken"),
        (encoded(picture(size=(80, 80)), "WEBP")[:-200], "is broken"),
        (encoded(picture(size=(80, 80)), "BMP")[:-200], "is broken"),
    ],
)
def test_a_broken_file_is_named_before_any_training(tmp_path: Path, content: bytes, words: str) -> None:
    class_folders(tmp_path)
    write(tmp_path / "green" / "bad.png", content)
    with pytest.raises(DataError, match=rf"1 of 13 images cannot be read: \S+bad\.png \({words}") as caught:
        open_images(tmp_path)
    assert "on_corrupt='skip'" in str(caught.value)
    assert "\n" not in str(caught.value)
    images = open_images(tmp_path, on_corrupt="skip")
    assert len(images) == 12
    assert images.counts() == {"blue": 4, "green": 4, "red": 4}
    assert len(images.skipped) == 1
    assert "bad.png" in images.describe()
    unchecked = open_images(tmp_path, check="none")
    at = next(i for i, name in enumerate(unchecked.names) if "bad" in name)
    with pytest.raises(DataError, match=rf"bad\.png: {words}"):
        unchecked.pil(at)


def test_of_many_broken_files_ten_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for i in range(12):
        write(tmp_path / "red" / f"bad{i:02}.png", b"")
    with pytest.raises(DataError, match="12 of 24 images cannot be read") as caught:
        open_images(tmp_path)
    assert str(caught.value).count("is empty") == 10
    assert "and 2 more" in str(caught.value)


def test_a_split_survives_what_is_skipped(tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / part, each=2)
    write(tmp_path / "test" / "blue" / "0.jpg", b"")
    images = open_images(tmp_path, on_corrupt="skip")
    assert images.split is not None
    assert len(images.split.test) == 5
    assert len(images.split.train) == 6
    assert all("train" in images.names[i] for i in images.split.train)
    assert all(f"{os.sep}test{os.sep}" in images.names[i] for i in images.split.test)


def test_nothing_but_broken_files(tmp_path: Path) -> None:
    write(tmp_path / "red" / "bad.png", b"")
    with pytest.raises(DataError, match="1 of 1 images cannot be read"):
        open_images(tmp_path, on_corrupt="skip")


def test_folders_with_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        open_images(tmp_path / "missing")
    with pytest.raises(DataError, match="this folder holds no files"):
        open_images(tmp_path)
    write(tmp_path / "notes.md", b"hello")
    with pytest.raises(DataError, match=r"holds 1 files, but none with the extension of an image"):
        open_images(tmp_path)
    write(tmp_path / "loose.png", picture())
    with pytest.raises(DataError, match=r"1 of 1 images are in no folder of a class \('loose\.png'\)"):
        open_images(tmp_path)
    assert open_images(tmp_path, labelled=False).labels is None


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_arrays_in_each_layout(layout: str) -> None:
    pixels, labels = arrays()
    given = {"NHWC": pixels, "NCHW": pixels.transpose(0, 3, 1, 2), "NHW": pixels[..., 0]}[layout]
    for data in (given, torch.from_numpy(np.ascontiguousarray(given))):
        images = open_images(data, labels)
        assert images.fixed
        assert images.classes == ("0", "1", "2")
        expected = np.repeat(pixels[3][..., :1], 3, -1) if layout == "NHW" else pixels[3]
        np.testing.assert_array_equal(np.asarray(images.pil(3)), expected)
        assert "all 8x8" in images.describe()


def test_a_width_of_three_is_read_as_each_library_has_it() -> None:
    assert open_images(np.zeros((2, 3, 5, 3), np.uint8), [0, 1]).pil(0).size == (5, 3)
    assert open_images(torch.zeros((2, 3, 5, 3), dtype=torch.uint8), [0, 1]).pil(0).size == (3, 5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((2, 8, 8, 3)), r"float64 pixels \(from 0 to 0\); images are uint8"),
        (np.full((2, 8, 8, 3), np.nan, np.float32), "image 0 holds NaN or infinite pixels"),
        (np.zeros((2, 8, 8, 3), np.int64), r"int64 pixels; .*astype"),
        (np.zeros((2, 8, 8, 3), bool), r"bool pixels.*255 \* array"),
        (np.full((2, 8, 8, 3), 60_000, np.uint16), "uint16 pixels.*from 60000 to 60000, scale them"),
        (np.full((2, 8, 8, 3), None), "object pixels.*one array of numbers"),
        (torch.zeros((2, 3, 8, 8), dtype=torch.bfloat16), "bfloat16 pixels"),
        (np.zeros((8, 8), np.uint8), r"shape \(8, 8\); images are .* array\[None\]"),
        (np.zeros((8, 8, 3), np.uint8), r"shape \(8, 8, 3\); images are .* array\[None\]"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"shape \(2, 8, 8, 5\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "holds no image"),
    ],
)
def test_arrays_that_are_no_pictures(data: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_images(data, [0, 1])


def test_labels_must_fit() -> None:
    pixels, labels = arrays()
    with pytest.raises(DataError, match="11 labels for 12 images"):
        open_images(pixels, labels[:-1])
    with pytest.raises(DataError, match=r"labels of shape \(12, 2\)"):
        open_images(pixels, np.zeros((12, 2), int))
    with pytest.raises(DataError, match="no labels; give one for each image"):
        open_images(pixels)
    with pytest.raises(DataError, match="has no label"):
        open_images(pixels, [None, *labels[1:]])
    assert open_images(pixels, labelled=False).labels is None
    assert open_images(pixels, ["b", "a"] * 6).classes == ("a", "b")
    assert open_images(pixels, np.arange(12)[::-1]).classes[-2:] == ("10", "11")


def test_classes_of_a_fitted_model() -> None:
    pixels, _ = arrays(4)
    images = open_images(pixels, ["cat", "dog", "cat", "dog"], classes=["dog", "cow", "cat"])
    assert images.labels is not None
    assert images.labels.tolist() == [2, 0, 2, 0]
    assert images.counts() == {"dog": 2, "cow": 0, "cat": 2}
    words = r"3 images are of classes that the model does not know \('ant', 'bee'\); it knows 'cat'"
    with pytest.raises(DataError, match=words):
        open_images(pixels, ["ant", "ant", "bee", "cat"], classes=["cat"])
    with pytest.raises(DataError, match="does not know"):
        images.with_classes(["dog", "cow"])
    assert images.with_classes(["cat", "dog"]).labels.tolist() == [0, 1, 0, 1]  # type: ignore[union-attr]


def test_lists_of_paths_and_pictures(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.png", picture(seed=i)) for i in range(3)]
    images = open_images(paths, ["a", "b", "a"])
    assert images.names == [str(p) for p in paths]
    same = open_images([picture(seed=i) for i in range(3)], ["a", "b", "a"])
    np.testing.assert_array_equal(np.asarray(images.pil(2)), np.asarray(same.pil(2)))
    assert len(open_images(paths[0], labelled=False)) == 1
    with pytest.raises(DataError, match=r"nothing\.png \(no such file\)"):
        open_images([*paths, tmp_path / "nothing.png"], [0] * 4)
    with pytest.raises(DataError, match=r"^\S+nothing\.png: no such file$"):
        open_images(tmp_path / "nothing.png", labelled=False)
    with pytest.raises(DataError, match="holds ndarray; give paths, PIL images or encoded ones"):
        open_images([np.zeros((8, 8, 3), np.uint8)], [0])
    with pytest.raises(DataError, match=r"holds Image and PosixPath; give .* all of a kind"):
        open_images([picture(), paths[0]], [0, 1])
    with pytest.raises(DataError, match="holds no image"):
        open_images([], [])


def test_arguments_that_contradict(tmp_path: Path) -> None:
    folder = class_folders(tmp_path)
    with pytest.raises(ConfigError, match="labels: a folder brings its own"):
        open_images(folder, [0] * 12)
    with pytest.raises(ConfigError, match="label: is for manifests"):
        open_images(folder, label="label")
    with pytest.raises(ConfigError, match="on_corrupt='ignore': must be one of raise, skip"):
        open_images(folder, on_corrupt="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="check='fast'"):
        open_images(folder, check="fast")  # type: ignore[arg-type]


def test_subsets_and_fingerprints(tmp_path: Path) -> None:
    images = open_images(class_folders(tmp_path))
    part = images.subset([11, 0])
    assert part.names == [images.names[11], images.names[0]]
    assert part.labels is not None
    assert part.labels.tolist() == [2, 0]
    assert part.fingerprint() != images.fingerprint()
    assert images.fingerprint() == open_images(tmp_path).fingerprint()
    with pytest.raises(DataError, match="index 12 is not one of the 12"):
        images.subset([12])
    before = images.fingerprint()
    write(tmp_path / "red" / "0.jpg", picture("red", (50, 50)))
    assert before != open_images(tmp_path).fingerprint()
    pixels, labels = arrays()
    first = open_images(pixels, labels)
    pixels = pixels.copy()
    pixels[3, 2, 1, 0] ^= 1
    assert open_images(pixels, labels).fingerprint() != first.fingerprint()


@pytest.mark.data
def test_cifar10_opens_with_one_call() -> None:
    images = open_images(CIFAR)
    assert len(images) == 20_000
    assert images.counts() == dict.fromkeys(images.classes, 2000)
    assert images.classes[:3] == ("airplane", "automobile", "bird")
    assert images.split is not None
    assert [len(images.split.train), len(images.split.test)] == [10_000, 10_000]
    assert images.pil(0).size == (32, 32)


def test_a_gap_among_whole_numbers_is_told_as_one() -> None:
    """An array of numbers with a gap is of floating numbers, NaN where one is missing."""
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    assert open_images(pixels, np.array([0.0, 2.0, 0.0])).classes == ("0", "2")
    with pytest.raises(DataError, match=r"row 2: .*no label"):
        open_images(pixels, np.array([0.0, np.nan, 1.0]))
