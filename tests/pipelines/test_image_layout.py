"""Which files of a folder are found, and the forms that a list of images can have."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from image_tools import class_folders, encoded, picture, write

from graphrec.errors import DataError
from graphrec.pipelines.images import ImageSet, open_images


def test_links_to_folders_are_followed_but_not_around_in_circles(tmp_path: Path) -> None:
    class_folders(tmp_path / "real")
    linked = tmp_path / "linked"
    write(linked / "white" / "0.png", picture())
    for name in ("blue", "red"):
        (linked / name).symlink_to(tmp_path / "real" / name)
    (linked / "white" / "up").symlink_to(linked)  # a circle of one folder
    (tmp_path / "real" / "blue" / "across").symlink_to(linked / "white")  # and one of two
    (linked / "white" / "over").symlink_to(tmp_path / "real" / "blue")
    counts = open_images(linked).counts()
    assert set(counts) == {"blue", "red", "white"}
    assert counts["red"] == 4


def test_a_link_to_nothing_is_told_as_a_file_that_is_missing(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "blue" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "blue" / ".lock.png").symlink_to("hidden")
    with pytest.raises(DataError, match=r"1 of 13 images .*gone\.png \(no such file\)"):
        open_images(tmp_path)
    assert len(open_images(tmp_path, on_corrupt="skip")) == 12


def test_parts_beside_another_folder_are_warned_of(tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / part)
    assert open_images(tmp_path).split is not None
    write(tmp_path / "extra" / "red" / "0.png", picture())
    with pytest.warns(UserWarning, match="folders 'test', 'train' are read as classes, since 'extra' beside"):
        assert open_images(tmp_path).split is None
    with warnings.catch_warnings():  # a class of this name is not torn into parts of its own
        warnings.simplefilter("error")
        write(tmp_path / "cars" / "train" / "0.png", picture())
        write(tmp_path / "cars" / "bus" / "0.png", picture())
        assert open_images(tmp_path / "cars").counts() == {"bus": 1, "train": 1}


def same(images: ImageSet, count: int = 3) -> bool:
    return len(images) == count and all(
        np.array_equal(np.asarray(images.pil(i)), np.asarray(picture(seed=i))) for i in range(count)
    )


def test_every_form_of_a_list(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{i}.png", picture(seed=i))) for i in range(3)]
    content = [encoded(picture(seed=i), "PNG") for i in range(3)]
    for form in (tuple(paths), np.array(paths), np.array(paths, object), pd.Series(paths), pl.Series(paths)):
        assert same(open_images(form, ["a", "b", "a"]))
    assert same(open_images(content, ["a", "b", "a"]))
    assert same(open_images(content[0], labelled=False), 1)
    broken = [content[0], content[1][:40]]
    with pytest.raises(DataError, match=r"1 of 2 images cannot be read: image 1 \(is not an image"):
        open_images(broken, labelled=False)
    assert open_images(broken, labelled=False, on_corrupt="skip").names == ["image 0"]


def test_patterns_and_paths_that_are_none(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / "new" / f"{i}.png", picture(seed=i))
    (tmp_path / "new" / "notes.txt").touch()
    assert same(open_images(tmp_path / "new" / "*.png", labelled=False))
    with pytest.raises(DataError, match="no image fits this pattern"):
        open_images(tmp_path / "old" / "*.png", labelled=False)
    with pytest.raises(DataError, match="the path is empty"):
        open_images("", labelled=False)
    with pytest.raises(DataError, match="images are not read from the web"):
        open_images("https://example.com/cat.png", labelled=False)
