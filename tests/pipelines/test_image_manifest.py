"""Manifests: the columns' roles, paths and bytes, Hugging Face's form, parts and groups, what is unclear."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_tools import COLOURS, class_folders, encoded, picture, write

from graphrec.errors import DataError, SchemaError
from graphrec.pipelines.images import open_images, split_images


@pytest.fixture
def rows(tmp_path: Path) -> pl.DataFrame:
    class_folders(tmp_path / "pictures", each=2, suffix=".png")
    paths = [f"pictures/{colour}/{i}.png" for colour in COLOURS for i in range(2)]
    labels = [colour for colour in COLOURS for _ in range(2)]
    return pl.DataFrame({"path": paths, "label": labels, "note": [f"n{i}" for i in range(6)]})


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
def test_paths_are_relative_to_the_manifest(rows: pl.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    {".csv": rows.write_csv, ".parquet": rows.write_parquet, ".arrow": rows.write_ipc}[suffix](path)
    images = open_images(path)
    assert images.classes == ("blue", "green", "red")
    assert images.names[0] == str(tmp_path / "pictures/blue/0.png")
    np.testing.assert_array_equal(np.asarray(images.pil(5)), np.asarray(picture("red", (21, 18), 1)))
    assert open_images(str(path), labelled=False).labels is None


def test_frames_with_a_root(rows: pl.DataFrame, tmp_path: Path) -> None:
    for frame in (rows, rows.lazy(), rows.to_pandas(), rows.to_arrow()):
        images = open_images(frame, root=tmp_path)
        assert len(images) == 6
        assert images.counts() == {"blue": 2, "green": 2, "red": 2}
    absolute = rows.with_columns(path=pl.format("{}/{}", pl.lit(str(tmp_path)), "path"))
    assert len(open_images(absolute)) == 6


def test_images_that_are_listed_twice_are_told(rows: pl.DataFrame, tmp_path: Path) -> None:
    twice = pl.concat([rows, rows.head(1)])
    with pytest.warns(UserWarning, match=r"1 images are listed more than once, such as 'pictures/blue/0"):
        assert len(open_images(twice, root=tmp_path)) == 7
    other = pl.concat([rows, rows.head(2).with_columns(label=pl.Series(["blue", "red"]))])
    with pytest.warns(UserWarning, match=r"2 images .* 1 of them with different labels.*blue/1.png"):
        open_images(other, root=tmp_path)
    spelt = pl.concat([rows, rows.head(1).with_columns(path=pl.format("./pictures/../{}", "path"))])
    with pytest.warns(UserWarning, match=r"1 images are listed more than once, such as 'pictures/blue/0"):
        open_images(spelt, root=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_images(other, root=tmp_path, labelled=False)


def test_a_label_without_a_letter_is_none(rows: pl.DataFrame, tmp_path: Path) -> None:
    blank = rows.with_columns(label=pl.Series(["", *rows["label"][1:]]))
    with pytest.raises(DataError, match="row 1: column 'label' has no label"):
        open_images(blank, root=tmp_path)


def bytes_of(count: int = 6) -> list[bytes]:
    names = list(COLOURS)
    return [encoded(picture(names[i % 3], seed=i)) for i in range(count)]


def test_bytes_and_structs(tmp_path: Path) -> None:
    data = bytes_of()
    plain = pl.DataFrame({"picture": data, "y": [3, 1, 2] * 2})
    images = open_images(plain)
    assert images.classes == ("1", "2", "3")
    np.testing.assert_array_equal(np.asarray(images.pil(4)), np.asarray(picture("green", seed=4)))
    structs = pl.DataFrame({"image": [{"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)]})
    path = tmp_path / "hf.parquet"
    structs.with_columns(label=pl.Series([0, 1, 2] * 2)).write_parquet(path)
    images = open_images(path)
    assert images.names[1].endswith("hf.parquet, 1.png")
    np.testing.assert_array_equal(np.asarray(images.pil(4)), np.asarray(picture("green", seed=4)))


def test_names_of_classes_in_the_metadata_of_hugging_face(tmp_path: Path) -> None:
    table = pa.table({"image": bytes_of(), "label": [2, 0, 1] * 2})
    names = ["tench", "ant", "bee"]
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "x.parquet")
    images = open_images(tmp_path / "x.parquet")
    assert images.classes == tuple(names)
    assert images.labels is not None
    assert images.labels.tolist() == [2, 0, 1] * 2
    again = open_images(tmp_path / "x.parquet", classes=["ant", "bee", "tench"])
    assert again.labels is not None
    assert again.labels.tolist() == [1, 2, 0] * 2
    high = pa.table({"image": bytes_of(), "label": [7, 0, 1] * 2})
    pq.write_table(high.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match="goes to 7, but names 3 classes"):
        open_images(tmp_path / "y.parquet")


def test_a_column_of_parts(rows: pl.DataFrame, tmp_path: Path) -> None:
    parts = pl.Series("split", ["train", "train", "Train", "validation", "test", None])
    images = open_images(rows.with_columns(parts), root=tmp_path)
    assert images.split is not None
    assert images.split.train.tolist() == [0, 1, 2]
    assert images.split.valid.tolist() == [3]
    assert images.split.left_out.tolist() == [5]
    assert split_images(images) is images.split
    with pytest.raises(DataError, match="row 3: 'holdout' is no part of a split"):
        open_images(rows.with_columns(split=pl.Series(["train", "test", "holdout"] * 2)), root=tmp_path)


def test_groups_are_not_torn_apart(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"image": bytes_of(30), "label": [0, 1, 2] * 10, "patient": [i // 3 for i in range(30)]}
    )
    images = open_images(frame, group="patient")
    split = split_images(images, valid=0.2, test=0.3, seed=1)
    parts = [
        set(frame["patient"][part.tolist()].to_list()) for part in (split.train, split.valid, split.test)
    ]
    assert [len(p) for p in parts] == [5, 2, 3]
    assert len(parts[0] | parts[1] | parts[2]) == 10
    holes = frame.with_columns(patient=pl.Series([None, *[1] * 29]))
    assert open_images(holes, group="patient").groups.unique().numel() == 2  # type: ignore[union-attr]


def test_random_parts_keep_the_proportions() -> None:
    frame = pl.DataFrame({"image": bytes_of(60), "label": [0, 1, 2] * 20})
    images = open_images(frame)
    split = split_images(images, valid=0.2, test=0.2)
    assert images.labels is not None
    for part, each in ((split.train, 12), (split.valid, 4), (split.test, 4)):
        assert images.labels[part].bincount().tolist() == [each] * 3
    one = open_images(frame.with_columns(label=pl.Series([1] * 59 + [2])))
    assert "with fewer than two images: 2" in one.describe()
    assert 59 in split_images(one, valid=0.1).train.tolist()


def test_columns_that_are_not_clear(rows: pl.DataFrame, tmp_path: Path) -> None:
    def opened(frame: pl.DataFrame, **options: object) -> None:
        open_images(frame, root=tmp_path, **options)  # type: ignore[arg-type]

    with pytest.raises(
        SchemaError, match="which column holds the labels is not clear; candidates are kind, note"
    ):
        opened(rows.rename({"label": "kind"}))
    opened(rows.rename({"label": "kind"}), label="kind")
    opened(rows.rename({"label": "kind"}).drop("note"))
    with pytest.raises(SchemaError, match="candidates are label, category"):
        opened(rows.with_columns(category="label"))
    with pytest.raises(
        SchemaError, match=r"column 'lable' \(argument label\) is missing; did you mean 'label'"
    ):
        opened(rows, label="lable")
    with pytest.raises(SchemaError, match="no column holds images"):
        opened(rows.drop("path", "note"))
    with pytest.raises(
        SchemaError, match="which column holds the images is not clear; candidates are path, file"
    ):
        opened(rows.with_columns(file="path"))
    with pytest.raises(SchemaError, match="column 'n' is Int64; it must hold paths, encoded bytes"):
        opened(rows.with_columns(n=pl.Series(range(6))), image="n")
    with pytest.raises(SchemaError, match="not clear; it has path"):
        opened(rows.select("path"))


def test_cells_that_are_empty(rows: pl.DataFrame, tmp_path: Path) -> None:
    for value in (None, " "):
        broken = rows.with_columns(path=pl.Series([*rows["path"][:4].to_list(), value, value]))
        with pytest.raises(DataError, match=r"row 5 \(and 1 more rows\): column 'path' is empty"):
            open_images(broken, root=tmp_path)
    with pytest.raises(DataError, match="row 2: column 'image' is empty"):
        open_images(pl.DataFrame({"image": [b"x", None], "label": [0, 1]}))
    with pytest.raises(DataError, match="row 1: column 'label' has no label"):
        open_images(rows.with_columns(label=pl.Series([None, *["a"] * 5])), root=tmp_path)
    with pytest.raises(SchemaError, match="classes must be whole numbers"):
        open_images(rows.with_columns(label=pl.Series([0.5] * 6)), root=tmp_path)


def test_files_that_are_missing(rows: pl.DataFrame, tmp_path: Path) -> None:
    more = rows.with_columns(path=pl.col("path").replace("pictures/red/1.png", "pictures/red/9.png"))
    with pytest.raises(DataError, match=r"1 of 6 images cannot be read: \S+9\.png \(no such file\)"):
        open_images(more, root=tmp_path)
    assert len(open_images(more, root=tmp_path, on_corrupt="skip")) == 5


def test_paths_that_are_none(rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("https://example.com/a.png", "s3://bucket/a.png", "file:///a.png"):
        changed = rows.with_columns(path=pl.Series([rows["path"][0], address, *rows["path"][2:]]))
        with pytest.raises(DataError, match=r"row 2: column 'path' holds an address, .*a\.png'\); download"):
            open_images(changed, root=tmp_path)
    with pytest.raises(SchemaError, match="column 'path' holds the images; another holds the labels"):
        open_images(rows, root=tmp_path, label="path")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_images(rows.with_columns(path=pl.format("~/{}", "path"))).pil(5).size


def test_manifests_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"path,label\n")
    with pytest.raises(DataError, match="holds a header and no rows"):
        open_images(path)
    with pytest.raises(DataError, match="holds no rows"):
        open_images(pd.DataFrame({"path": [], "label": []}))


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    for i in range(2):
        pl.DataFrame({"image": bytes_of(), "label": [0, 1, 2] * 2}).write_parquet(tmp_path / f"{i}.parquet")
    assert len(open_images(tmp_path)) == 12
