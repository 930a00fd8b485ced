"""The cache of decoded pictures, and the contact sheet."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from image_tools import arrays, class_folders, picture, write

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.images import (
    Augment,
    ImageLoader,
    Preprocess,
    cache_images,
    decode_images,
    open_images,
    plot_images,
)

PREP = Preprocess(size=(10, 10), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=0.7142)


def test_evaluation_sees_the_same_pixels(tmp_path: Path) -> None:
    images = open_images(class_folders(tmp_path / "set"))
    for mode in ("center", "squash", "border"):
        prep = PREP.replace(crop_mode=mode)
        cached = cache_images(images, prep, tmp_path / "cache")
        assert cached.fixed
        assert cached.store.pixels.shape == (12, 3, 14, 14)  # type: ignore[attr-defined]
        assert cached.names == images.names
        assert torch.equal(cached.labels, images.labels)
        even = [1, 5, 9] if mode == "border" else range(12)  # an odd border is filled up on one side
        torch.testing.assert_close(prep(cached.subset(even)), prep(images.subset(even)))
    options = {"augment": Augment(), "shuffle": True}
    assert next(iter(ImageLoader(cached, PREP, 4, **options))).images.shape == (4, 3, 10, 10)  # type: ignore[arg-type]


def test_in_memory_evaluation_sees_the_same_pixels(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set")
    images, prep = open_images(folder).subset([7, 2, 11]), PREP.replace(crop_pct=1.0)
    kept = decode_images(images, prep)
    assert kept.fixed
    assert kept.names == images.names
    assert torch.equal(kept.labels, images.labels)
    assert torch.equal(prep(kept), prep(images))
    assert kept.fingerprint() == decode_images(images, prep).fingerprint() != images.fingerprint()
    assert kept.fingerprint() != decode_images(images, prep.replace(size=(8, 8))).fingerprint()
    assert decode_images(kept, prep) is kept
    assert decode_images(images, prep, room=3 * 3 * 10 * 10 - 1) is images
    (folder / "red" / "3.jpg").write_bytes((folder / "red" / "3.jpg").read_bytes()[:300])
    with pytest.raises(DataError, match=r"red/3\.jpg: is broken"):
        decode_images(images, prep)


def test_a_second_call_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images(class_folders(tmp_path / "set"))
    first = cache_images(images, PREP, tmp_path / "cache")
    monkeypatch.setattr(type(images.store), "image", lambda *_: pytest.fail("decoded again"))
    second = cache_images(images, PREP, tmp_path / "cache")
    assert torch.equal(first.store.pixels, second.store.pixels)  # type: ignore[attr-defined]
    assert first.fingerprint() == second.fingerprint()
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_what_changes_the_pixels_changes_the_entry(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set")
    images = open_images(folder)
    keys = {cache_images(images, PREP, tmp_path / "c").store.digest()}
    keys.add(cache_images(images, PREP.replace(size=(8, 8)), tmp_path / "c").store.digest())
    keys.add(cache_images(images.subset([2, 1]), PREP, tmp_path / "c").store.digest())
    write(folder / "red" / "0.jpg", picture("green", (50, 50)))
    changed = cache_images(open_images(folder), PREP, tmp_path / "c")
    keys.add(changed.store.digest())
    assert len(keys) == 4
    assert np.asarray(changed.pil(8))[..., 1].mean() > 150
    same = PREP.replace(mean=(0.1, 0.1, 0.1))  # normalising comes after
    assert cache_images(open_images(folder), same, tmp_path / "c").store.digest() in keys


def test_other_processes_get_the_path_not_the_pixels(tmp_path: Path) -> None:
    cached = cache_images(open_images(*arrays(200, 16)), PREP, tmp_path)
    assert cached.store.pixels.shape == (200, 3, 14, 14)  # type: ignore[attr-defined]
    content = pickle.dumps(cached.store)
    assert len(content) < 20_000
    assert torch.equal(pickle.loads(content).pixels, cached.store.pixels)  # type: ignore[attr-defined]


def test_a_broken_file_leaves_nothing_behind(tmp_path: Path) -> None:
    images = open_images(class_folders(tmp_path / "set"))
    write(tmp_path / "set" / "red" / "1.jpg", b"")
    with pytest.raises(DataError, match=r"1\.jpg: is empty"):
        cache_images(images, PREP, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    write(tmp_path / "file", b"")
    with pytest.raises(DataError, match="cannot be written; give another cache_dir"):
        cache_images(images, PREP, tmp_path / "file")


def test_the_contact_sheet(tmp_path: Path) -> None:
    images = open_images(class_folders(tmp_path / "set"))
    figure = plot_images(images, 7, path=tmp_path / "sheet.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["blue"] * 3 + ["green"] * 2 + ["red"] * 2 or len(set(titles)) == 3
    for axes in figure.axes:
        strongest = int(np.asarray(axes.images[0].get_array()).reshape(-1, 3).mean(0).argmax())
        assert ("red", "green", "blue")[strongest] == axes.get_title()
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    chosen = plot_images(images, indices=[3, 9])
    assert [axes.get_title() for axes in chosen.axes] == ["blue", "red"]
    assert len(plot_images(open_images(arrays()[0], labelled=False), 5).axes) == 5
    with pytest.raises(ConfigError, match="count=0"):
        plot_images(images, 0)
    with pytest.raises(DataError, match="no image to draw"):
        plot_images(images, indices=[])
