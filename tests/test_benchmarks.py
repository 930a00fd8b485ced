"""The benchmark scripts measure what they say: the data are the described ones, CPU time counts children."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
BURN = "import time\nwhile time.process_time() < 0.3: pass"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER / "workers")
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in set(sys.modules) - before:
        if str(FOLDER) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def common(scripts: None) -> ModuleType:
    """The module benchmarks/common.py."""
    import common

    return common


def test_data_are_as_described_and_a_longer_file_begins_with_a_shorter_one(
    scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import make_ctr

    monkeypatch.setattr(make_ctr, "BLOCK", 5_000)
    facts = make_ctr.make(10_050, tmp_path / "long.parquet", seed=7)
    make_ctr.make(2_000, tmp_path / "short.parquet", seed=7)
    long, short = pq.read_table(tmp_path / "long.parquet"), pq.read_table(tmp_path / "short.parquet")
    assert long.num_rows == 10_050
    assert long.slice(0, 2_000).equals(short)
    assert long.column_names == ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    assert facts["base_rate"] == pytest.approx(0.3175, abs=0.02)
    assert facts["bayes_auc"] == pytest.approx(0.8755, abs=0.015)
    assert long["C18"].null_count / long.num_rows == pytest.approx(0.4, abs=0.02)


def test_clock_counts_processes_that_have_ended(scripts: None) -> None:
    from meter import Clock

    clock = Clock()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    _, cpu = clock.read()
    assert cpu >= 0.29


def test_steps_leave_the_warm_up_out(scripts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import meter

    seconds = iter([0.0, 100.0, 103.0])
    monkeypatch.setattr(meter.time, "process_time", lambda: next(seconds))
    steps = meter.Steps(warmup=2)
    for rows in (1000, 1000, 10, 10, 10):
        steps.tick(rows)
    found = steps.stop()
    assert found["steps"] == 3
    assert found["rows_per_cpu_second"] == 10


def test_jobs_alternate_and_a_failing_worker_is_reported(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def work(job: object, threads: int) -> dict[str, float]:
        order.append(job.name)
        return {"cpu": float(len(order)), "versions": {}}

    jobs = [common.Job(name, "import", sys.executable, {}) for name in "ab"]
    with pytest.raises(common.WorkerError, match="a: exit 1"):
        common.work(jobs[0], threads=1)
    monkeypatch.setattr(common, "work", work)
    common.interleave(jobs, 3, threads=1)
    assert "".join(order) == "ababab"
    assert [common.median(job, "cpu") for job in jobs] == [3, 4]
    assert common.ratio(jobs[1], jobs[0], "cpu") == "1.33"
    assert common.spread(jobs[0], "cpu") == "3.0 (1.0 to 5.0)"


def test_record_keeps_runs_and_no_paths(
    common: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    job = common.Job("a", "import", sys.executable, {"data": str(tmp_path), "steps": 3})
    job.runs = [{"cpu": 1.0, "versions": {"torch": "9"}}]
    common.record("name", "Title", "Text", [job], argparse.Namespace(dry=False, threads=1))
    page, facts = (tmp_path / "name.md").read_text(), (tmp_path / "name.json").read_text()
    assert page.startswith("## Title\n\nText")
    assert "torch 9" in page
    assert str(tmp_path) not in page + facts


CASE = {"grid": 8, "kernel": 4, "shift": 2, "bias": True, "heads": 2, "dim": 4, "dtype": "float32"}
CASE |= {"pattern": "windows", "backward": True, "repeats": 2, "least": 0.0}


def test_forms_of_attention_agree_before_they_are_timed(scripts: None) -> None:
    import run_attention as worker

    contenders = [worker.OURS, worker.WINDOWED, worker.WINDOWED_FUSED]
    found = worker.time_all({**CASE, "exact": worker.WINDOWED, "contenders": contenders})
    assert {name: len(times) for name, times in found["runs"].items()} == dict.fromkeys(contenders, 2)
    plain = {
        **CASE,
        "pattern": "neighborhood",
        "kernel": 3,
        "shift": 0,
        "bias": False,
        "exact": worker.MASKED,
    }
    for dtype in ("float32", "bfloat16"):
        worker.time_all({**plain, "dtype": dtype, "contenders": [worker.OURS, worker.MASKED]})
    wrong = {**CASE, "bias": False, "exact": worker.MASKED, "contenders": [worker.WINDOWED]}
    with pytest.raises(ArithmeticError, match="timm's window attention differs"):
        worker.time_all({**wrong, "shift": 0, "pattern": "neighborhood"})


def test_tables_of_attention_name_every_contender(scripts: None) -> None:
    import attention_cpu
    import attention_memory

    cases = attention_cpu.make_cases(repeats=2, natten=True)
    assert len({case.name for case in cases}) == len(cases) == 28
    run = {"ms": 2.0, "versions": {}}
    jobs = [[attention_cpu.common.Job(f"{name}: {case.name}", "attention", "", {}, [run]) for name in "ab"]
            for case in cases]  # fmt: skip
    page = attention_cpu.text(jobs)
    assert all(f"| {case.name} | {name} | 2.0 | 1.00 |" in page for case in cases for name in "ab")
    memory = attention_memory.make_jobs()
    for job in memory:
        job.runs = [{"added_mb": 1.0, "peak_mb": 2.0}]
    assert "| kernel 13 at 128x128 | graphrec | 2,768,896 of 268,435,456 | 1 | 2 |" in attention_memory.text(
        memory
    )


def small_gpu_cases(forms: ModuleType) -> list[object]:
    """The kinds of cases that need a GPU only for their time and size."""
    from graphrec.kernels.patterns import Causal, Neighborhood, Window, Windows

    size = 1, 2, 64, 16
    windows = {forms.UNFOLDED: forms.unfolded(8, 4)}
    return [
        forms._softmax_case("windows", Windows((8, 8), 4), size, {**windows, forms.SDPA: forms.masked(
            Windows((8, 8), 4), 64)}, {}),
        forms._softmax_case("neighborhood", Neighborhood((8, 8), 3), size, {}, {}),
        forms._softmax_case("causal window", Window(9, 0) & Causal(), size, {}, {}),
        forms.block_case(64, 16, 2, 2, 16),
    ]  # fmt: skip


def test_forms_for_a_gpu_agree(scripts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU FlexAttention has no gradients, and runs uncompiled here."""
    import kernels_gpu

    forms = kernels_gpu.forms
    monkeypatch.setattr(forms, "_compiled", lambda function: function)
    for case in small_gpu_cases(forms):
        with torch.no_grad():
            given = [one.detach() for one in case.inputs(torch.device("cpu"), torch.float32)]
            want = case.exact(torch.device("cpu"))(*given)
            for name in case.forms.keys() - {forms.DENSE}:
                found = case.forms[name](torch.device("cpu"))(*given)
                torch.testing.assert_close(found, want, msg=lambda text, n=name: f"{n}: {text}")
        steps, left_out = kernels_gpu.steps_of(case, torch.device("cpu"), "float32")
        assert set(left_out) == {forms.FLEX}
        assert "backward on CPU" in left_out[forms.FLEX]
        assert set(steps) == set(case.forms) - {forms.FLEX}
    wrong = {**case.forms, "wrong": lambda device: lambda q, k, v: q + k + v}
    assert (
        "differs"
        in kernels_gpu.steps_of(
            forms.Case("", case.sizes, wrong, case.exact), torch.device("cpu"), "float32"
        )[1]["wrong"]
    )


