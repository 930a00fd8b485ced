"""The table of launch settings and the tuner that refills it; only the timing itself needs a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from graphrec.kernels import attention, explain, table, tune
from graphrec.kernels.configs import AttentionConfig, attention_config, look_up
from graphrec.kernels.workloads import SHARED, WORKLOADS, Settings

SOURCE = "measured on a test"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration folder of the test's own, and no GPU or interpreter."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    table.forget()
    yield tmp_path
    table.forget()


def flat(case: tune.Case, settings: Settings) -> float:
    """Pretends that large tiles and few warps are fast."""
    return 1000 / settings.get("bm", 1) + settings["warps"]


def wanted(*dims: int, kind: str = "sm_90") -> list[tune.Case]:
    return tune.cases(["attention"], dims, ["bfloat16"], kind)


def command(*arguments: str) -> Result:
    import typer

    app = typer.Typer()
    app.command()(tune.main)
    return CliRunner().invoke(app, list(arguments))


def test_shipped_rows_are_sound() -> None:
    rows = table.read(table.SHIPPED)
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        assert row.source
        assert all(value & (value - 1) == 0 for name, value in row.settings.items() if name != "stages")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 16, 53, 64, 128, 200, 1000])
@pytest.mark.parametrize("interpreted", [True, False])
def test_every_dimension_has_settings(dim: int, dtype: torch.dtype, interpreted: bool) -> None:
    config = attention_config(dim, dtype, interpreted)
    assert config.bn % 32 == 0
    assert (config.bm, config.bn) == (64, 64) or not interpreted


def test_the_nearest_row_from_above_holds_and_an_own_architecture_goes_first() -> None:
    def row(kind: str, dim: int, bm: int) -> table.Row:
        settings = {"bm": bm, "bn": 32, "warps": 4, "stages": 1}
        return table.Row("attention", kind, dim, "float32", settings, SOURCE)

    table.write(table.user_file(), [row("sm_90", 64, 16), row("sm_90", 128, 128), row("any", 64, 64)])
    table.forget()
    sizes = {dim: table.find("attention", dim, torch.float32, "sm_90") for dim in (16, 64, 65, 256)}
    assert {dim: found and found.settings["bm"] for dim, found in sizes.items()} == {
        16: 16, 64: 16, 65: 128, 256: 128,
    }  # fmt: skip
    assert attention_config(64, torch.float32).bm == 64
    assert attention_config(32, torch.float32).bm == 32, "the shipped row for 32 stays"


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no launch settings for nothing with"):
        look_up("nothing", AttentionConfig, 16, torch.float32, False)
    table.write(table.user_file(), [table.Row("attention", "any", 16, "float32", {"bq": 16})])
    table.forget()
    with pytest.raises(ValueError, match="bq"):
        attention_config(16, torch.float32)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": 99, "rows": []}',
        '{"format": 1}',
        '{"format": 1, "rows": [{"operator": "attention"}]}',
        '{"format": 1, "rows": [{"operator": "a", "architecture": "any", "dim": 16, "dtype": "float32",'
        ' "settings": {"bm": "large"}}]}',
    ],
)
def test_a_broken_file_is_named(text: str) -> None:
    table.user_file().parent.mkdir(parents=True)
    table.user_file().write_text(text)
    with pytest.raises(ValueError, match=r"kernels.json is no table .*mend or remove it"):
        attention_config(32, torch.float32)


def test_a_refilled_table_changes_what_explain_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    q = torch.randn(1, 1, 200, 32, dtype=torch.bfloat16)
    before = explain(attention, q, q, q, backend="triton").details
    assert before["tiles"] == "64 x 64"
    tune.fill(table.user_file(), wanted(32, kind="interpreter"), flat, SOURCE)
    after = explain(attention, q, q, q, backend="triton").details
    assert after["tiles"] == "128 x 32"
    assert after["settings from"] == f"{SOURCE} (row interpreter, dim 32, bfloat16, 11.81 ms)"
    assert after["warps"] == 4


def test_filling_takes_the_fastest_that_fits_and_keeps_other_rows(home: Path) -> None:
    path = home / "own.json"
    other = table.Row("attention", "sm_80", 32, "float32", {"bm": 16}, "elsewhere")
    table.write(path, [other])

    def timer(case: tune.Case, settings: Settings) -> float | None:
        return None if settings["bm"] > 32 else flat(case, settings)

    [row] = tune.fill(path, wanted(64), timer, SOURCE)
    assert row.settings["bm"] == 32
    assert row.milliseconds == pytest.approx(flat(wanted(64)[0], dict(row.settings)))
    assert {one.key for one in table.read(path)} == {other.key, row.key}
    assert not [one for one in home.iterdir() if one != path], "a temporary file is left"
    assert tune.fill(path, wanted(128), lambda *_: None, SOURCE) == []


def test_a_stop_loses_one_row_and_the_next_start_goes_on(home: Path) -> None:
    path, seen = home / "own.json", []

    def stops(case: tune.Case, settings: Settings) -> float:
        seen.append(case.dim)
        if case.dim == 64:
            raise KeyboardInterrupt
        return flat(case, settings)

    with pytest.raises(KeyboardInterrupt):
        tune.fill(path, wanted(32, 64, 128), stops, SOURCE)
    assert [row.dim for row in table.read(path)] == [32]
    told: list[tuple[int, int]] = []
    made = tune.fill(
        path, wanted(32, 64, 128), flat, SOURCE, tell=lambda case, number, _: told.append((case.dim, number))
    )
    assert [row.dim for row in made] == [64, 128]
    assert (32, 0) not in told
    assert (64, 0) in told
    assert tune.fill(path, wanted(32, 64), flat, SOURCE) == []
    assert len(tune.fill(path, wanted(32), flat, "another GPU")) == 1
    assert len(tune.fill(path, wanted(32), flat, "another GPU", again=True)) == 1


def test_settings_on_trial_go_first_and_only_while_tried() -> None:
    before = attention_config(64, torch.bfloat16)
    with table.trying("attention", {"bm": 16, "bn": 64, "warps": 2, "stages": 3}):
        assert attention_config(64, torch.bfloat16) == AttentionConfig(16, 64, 2, 3)
    assert attention_config(64, torch.bfloat16) == before


@pytest.mark.parametrize("operator", WORKLOADS)
def test_candidates_respect_the_architecture(operator: str) -> None:
    work = WORKLOADS[operator]
    for dim in work.dims:
        for dtype in (torch.float32, torch.bfloat16):
            small, large = (list(work.candidates(dim, dtype, kind)) for kind in ("sm_89", "sm_90"))
            assert len(small) >= 2
            assert all(one in large for one in small)
    assert SHARED["sm_89"] < SHARED["sm_90"]


@pytest.mark.parametrize("operator", WORKLOADS)
def test_workloads_run(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step gives an output and a gradient per input, the same on every backend that runs here."""
    step = WORKLOADS[operator].steps(16, torch.float32, torch.device("cpu"))[0]
    found = step("torch")
    assert len(found) >= 2
    assert all(one.isfinite().all() for one in found)
    assert tune.CudaTimer._agrees(lambda _: found, found)
    assert not tune.CudaTimer._agrees(lambda _: [found[0] * 1.1, *found[1:]], found)


