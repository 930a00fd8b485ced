"""Shards are found again when nothing changed, made anew when anything did, and never half-written."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from table_log import make_log

from graphrec.errors import DataError
from graphrec.pipelines.folder_cache import prune
from graphrec.pipelines.tables import EncodedTable, Split, TableEncoder, TableSchema
from graphrec.pipelines.tables import cache as _cache
from graphrec.pipelines.tables import encoder as _encoder
from graphrec.pipelines.tables import shards as _shards
from graphrec.pipelines.tables import spill as _spill
from graphrec.pipelines.tables.cache import default_dir

SPLIT = Split.order(0.2, 0.1)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often rows are encoded."""
    seen: list[int] = []
    real = TableEncoder._first_pass

    def counted(self, *args):
        seen.append(1)
        return real(self, *args)

    monkeypatch.setattr(_encoder.TableEncoder, "_first_pass", counted)
    return seen


def fit(
    data, folder: Path | None, split: Split = SPLIT, **changes
) -> tuple[TableEncoder, dict[str, EncodedTable]]:
    schema = TableSchema.infer(data, "click")
    for name, change in changes.items():
        schema = schema.replace(name, **change)
    encoder = TableEncoder(schema)
    return encoder, encoder.fit_encode(data, split, cache_dir=folder)


def test_second_fit_starts_at_once(log_path: Path, tmp_path: Path, passes: list[int]) -> None:
    first, a = fit(log_path, tmp_path / "c")
    second, b = fit(log_path, tmp_path / "c")
    assert len(passes) == 1
    assert first.spec == second.spec
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name].block(0, 999).categorical, b[name].block(0, 999).categorical)
        for key, counts in a[name].counts().items():
            np.testing.assert_array_equal(counts, b[name].counts()[key])
    new = make_log(seed=3)
    np.testing.assert_array_equal(
        first.encode(new).block(0, 600).numeric, second.encode(new).block(0, 600).numeric
    )


@pytest.mark.parametrize("what", ["file", "split", "seed", "option", "role"])
def test_changes_are_noticed(what: str, log_path: Path, tmp_path: Path, passes: list[int]) -> None:
    fit(log_path, tmp_path / "c")
    split, changes = SPLIT, {}
    if what == "file":
        make_log(seed=1).write_parquet(log_path, row_group_size=170)
    elif what == "split":
        split = Split.order(0.1, 0.1)
    elif what == "seed":
        fit(log_path, tmp_path / "c", Split.random(seed=0))
        split = Split.random(seed=1)
        passes.pop()
    elif what == "option":
        changes = {"item_id": {"min_count": 3}}
    else:
        changes = {"age": {"role": "categorical"}}
    fit(log_path, tmp_path / "c", split, **changes)
    assert len(passes) == 2


def test_notes_and_types_do_not_matter(log_path: Path, tmp_path: Path, passes: list[int]) -> None:
    fit(log_path, tmp_path / "c")
    fit(log_path, tmp_path / "c", age={"note": "looked at"})
    assert len(passes) == 1


def test_files_are_cached_by_default_and_frames_are_not(log_path: Path, passes: list[int]) -> None:
    fit(log_path, None)
    fit(log_path, None)
    assert len(passes) == 1
    assert str(default_dir()).startswith(os.environ["XDG_CACHE_HOME"])
    entries = len(list(default_dir().iterdir()))
    frame = pl.read_parquet(log_path)
    _, parts = fit(frame, None)
    assert len(list(default_dir().iterdir())) == entries
    folder = parts["train"].folder.parent
    assert folder.is_dir()
    rows = parts.pop("train")
    parts.clear()
    gc.collect()
    assert folder.is_dir()  # one part is still in use
    assert len(rows.block(0, 5)) == 5
    del rows
    gc.collect()
    assert not folder.exists()


def test_frames_are_cached_where_asked(log: pl.DataFrame, tmp_path: Path, passes: list[int]) -> None:
    fit(log, tmp_path)
    fit(log.clone(), tmp_path)
    assert len(passes) == 1
    fit(log.with_columns(age=pl.col("age") + 1), tmp_path)
    assert len(passes) == 2