def test_gpu_benchmark_lists_refuses_and_judges(
    scripts: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import kernels_gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kernels_gpu.main(["--dry"]) == 0
    listed = capsys.readouterr().out
    for name in (
        "windows 7 at 56x56",
        "neighborhood 13",
        "causal window 1,024 at 65,536",
        "1/16",
        "scan at 65,536",
    ):
        assert name in listed
    assert kernels_gpu.main([]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    case = next(one for one in kernels_gpu.forms.cases() if one.name.startswith("neighborhood 7"))
    ours, mask = kernels_gpu.forms.OURS, kernels_gpu.forms.SDPA
    assert "0.40 of SDPA with a mask (goal 0.5): yes" in kernels_gpu.verdicts(
        case, {ours: [2.0], mask: [5.0]}
    )
    assert "0.67 of SDPA with a mask (goal 0.5): NO" in kernels_gpu.verdicts(case, {ours: [2.0], mask: [3.0]})


SQUARE = """
def square(settings, root, device):
    if settings["number"] == 3:
        raise ValueError("three")
    return {"square": settings["number"] ** 2 / 100}
"""


@pytest.mark.slow
def test_a_grid_goes_on_from_its_file(
    scripts: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import grid

    (tmp_path / "squares.py").write_text(SQUARE)
    monkeypatch.syspath_prepend(tmp_path)
    square = importlib.import_module("squares").square
    runs = tmp_path / "runs.jsonl"
    options = argparse.Namespace(
        root=tmp_path, runs=runs, jobs=2, device="cpu", minutes=float("inf"), report=False
    )
    first = grid.run(square, [{"number": 1, "row": "a"}, {"number": 2, "row": "a"}], options)
    assert sorted(one["figures"]["square"] for one in first) == [0.01, 0.04]
    runs.write_text(runs.read_text() + '{"settings": {"numb')  # killed while it wrote
    with pytest.raises(SystemExit, match="three"):
        grid.run(square, [{"number": number, "row": "a"} for number in (1, 3, 4)], options)
    assert "1 of 3 runs are there" in capsys.readouterr().err
    options.report = True
    lines = grid.run(square, [{"number": number, "row": "a"} for number in (1, 4)], options)
    assert grid.chart(lines, ("row",), "number", "square") == [
        ["row", "1", "4"],
        ["a", "1.0 ± 0.0 (1)", "16.0 ± 0.0 (1)"],
    ]
    assert grid.percent([0.1, 0.2, 0.3]) == "20.0 ± 10.0 (3)"


def test_every_backbone_of_the_benchmark_has_a_peer(scripts: None) -> None:
    import vision_cpu
    import vision_peers

    from graphrec import vision

    assert vision_cpu.MODELS.keys() == vision_peers.PEERS.keys()
    assert vision_cpu.MODELS.keys() <= set(vision.list_models())


def test_only_the_operator_brings_the_far_corner_to_the_classifier(scripts: None) -> None:
    """Every breakage hits what the system calls, and with it the reading sees nothing of the far quarter."""
    import vision_learning

    from graphrec import vision

    systems = {vision.family(one.variant).card.name for one in vision_learning.SYSTEMS.values()}
    everything = {vision.family(name).card.name for name in vision.list_models()}
    assert everything - systems <= {"ecanet_mobilenetv2"}
    for name, system in vision_learning.SYSTEMS.items():
        torch.manual_seed(0)
        size, corner = system.size, {"backbone.Backbone._run": vision_learning.to_corner}
        model = vision.create_model(system.variant, num_classes=3, img_size=size, **system.options).eval()
        near = torch.rand(1, 3, size, size)
        far = near.clone()
        far[..., size // 2 :, size // 2 :] = 0
        moved = []
        with torch.no_grad():
            for one in model.parameters():  # scales that start at zero would hide the operator
                one.add_(0.1 * torch.randn_like(one))
            for broken in ({}, system.broken):
                with vision_learning.breaking(corner | broken):
                    moved.append(float((model(near) - model(far)).abs().max()))
        assert moved[0] > 0, name
        # MaxViT's squeeze-and-excitation, which is not what is broken, sees all of the map too.
        assert (moved[1] == 0) == (name != "maxvit"), (name, moved)
        assert moved[1] < moved[0], (name, moved)


def test_neighborhoods_without_natten_are_neighborhoods(scripts: None) -> None:
    from vision_peers import DenseNeighborhoods

    from graphrec.vision.layers import NeighborhoodAttention

    ours = NeighborhoodAttention(8, 2, kernel=(3, 3), dilation=2)
    peer = DenseNeighborhoods(8, 2, 3, 2)
    peer.load_state_dict(ours.state_dict())
    for size in ((7, 9), (4, 8)):
        x = torch.randn(2, *size, 8)
        torch.testing.assert_close(peer(x), ours(x), rtol=1e-5, atol=1e-6)


def test_backbones_are_recorded_as_they_finish(
    common: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vision_cpu

    asked: list[str] = []

    def work(case: object, threads: int) -> dict[str, object]:
        asked.append(case.name)
        if len(asked) == 2:
            raise common.WorkerError("stopped")
        both = {"graphrec": [1.0], "peer": [2.0]}
        return {
            "runs": {"forward": both},
            "shares": {"forward": 0.25},
            "memory": {"graphrec": (3.0, 1.0), "peer": (4.0, 2.0)},
            "versions": {"torch": "2"},
            "load": 0.1,
            "commit": "abc",
        }

    monkeypatch.setattr(common, "work", work)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    arguments = ["vision_cpu.py", "--only", "swin_tiny_", "convnext_tiny", "--resume"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(common.WorkerError):
        vision_cpu.main()
    vision_cpu.main()
    assert [name.split("_")[0] for name in asked] == ["swin", "convnext", "convnext"]
    page = (tmp_path / "vision_cpu.md").read_text(encoding="utf-8")
    asked_of = "| model | batch 1, forward | batch 2, peak memory of a training step |"
    assert asked_of in page
    assert "| swin_tiny_patch4_window7_224 | 0.50 (1 / 2 ms) | 0.75 (3 / 4 MB, of files 1 / 2) |" in page
    assert not (tmp_path / "vision_cpu.partial.json").exists()
    monkeypatch.setattr(sys, "argv", ["vision_cpu.py", "--only", "davit", "swin", "--update"])
    monkeypatch.setattr(
        common,
        "work",
        lambda *_: {
            "runs": {},
            "shares": {},
            "memory": {"graphrec": (5, 1), "peer": (4, 2)},
            "versions": {},
            "load": 0,
            "commit": "abc",
        },
    )
    vision_cpu.main()
    page = (tmp_path / "vision_cpu.md").read_text(encoding="utf-8")
    assert "| convnext_tiny | 0.50 (1 / 2 ms) | 0.75 (3 / 4 MB, of files 1 / 2) |" in page
    assert "| swin_tiny_patch4_window7_224 | 0.50 (1 / 2 ms) | 1.25 (5 / 4 MB, of files 1 / 2) |" in page
    assert "| davit_tiny | – | 1.25 (5 / 4 MB, of files 1 / 2) |" in page


def test_an_update_leaves_what_was_not_run(
    common: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    first = [common.Job(name, "x", "python", {}, [{"ms": 1.0, "versions": {}}]) for name in "abc"]
    options = argparse.Namespace(dry=False, threads=1)
    monkeypatch.setenv("GRAPHREC_COMMIT", "old")
    common.record("some", "Title", "text", first, options)
    again = [common.Job(name, "x", "python", {}) for name in "abd"]
    again[1].runs.append({"ms": 2.0, "versions": {}, "commit": "new"})
    found = common.with_recorded(again, "some")
    assert [(job.name, job.runs[0]["ms"], job.runs[0]["commit"]) for job in found] == [
        ("a", 1.0, "old"),
        ("b", 2.0, "new"),
    ]
    common.record("some", "Title", "text", found, options)
    assert "commit new, old;" in (tmp_path / "some.md").read_text(encoding="utf-8")
