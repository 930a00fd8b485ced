"""Every form of input opens, reads the same rows, and is refused in one line when it is broken."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import DataError, SchemaError
from graphrec.pipelines.tables import Table, TableEncoder, TableSchema, open_table
from graphrec.pipelines.tables.csv_reader import blocks


def read_all(table: Table, columns: list[str] | None = None, **options: object) -> pl.DataFrame:
    batches = list(table.batches(columns or list(table.columns), **options))  # type: ignore[arg-type]
    return pl.concat([pl.DataFrame(pl.from_arrow(b)) for b in batches])


FRAME = pl.DataFrame({"a": [1, 2, 3, 4], "b": ["x", "y", None, "x"], "y": [0, 1, 0, 1]})


def _write(kind: str, folder: Path) -> object:
    path = folder / f"t.{kind}"
    if kind == "parquet":
        FRAME.write_parquet(path)
    elif kind == "csv":
        FRAME.write_csv(path)
    elif kind == "tsv":
        FRAME.write_csv(path, separator="\t")
    elif kind == "arrow":
        FRAME.write_ipc(path)
    return path


SOURCES: dict[str, Callable[[Path], object]] = {
    **{k: lambda f, k=k: _write(k, f) for k in ("parquet", "csv", "tsv", "arrow")},  # type: ignore[misc]
    "string path": lambda f: str(_write("parquet", f)),
    "glob": lambda f: (_write("parquet", f), str(f / "*.parquet"))[1],
    "directory": lambda f: (_write("parquet", f), f)[1],
    "list": lambda f: [_write("parquet", f)],
    "LazyFrame": lambda f: FRAME.lazy(),
    "DataFrame": lambda f: FRAME,
    "pandas": lambda f: FRAME.to_pandas(),
    "Arrow table": lambda f: FRAME.to_arrow(),
    "Arrow batch": lambda f: FRAME.to_arrow().to_batches()[0],
    "Arrow reader": lambda f: FRAME.to_arrow().to_reader(),
    "lists": lambda f: FRAME.to_dict(as_series=False),
    "arrays": lambda f: {
        "a": np.arange(1, 5),
        "b": np.array(["x", "y", None, "x"], object),
        "y": np.array([0, 1, 0, 1]),
    },
}


@pytest.mark.parametrize("form", SOURCES)
def test_forms_read_the_same_rows(form: str, tmp_path: Path) -> None:
    table = open_table(SOURCES[form](tmp_path))
    assert list(table.columns) == ["a", "b", "y"]
    assert table.n_rows() == 4
    found = read_all(table).with_columns(pl.col("b").cast(pl.String), pl.col("a", "y").cast(pl.Int64))
    assert found.equals(FRAME)


def test_open_table_passes_tables_through() -> None:
    table = open_table(FRAME)
    assert open_table(table) is table


def test_glob_of_files_in_order_of_name(tmp_path: Path) -> None:
    for i in (1, 0, 2):
        FRAME.with_columns(a=pl.lit(i)).write_parquet(tmp_path / f"p{i}.parquet")
    table = open_table(str(tmp_path / "p*.parquet"))
    assert read_all(table)["a"].to_list() == [0] * 4 + [1] * 4 + [2] * 4
    assert table.n_rows() == 12


def test_directory_skips_markers_and_reads_partitions(tmp_path: Path) -> None:
    for day in ("1", "2"):
        (tmp_path / f"day={day}").mkdir()
        FRAME.write_parquet(tmp_path / f"day={day}" / "part.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden.parquet").write_text("no")
    table = open_table(tmp_path)
    assert read_all(table, ["a", "day"])["day"].cast(pl.String).to_list() == ["1"] * 4 + ["2"] * 4


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("year", ["2023", "2024"], [2023, 2024]),
        ("month", ["01", "02"], [1, 2]),
        ("day", ["2024-01-02", "2024-01-03"], [dt.date(2024, 1, 2), dt.date(2024, 1, 3)]),
        ("rate", ["0.5", "2"], [0.5, 2.0]),
        ("city", ["New%20York", "__HIVE_DEFAULT_PARTITION__"], ["New York", None]),
    ],
)
def test_folders_are_columns_whatever_the_format(
    name: str, values: list[str], found: list[object], tmp_path: Path
) -> None:
    tables = []
    for kind in ("parquet", "csv", "arrow"):
        for value in values:
            folder = tmp_path / kind / f"{name}={value}"
            folder.mkdir(parents=True)
            _write(kind, folder)
        table = open_table(tmp_path / kind)
        rows = read_all(table, [name])[name].to_list()
        assert rows == [v for v in found for _ in range(4)], kind
        assert table.collect(table.lazy.select(name))[name].to_list() == rows
        tables.append({**table.columns, "counts": table.value_counts(name)})
    assert tables[0] == tables[1] == tables[2]
    wanted = ["b", name, "a"]
    assert read_all(open_table(tmp_path / "csv"), wanted, text=wanted).columns == wanted


def test_empty_files_among_full_ones_are_fine(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.clear().write_parquet(tmp_path / "b.parquet")
    assert open_table(tmp_path).n_rows() == 4


@pytest.mark.parametrize("values", [[None, "x"], [None, 7, 8], [None, 0.5], [None], [None, ["a"], []]])
def test_arrays_of_objects_may_begin_with_none(values: list[object]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    table = open_table({"a": array})
    assert table.columns == open_table({"a": values}).columns
    assert read_all(table)["a"].to_list() == values


def test_batches_are_bounded_and_dictionary_coded(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.concat([FRAME] * 50).write_parquet(path, row_group_size=80)
    batches = list(open_table(path).batches(["b"], text=["b"], rows=64))
    assert max(b.num_rows for b in batches) <= 64
    assert sum(b.num_rows for b in batches) == 200
    assert all(pa.types.is_dictionary(b.column(0).type) for b in batches)


def test_csv_text_columns_keep_leading_zeros(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("zip,y\n007,0\n10,1\n")
    assert read_all(open_table(path), text=["zip"])["zip"].to_list() == ["007", "10"]


@pytest.mark.parametrize("quoted", [False, True])
def test_rows_of_too_few_values_are_counted(quoted: bool, tmp_path: Path) -> None:
    text = '"one, two\nthree"' if quoted else "plain"
    rows = [f"{i},{text},{i % 2}" for i in range(9)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_table(tmp_path / "t.csv").value_counts("y") == {"0": 5, "1": 4}
    rows[3], rows[7] = "333", "7,7"
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    table = open_table(tmp_path / "t.csv")  # which looks at the first rows only
    words = r"2 rows have fewer values than the header has columns.*'333' in .*t\.csv"
    with pytest.warns(UserWarning, match=words) as told:
        assert (table.value_counts("y")[None], table.n_rows()) == (2, 9)
    assert len(told) == 1


@pytest.mark.filterwarnings("ignore:.*skipped . blank")
def test_blank_lines_of_csv_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,y\n\n1,0\n\r\n\n2,1\n\n")
    assert read_all(open_table(tmp_path / "t.csv")).rows() == [(1, 0), (2, 1)]
    (tmp_path / "q.csv").write_bytes(b'a,y\n"x\n\nz",0\n\n2,1\n\n\n')
    assert read_all(open_table(tmp_path / "q.csv")).rows() == [("x\n\nz", 0), ("2", 1)]
    (tmp_path / "one.csv").write_bytes(b"a\n1\n\n2\n")
    assert read_all(open_table(tmp_path / "one.csv")).rows() == [(1,), (None,), (2,)]


@pytest.mark.parametrize("quoted", [False, True])
def test_every_query_on_csv_has_the_same_rows(quoted: bool, tmp_path: Path) -> None:
    text = b'"x\n\n z"' if quoted else b"x"
    lines = [b"a,s,w", b"1,%s,.5" % text, b"", b"2,y,2", b"  ", b"\r", b"3,z,3", b"", b""]
    (tmp_path / "t.csv").write_bytes(b"\n".join(lines))
    table = open_table(tmp_path / "t.csv")
    with pytest.warns(UserWarning, match=r"t\.csv: skipped 3 blank lines between rows") as told:
        assert table.n_rows() == 3
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table.collect(table.lazy)["a"].to_list() == [1, 2, 3]
        assert table.collect(table.lazy.select(pl.len())).item() == 3
        assert table.collect(table.lazy.select(pl.col("w").null_count())).item() == 0
        assert table.collect(table.lazy.select("w").head(2))["w"].to_list() == [0.5, 2.0]
        assert table.collect(table.lazy.filter(pl.col("a") > 1).select("s"))["s"].to_list() == ["y", "z"]
        assert read_all(table)["w"].to_list() == [0.5, 2.0, 3.0]
    schema = TableSchema.infer(table.lazy.with_columns(y=pl.col("a") % 2).collect(), "y", weight="w")
    (tmp_path / "u.csv").write_bytes(b"a,s,w,y\n1,x,.5,0\n\n2,y,1,1\n")
    with pytest.warns(UserWarning, match="skipped 1 blank line between rows"):
        schema.check(tmp_path / "u.csv", require_labels=True)  # no weight is missing
    (tmp_path / "end.csv").write_bytes(b"a,s,w\n1,x,.5\n2,y,1\n\n \n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_all(open_table(tmp_path / "end.csv")).height == 2


def test_names_of_csv_may_hold_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'"a,\nb",y\r\n1,0\r\n2,1\r\n')
    table = open_table(tmp_path / "t.csv")
    assert read_all(table).to_dict(as_series=False) == {"a,\nb": [1, 2], "y": [0, 1]}
    (tmp_path / "half.csv").write_bytes(b'a,5" disc\n1,2\n3,4\n')
    with pytest.raises(
        DataError, match=r"half\.csv: a name in its header opens or closes with a quote alone"
    ):
        open_table(tmp_path / "half.csv")


def test_blanks_after_the_separators_change_nothing(tmp_path: Path) -> None:
    lines = ["y, age, gain, job", *(f"{i % 2}, {20 + i}, {i * 37}, clerk {i % 3}" for i in range(90))]
    (tmp_path / "blanks.csv").write_text("\n".join(lines))
    (tmp_path / "plain.csv").write_text("\n".join(lines).replace(", ", ","))
    blanks, plain = (TableSchema.infer(tmp_path / name, "y") for name in ("blanks.csv", "plain.csv"))
    assert [(c.name, c.role) for c in blanks.columns] == [(c.name, c.role) for c in plain.columns]
    encoder = TableEncoder(blanks)
    part = encoder.fit_encode(tmp_path / "blanks.csv")["train"]
    other = encoder.encode(pl.read_csv(tmp_path / "plain.csv").with_columns(job=" " + pl.col("job")))
    assert torch.equal(part.read(0, 90).features.numeric, other.read(0, 90).features.numeric)


def test_a_first_line_of_values_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("0,2,68fd1e64,0,ab\n1,3,68fd1e64,0,cd\n")
    with pytest.raises(DataError, match=r"t\.csv: its first line holds values, not column names"):
        open_table(tmp_path / "t.csv")


def test_csv_numbers_beyond_64_bits_are_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"a,y\n{2**64},0\n{2**130},1\n")
    assert read_all(open_table(tmp_path / "t.csv"))["a"].to_list() == [str(2**64), str(2**130)]


def test_gzipped_csv(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,y\n1,0\n2,1\n"))
    assert read_all(open_table(path))["a"].to_list() == [1, 2]


def test_fingerprint_notices_changes(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    FRAME.write_parquet(path)
    before = open_table(path).fingerprint()
    assert open_table(path).fingerprint() == before
    stat = path.stat()
    FRAME.with_columns(a=pl.Series([1, 2, 3, 5])).write_parquet(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same time, perhaps same size: bytes decide
    assert open_table(path).fingerprint() != before
    assert open_table(FRAME).fingerprint() == open_table(FRAME.clone()).fingerprint()
    assert open_table(FRAME).fingerprint() != open_table(FRAME.reverse()).fingerprint()
    assert open_table(FRAME).fingerprint() != open_table(FRAME.rename({"a": "c"})).fingerprint()


def _duplicate_parquet(path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), path)


def _truncated(path: Path) -> None:
    FRAME.write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])


BROKEN: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("t.parquet", lambda p: None, "no such file", "t.parquet"),
    ("t.parquet", lambda p: p.touch(), "0 bytes", "t.parquet"),
    ("t.csv", lambda p: p.touch(), "0 bytes", "t.csv"),
    ("t.parquet", lambda p: p.write_text("a,b\n1,2\n"), "not a parquet file", "give it a .csv"),
    ("t.parquet", lambda p: p.write_bytes(b"\x00\x01\x02" * 9), "not a parquet file", "PAR1"),
    ("t.parquet", _truncated, "truncated", "copy it again"),
    ("t.parquet", lambda p: p.write_bytes(b"PAR1" + b"x" * 99 + b"PAR1"), "broken parquet", "t.parquet"),
    ("t.parquet", lambda p: FRAME.clear().write_parquet(p), "holds no rows", "t.parquet"),
    ("t.parquet", _duplicate_parquet, "'a' occurs 2 times", "rename"),
    ("t.csv", lambda p: p.write_text("a,b,a\n1,2,3\n"), "'a' occurs 2 times", "rename"),
    ("t.csv", lambda p: p.write_text("a,b\n"), "no rows", "header"),
    ("t.csv", lambda p: p.write_text("0,1.5,1.5,ab\n1,2,3,cd\n"), "header line", "t.csv"),
    ("t.csv", lambda p: p.write_bytes(b"\xff\xfe\x00a\n1\n"), "not a text file", "UTF-8"),
    ("t.csv", lambda p: p.write_bytes(b"a,b\r1,2\r"), "carriage returns alone", "write them with"),
    ("t.csv", lambda p: p.write_bytes(b"a,b\n\xe9,2\n"), "invalid utf-8", "convert it to UTF-8"),
    ("t.csv", lambda p: p.write_text("a,b\n1,2,3\n"), "more values than the header", "quote"),
    ("t.csv.gz", lambda p: p.write_bytes(gzip.compress(b"a,b\n1,2\n" * 99)[:-9]), "is truncated", "again"),
    ("t.xyz", lambda p: p.write_text("a"), "format is not clear", "extension"),
    ("t.arrow", lambda p: p.write_bytes(b"ARROW1" + b"x" * 50), "truncated", "t.arrow"),
]


@pytest.mark.parametrize(("name", "make", "words", "also"), BROKEN, ids=[f"{b[0]} {b[2]}" for b in BROKEN])
def test_broken_files_are_refused_in_one_line(
    name: str, make: Callable[[Path], object], words: str, also: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(DataError) as caught:
        open_table(path)
    message = str(caught.value)
    assert words in message
    assert also in message
    assert str(path) in message
    assert "\n" not in message


def test_no_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pq.ParquetWriter(path, pa.schema([("a", pa.int64())])):
        pass
    with pytest.raises(DataError, match="holds no rows"):
        open_table(path)


def test_glob_without_match_and_near_miss(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file matches this pattern"):
        open_table(str(tmp_path / "*.parquet"))
    FRAME.write_parquet(tmp_path / "clicks.parquet")
    with pytest.raises(DataError, match=r"did you mean 'clicks\.parquet'"):
        open_table(tmp_path / "click.parquet")
    with pytest.raises(DataError, match="does not exist either"):
        open_table(tmp_path / "nowhere" / "t.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no parquet"):
        open_table(tmp_path / "empty")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user without all rights")
def test_unreadable_path(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    FRAME.write_parquet(path)
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        open_table(path)


def test_unreadable_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    path = tmp_path / "t.parquet"
    FRAME.write_parquet(path)
    real = builtins.open

    def refuse(file: object, *args: object, **kwargs: object) -> object:
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be opened \(Permission denied\)"):
        open_table(path)


def test_files_of_a_glob_with_different_schemas(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.with_columns(pl.col("a").cast(pl.Float64)).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match=r"b\.parquet: column 'a' is double but int64 in .*a\.parquet"):
        open_table(tmp_path)
    FRAME.drop("b").write_parquet(tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match=r"b\.parquet: column 'b' is missing"):
        open_table(tmp_path)
    FRAME.with_columns(z=1).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match=r"b\.parquet: column 'z' is not in .*a\.parquet"):
        open_table(tmp_path)


def test_csv_files_with_different_headers(tmp_path: Path) -> None:
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.drop("b").write_csv(tmp_path / "b.csv")
    with pytest.raises(SchemaError, match=r"b\.csv: column 'b' is missing"):
        open_table(str(tmp_path / "*.csv"))


def test_mixed_formats(tmp_path: Path) -> None:
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="one format"):
        open_table(tmp_path)


def test_damaged_pages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": np.random.default_rng(0).random(20_000)}).write_parquet(path)
    data = bytearray(path.read_bytes())
    data[100:2000] = b"\xff" * 1900
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"t\.parquet"):
        read_all(open_table(path))


def test_memory_is_checked() -> None:
    with pytest.raises(SchemaError, match="'a' occurs 2 times"):
        open_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(SchemaError, match="'a' occurs 2 times"):
        open_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))
    with pytest.raises(DataError, match="'b' mixes types"):
        open_table(pd.DataFrame({"a": [1, 2], "b": [1, "x"]}))
    with pytest.raises(DataError, match="'b' has 1 values, the ones before it 2"):
        open_table({"a": [1, 2], "b": [1]})
    with pytest.raises(DataError, match="holds no rows"):
        open_table(FRAME.clear())
    with pytest.raises(DataError, match="holds no rows"):
        open_table(FRAME.lazy().filter(pl.col("a") > 99))
    with pytest.raises(DataError, match="cannot read rows from int"):
        open_table(5)


def test_lazy_errors_are_one_line() -> None:
    with pytest.raises(DataError, match="the lazy frame: cannot be read") as caught:
        open_table(FRAME.lazy().select("nope"))
    assert "\n" not in str(caught.value)


def test_local_and_cloud_paths_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mixed"):
        open_table([str(tmp_path), "s3://bucket/t.parquet"])


def test_import_loads_neither_torch_nor_polars() -> None:
    code = (
        "import sys, graphrec.pipelines.tables as t; "
        "t.TableSchema, t.open_table, t.TableEncoder, t.BatchLoader; "
        "print('torch' in sys.modules, 'polars' in sys.modules, 'pyarrow' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"] * 3


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.text('ab",\n', max_size=6), st.integers(0, 99)), min_size=1, max_size=30),
    st.integers(1, 40),
)
def test_csv_blocks_end_at_rows(rows: list[tuple[str, int]], size: int) -> None:
    import csv
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("a\nb", "n"), *rows])
        parts = list(blocks(str(path), size))
    header = b'"a\nb","n"\n'
    assert all(p.startswith(header) for p in parts)
    text = b"".join(p[len(header) :] for p in parts).decode()
    assert [(a, int(n)) for a, n in csv.reader(io.StringIO(text, newline=""))] == rows
    for part in parts:
        assert part.count(b'"') % 2 == 0


def test_csv_memory_does_not_hold_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec.pipelines.tables import csv_reader

    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{i},x{i}\n" for i in range(5000)))
    monkeypatch.setattr(csv_reader.blocks, "__defaults__", (1000,))
    table = open_table(path)
    batches = list(table.batches(["b", "a"]))
    assert len(batches) > 20
    assert pa.concat_tables([pa.Table.from_batches([b]) for b in batches])["a"].to_pylist() == list(
        range(5000)
    )
    assert table.n_rows() == 5000


def test_times_of_a_zone_without_a_name_are_refused_by_column(tmp_path: Path) -> None:
    """Polars panics on such files."""
    times = pa.array([dt.datetime(2024, 1, 1), None]).cast(pa.timestamp("us", "+05:30"))
    table = pa.table({"a": [1, 2], "when": times})
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    lists = pa.table({"a": [1], "when": pa.array([[times[0].as_py()]], pa.list_(times.type))})
    for data in (tmp_path / "t.parquet", tmp_path / "t.arrow", table, table.to_pandas(), lists):
        with pytest.raises(SchemaError, match=r"column 'when' is .*no zone '\+05:30'; convert it to UTC"):
            open_table(data)
    for zone in ("UTC", "+00:00", "Asia/Kolkata"):
        known = table.set_column(1, "when", times.cast(pa.timestamp("us", zone)))
        assert open_table(known).columns["when"].time_zone is not None  # type: ignore[attr-defined]


def test_csv_without_a_last_newline_and_with_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,x\r\n2,y")
    assert read_all(open_table(path)).rows() == [(1, "x"), (2, "y")]