def test_interrupted_encoding_leaves_nothing(
    log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "c"

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    encoder = TableEncoder(TableSchema.infer(log_path, "click"))
    with pytest.raises(KeyboardInterrupt):
        encoder.fit_encode(log_path, SPLIT, cache_dir=store, progress=stop)
    assert list(store.iterdir()) == []


def test_half_written_entries_are_not_used(log_path: Path, tmp_path: Path, passes: list[int]) -> None:
    fit(log_path, tmp_path / "c")
    (entry,) = (tmp_path / "c").iterdir()
    entry.rename(entry.with_name(".tmp-half"))  # what a process killed before its rename leaves
    fit(log_path, tmp_path / "c")
    assert len(passes) == 2
    (entry / "encoder" / "encoder.json").write_text("{")
    fit(log_path, tmp_path / "c")
    assert len(passes) == 3


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: _cut(entry / "train" / "categorical.npy"),
        lambda entry: (entry / "valid" / "labels.npy").write_bytes(b""),
        lambda entry: (entry / "train" / "labels.npy").write_bytes(bytes(4000)),
        lambda entry: (entry / "train" / "meta.json").write_bytes(b""),
        lambda entry: (entry / "valid" / "numeric.npy").unlink(),
        lambda entry: shutil.rmtree(entry / "valid"),
        lambda entry: shutil.rmtree(entry / "train"),
        lambda entry: (entry / "parts.json").write_bytes(b""),
        lambda entry: (entry / "encoder" / "encoder.json").write_text("[]"),
    ],
)
def test_damaged_entries_are_made_anew(
    damage: Callable[[Path], None], log_path: Path, tmp_path: Path, passes: list[int]
) -> None:
    """As a power cut, or someone who makes room, leaves them."""
    whole = fit(log_path, tmp_path / "c")[1]
    (entry,) = (tmp_path / "c").iterdir()
    damage(entry)
    again = fit(log_path, tmp_path / "c")[1]
    assert len(passes) == 2
    assert {name: part.fingerprint() for name, part in again.items()} == {
        name: part.fingerprint() for name, part in whole.items()
    }
    fit(log_path, tmp_path / "c")
    assert len(passes) == 2


def test_encoded_rows_are_known_wherever_they_were_read_from(
    log: pl.DataFrame, log_path: Path, tmp_path: Path
) -> None:
    """Not so by the file's digest, which is the key of the cache: that goes by name and time as well."""

    def prints(data: Path | pl.DataFrame) -> list[str]:
        return [part.fingerprint() for part in fit(data, tmp_path / "c")[1].values()]

    moved = tmp_path / "moved.parquet"
    shutil.copy(log_path, moved)
    os.utime(moved, (2_000_000_000, 2_000_000_000))
    assert prints(log_path) == prints(moved)
    assert len(set(prints(log_path))) == 3
    one = pl.int_range(pl.len()) == 300
    other = log.with_columns(click=pl.when(one).then(1 - pl.col("click")).otherwise("click"))
    assert prints(other) != prints(log)


def test_two_processes_at_once(log_path: Path, tmp_path: Path) -> None:
    results, errors = [], []

    def work() -> None:
        try:
            results.append(fit(log_path, tmp_path / "c")[1]["train"].labels())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert all(np.array_equal(r, results[0]) for r in results)
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_bad_rows_leave_no_entry(log: pl.DataFrame, tmp_path: Path) -> None:
    frame = log.with_columns(click=pl.int_range(pl.len()) >= 590)
    with pytest.raises(DataError, match="has only False in the training rows"):
        fit(frame, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


@pytest.mark.parametrize("full", [_spill.Spill, _shards.ShardWriter])
def test_a_full_disk_is_named(
    full: type, log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    encoder, _ = fit(log_path, tmp_path / "fine")
    monkeypatch.setattr(full, "append", refuse)
    monkeypatch.setattr(_spill.Spill, "close", refuse)
    with pytest.raises(DataError, match=r"c: has no room for the encoded rows \(No space left.*cache_dir"):
        fit(log_path, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []
    monkeypatch.setattr(_shards.ShardWriter, "append", refuse)
    with pytest.raises(DataError, match=r"has no room for the encoded rows .*TMPDIR"):
        encoder.encode(log_path)


def test_readers_survive_removal(log_path: Path, tmp_path: Path) -> None:
    _, parts = fit(log_path, tmp_path / "c")
    want = parts["train"].block(0, 50).categorical
    if os.name == "posix":
        shutil.rmtree(tmp_path / "c")
    np.testing.assert_array_equal(parts["train"].block(0, 50).categorical, want)


def test_prune_removes_the_oldest(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"e{i}").mkdir()
        (tmp_path / f"e{i}" / "x").write_bytes(b"0" * 1000)
        os.utime(tmp_path / f"e{i}", (i, i))
    (tmp_path / ".tmp-old").mkdir()
    os.utime(tmp_path / ".tmp-old", (1, 1))
    (tmp_path / ".tmp-new").mkdir()
    prune(tmp_path, keep=tmp_path / "e0", max_bytes=2000)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-new", "e0", "e2", "e3"]


def test_no_writable_cache(log_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    _, parts = fit(log_path, None)
    assert len(parts["train"]) == 420
    assert _cache.default_dir().parent.parent == tmp_path / "file"


def test_take_and_read(log_path: Path, tmp_path: Path) -> None:
    _, parts = fit(log_path, tmp_path / "c")
    train = parts["train"]
    whole = train.read(0, len(train))
    index = np.array([5, 0, 419, 5, -1])
    got = train.take(index)
    np.testing.assert_array_equal(got.features.categorical, whole.features.categorical[index])
    np.testing.assert_array_equal(got.labels, whole.labels[index])
    assert len(train.take([]).labels) == 0
    assert len(train.read(3, 3).labels) == 0
    with pytest.raises(IndexError, match="of a table with 420 rows"):
        train.take([420])
    loaded = np.load(train.folder / "categorical.npy", mmap_mode="r")
    np.testing.assert_array_equal(loaded, whole.features.categorical)