def test_the_command_lists_and_refuses(home: Path) -> None:
    listed = command("attention", "--dim", "32", "--dtype", "float32", "--dry-run")
    assert listed.exit_code == 0
    assert "attention dim 32 float32 on sm_90:" in listed.output
    assert "1 rows" in listed.output
    assert not (home / "graphrec").exists()
    refused = command("attention")
    assert refused.exit_code == 2
    assert "none is here" in refused.stderr or "triton is not installed" in refused.stderr
    assert "--dry-run" in refused.stderr
    for bad in (["nothing", "--dry-run"], ["--dtype", "int8", "--dry-run"], ["--dim", "20", "--dry-run"]):
        wrong = command(*bad)
        assert wrong.exit_code == 2
        assert "must be" in wrong.stderr


def test_the_interpreter_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "interpreter's time says nothing" in (tune.refusal() or "")


def test_the_command_measures_writes_and_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU pretended and the timing replaced, the command does all that it says."""
    monkeypatch.setattr(tune, "refusal", lambda: None)
    monkeypatch.setattr(tune, "origin_of_times", lambda: SOURCE)
    monkeypatch.setattr(tune, "CudaTimer", lambda repeats: flat)
    monkeypatch.setattr(table, "architecture", lambda device=None: "sm_90")
    first = command("--dim", "32", "--dtype", "bfloat16")
    assert first.exit_code == 0
    assert f"{len(WORKLOADS)} rows measured, 0 kept" in first.output
    held = json.loads(table.user_file().read_text())
    assert held["rows"][0]["source"] == SOURCE
    assert attention_config(32, torch.bfloat16).bm == 128
    again = command("--dim", "32", "--dtype", "bfloat16")
    assert f"0 rows measured, {len(WORKLOADS)} kept" in again.output
    assert "in the file already" in command("--dim", "32", "--dtype", "bfloat16", "--dry-run").output
    other = home / "other.json"
    assert command("--dim", "16", "--dtype", "float32", "--output", str(other)).exit_code == 0
    assert [row.dim for row in table.read(other)] == [16] * len(WORKLOADS)
    dtypes = {row.operator: row.dtype for row in table.read(other)}
    assert (dtypes["attention"], dtypes["scan"]) == ("float32", "any")


def test_rows_go_before_rules() -> None:
    from graphrec.kernels.configs import tabled
    from graphrec.kernels.linear.settings import NONE, SCALAR, linear_config
    from graphrec.kernels.scan.settings import scan_config

    rule = scan_config(100), linear_config(64, 64, torch.float32, NONE)
    table.write(
        table.user_file(),
        [
            table.Row("scan", "any", 128, "any", {"bt": 64}, SOURCE),
            table.Row("gated_linear_attention", "any", 64, "float32", {"warps": 2}, SOURCE),
            table.Row("broken", "any", 64, "any", {"bq": 2}, SOURCE),
        ],
    )
    table.forget()
    assert scan_config(100).bt == 64
    assert scan_config(100).bd == rule[0].bd
    assert scan_config(100, interpreted=True).bt == 64, "rows for any architecture hold everywhere"
    assert linear_config(64, 64, torch.float32, SCALAR).warps == 2
    assert linear_config(64, 64, torch.float32, NONE) == rule[1]

    @tabled("broken", by="dim")
    def config(dim: int) -> AttentionConfig:
        return AttentionConfig(16, 32, 4, 1)

    with pytest.raises(ValueError, match="bq"):
        config(64)
