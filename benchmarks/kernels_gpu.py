"""Training steps of the kernels on a GPU, ours and the alternatives, interleaved in one process.

python benchmarks/kernels_gpu.py --dry                 # list the cases; needs no GPU
pip install flash-linear-attention natten              # join where they are installed
python benchmarks/kernels_gpu.py --dtypes bfloat16 float32 --repeats 30
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "workers"))

import gpu_forms as forms

LIMITS = {"float32": 5e-3, "float16": 0.01, "bfloat16": 0.03}
"""Relative error up to which a form's numbers count as right; float32 may use tf32 products."""

Step = Callable[[], list[Tensor]]


def stepper(form: forms.Form, leaves: Sequence[Tensor], weight: Tensor) -> Step:
    """Forward, and the gradients of all inputs."""

    def step() -> list[Tensor]:
        out = form(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, weight.to(out.dtype))]

    return step


def steps_of(case: forms.Case, device: torch.device, dtype: str) -> tuple[dict[str, Step], dict[str, str]]:
    """Contenders whose numbers are right, and why others are left out."""
    kind = getattr(torch, dtype)
    leaves = case.inputs(device, kind)
    exact = [one.detach().float().requires_grad_() for one in leaves]
    form = case.exact(device)
    weight = torch.randn_like(form(*exact))
    truth = stepper(form, exact, weight)()
    steps: dict[str, Step] = {}
    left_out: dict[str, str] = {}
    for name, make in case.forms.items():
        try:
            step = stepper(make(device), leaves, weight)
            errors = [float((a.float() - b).norm() / b.norm()) for a, b in zip(step(), truth, strict=True)]
        except (RuntimeError, ValueError, NotImplementedError) as error:
            left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            continue
        if max(errors) <= LIMITS[dtype] or name == forms.DENSE:  # that one computes more, for its time
            steps[name] = step
        else:
            left_out[name] = f"differs from float32 by {max(errors):.2g}"
    return steps, left_out


def captured(steps: dict[str, Step]) -> tuple[dict[str, Step], dict[str, str]]:
    """Steps that replay a CUDA graph of each contender's kernels, and why some have none.

    A replay leaves out what Python and the launches of kernels cost, which is most of a small step.
    """
    graphs: dict[str, Step] = {}
    left_out: dict[str, str] = {}
    for name, step in steps.items():
        side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        try:
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                made = step()
        except RuntimeError as error:
            left_out[name] = f"no CUDA graph: {str(error).splitlines()[0][:80]}"
            continue

        def replay(graph: torch.cuda.CUDAGraph = graph, made: list[Tensor] = made) -> list[Tensor]:
            graph.replay()
            return made

        graphs[name] = replay
    return graphs, left_out


def timed(steps: dict[str, Step], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of each contender, in turn, with the GPU's cache overwritten before each."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    filler = torch.empty(1 << 28, dtype=torch.int8, device=device)
    for repeat in range(repeats + 3):
        for name, step in steps.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            filler.zero_()
            start.record()
            step()
            end.record()
            end.synchronize()
            if repeat >= 3:
                found[name].append(start.elapsed_time(end))
    return found


def verdicts(case: forms.Case, times: dict[str, list[float]]) -> str:
    """Which goals are reached, as cells of a table."""
    middle = {name: statistics.median(values) for name, values in times.items()}
    told = []
    for name, most in case.goals.items():
        if name in middle and forms.OURS in middle:
            ratio = middle[forms.OURS] / middle[name]
            told.append(f"{ratio:.2f} of {name} (goal {most:.2g}): {'yes' if ratio <= most else 'NO'}")
    return "; ".join(told) or "–"


def listing(cases: Sequence[forms.Case], dtypes: Sequence[str]) -> str:
    """What would be run."""
    rows = [
        f"{case.name}: {' x '.join(map(str, case.sizes[0]))}; {', '.join(case.forms)}"
        + "".join(f"; at most {most:.3g} of {name}" for name, most in case.goals.items())
        for case in cases
    ]
    return "\n".join([*rows, f"{len(cases)} cases in {', '.join(dtypes)}"])


def run(
    case: forms.Case, device: torch.device, dtype: str, repeats: int
) -> tuple[list[common.Job], list[str]]:
    """One case: its jobs, and its row of the table."""
    steps, left_out = steps_of(case, device, dtype)
    times = timed(steps, repeats, device)
    graphs, uncaptured = captured(steps)
    replays = timed(graphs, repeats, device)
    versions = {name: version(name) for name in ("torch", "triton", "graphrec")}
    kinds = [("step", times, left_out), ("replay", replays, uncaptured)]
    jobs, columns = [], []
    for kind, found, why_not in kinds:
        made = [
            common.Job(
                f"{name}: {case.name}, {dtype}, {kind}",
                "gpu",
                sys.executable,
                {"sizes": case.sizes},
                [{"ms": round(ms, 5), "versions": versions} for ms in values],
            )
            for name, values in found.items()
        ]
        cells = [f"{job.name.split(': ')[0]} {common.spread(job, 'ms', 3)}" for job in made]
        columns.append([*cells, *(f"{name}: {why}" for name, why in why_not.items())])
        jobs += made
    print(f"{case.name}, {dtype}: {json.dumps(columns)}", file=sys.stderr, flush=True)
    told = ["<br>".join(cells) for cells in columns]
    return jobs, [f"{case.name}, {dtype}", *told, verdicts(case, times), verdicts(case, replays)]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"], choices=LIMITS)
    parser.add_argument("--repeats", type=int, default=30, help="rounds after three that do not count")
    parser.add_argument("--only", nargs="*", metavar="SUBSTRING", help="cases whose name contains one")
    parser.add_argument("--dry", action="store_true", help="list the cases and stop; needs no GPU")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and record; 2 where it cannot."""
    given = options(arguments)
    every = [one for one in forms.cases() if not given.only or any(part in one.name for part in given.only)]
    if given.dry:
        print(listing(every, given.dtypes))
        return 0
    if not torch.cuda.is_available():
        print(
            "kernels_gpu.py needs a CUDA device, and torch finds none; --dry lists the cases", file=sys.stderr
        )
        return 2
    device = torch.device("cuda")
    done = [run(case, device, dtype, given.repeats) for case in every for dtype in given.dtypes]
    record(done, given)
    return 0


def record(done: list[tuple[list[common.Job], list[str]]], given: argparse.Namespace) -> None:
    """Write the results, whether goals are reached or not."""
    jobs = [job for made, _ in done for job in made]
    header = [
        "forward and backward",
        "milliseconds of a step",
        "of its kernels, replayed",
        "goals reached by the step",
        "by its kernels",
    ]
    card: Any = torch.cuda.get_device_properties(0)
    text = common.markdown_table(header, [row for _, row in done]) + (
        f"\n\n{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}; CUDA events, the"
        " cache overwritten before each run. A form whose numbers differ from float32 is not timed; masks,"
        " plans and compiled code are made beforehand. A step is called from Python; a replay of its CUDA"
        " graph is what the kernels alone take. Goals are ratios of our time, by medians."
    )
    common.record("kernels_gpu", "Kernels on a GPU", text, jobs, argparse.Namespace(dry=False, threads=1))


if __name__ == "__main__":
    sys.exit(main())
