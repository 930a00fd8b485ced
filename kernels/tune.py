"""Measure launch settings on this machine's GPU: ``python -m graphrec.kernels.tune --help``."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import exp, log
from pathlib import Path
from typing import Annotated

import torch
import typer

from . import table
from .backends import interpreting, triton_missing
from .workloads import WORKLOADS, Settings, Step

DTYPES = ("float32", "float16", "bfloat16")
Timer = Callable[["Case", Settings], float | None]
"""Milliseconds that a case takes with settings; None when the GPU cannot hold them."""


@dataclass(frozen=True)
class Case:
    """A row to fill and the settings to try for it."""

    operator: str
    architecture: str
    dim: int
    dtype: str
    candidates: tuple[Settings, ...]

    @property
    def key(self) -> table.Key:
        """The row's key."""
        dtype = self.dtype if WORKLOADS[self.operator].typed else table.ANY
        return self.operator, self.architecture, self.dim, dtype


def cases(operators: Iterable[str], dims: Sequence[int], dtypes: Sequence[str], kind: str) -> list[Case]:
    """Everything to measure; ``dims`` empty for those that each operator lists.

    Raises:
        ValueError: an operator, dimension or dtype that cannot be tuned.
    """
    found = []
    for operator in operators:
        if operator not in WORKLOADS:
            raise ValueError(f"operator {operator!r} must be one of {sorted(WORKLOADS)}")
        if unknown := set(dtypes) - set(DTYPES):
            raise ValueError(f"dtype {min(unknown)!r} must be one of {DTYPES}")
        for dtype in dtypes if WORKLOADS[operator].typed else list(dtypes)[-1:]:
            for dim in dims or WORKLOADS[operator].dims:
                if dim < 16 or dim & (dim - 1):
                    raise ValueError(f"dim {dim} must be a power of two of at least 16")
                tried = WORKLOADS[operator].candidates(dim, getattr(torch, dtype), kind)
                found.append(Case(operator, kind, dim, dtype, tuple(tried)))
    return found


def fill(
    path: Path,
    wanted: Sequence[Case],
    timer: Timer,
    source: str,
    *,
    again: bool = False,
    tell: Callable[[Case, int, float | None], None] = lambda *_: None,
) -> list[table.Row]:
    """Measure cases and put the best settings of each into a file, row by row, so that a stop loses one row.

    Args:
        path: the file; rows that it holds for other keys stay.
        wanted: what to measure. Rows that the file has from the same ``source`` are skipped.
        timer: see :data:`Timer`.
        source: device and versions, kept with every row.
        again: measure also what the file has.
        tell: called before each measurement with the case, the candidate's number and the best time so far,
            and once after the last.

    Returns:
        The rows measured now. A case of which no candidate fits gets none.
    """
    held = {row.key: row for row in table.read(path)} if path.is_file() else {}
    made = []
    for case in wanted:
        old = held.get(case.key)
        if old is not None and old.source == source and not again:
            tell(case, len(case.candidates), old.milliseconds)
            continue
        row = _best(case, timer, source, tell)
        if row is not None:
            made.append(row)
            held[row.key] = row
            table.write(path, held.values())
            table.forget()
    return made


def _best(
    case: Case, timer: Timer, source: str, tell: Callable[[Case, int, float | None], None]
) -> table.Row | None:
    best: tuple[float, Settings] | None = None
    for number, settings in enumerate(case.candidates):
        tell(case, number, best[0] if best else None)
        taken = timer(case, settings)
        if taken is not None and (best is None or taken < best[0]):
            best = taken, settings
    tell(case, len(case.candidates), best[0] if best else None)
    return None if best is None else table.Row(*case.key, best[1], source, round(best[0], 5))


class CudaTimer:
    """Times training steps on a CUDA device, after a check of their numbers against the torch backend."""

    def __init__(self, repeats: int = 20) -> None:
        self.repeats = repeats
        self._case: Case | None = None
        self._steps: list[Step] = []
        self._truth: list[list[torch.Tensor]] = []

    def __call__(self, case: Case, settings: Settings) -> float | None:
        """Geometric mean over the operator's workloads of the median time of a step, in milliseconds."""
        if case is not self._case:
            made = WORKLOADS[case.operator].steps(case.dim, getattr(torch, case.dtype), torch.device("cuda"))
            self._case, self._steps, self._truth = case, made, [step("torch") for step in made]
        with table.trying(case.operator, settings):
            try:
                if not all(map(self._agrees, self._steps, self._truth)):
                    return None
                times = [self._time(step) for step in self._steps]
            except _unfit():
                return None
        return exp(sum(map(log, times)) / len(times))

    @staticmethod
    def _agrees(step: Step, truth: list[torch.Tensor]) -> bool:
        pairs = zip(step("triton"), truth, strict=True)
        return all(float((one - two).float().norm() / two.float().norm()) < 0.03 for one, two in pairs)

    def _time(self, step: Step) -> float:
        """The kernels alone: what calling them from Python takes is the same for all settings, and more."""
        replay = _captured(step)
        times = []
        for _ in range(self.repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times)


def _captured(step: Step) -> Callable[[], object]:
    """A replay of the step's CUDA graph."""
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step("triton")
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        step("triton")
    return graph.replay


def _unfit() -> tuple[type[Exception], ...]:
    """What Triton raises for settings that a GPU cannot hold, or its assembler cannot turn into a program."""
    from triton.runtime.errors import OutOfResources, PTXASError

    return OutOfResources, PTXASError


def compile_share(wanted: Sequence[Case], share: int, of: int) -> None:
    """Compile every ``of``-th candidate from number ``share`` on into Triton's cache, by running it."""
    for case in wanted:
        steps = WORKLOADS[case.operator].steps(case.dim, getattr(torch, case.dtype), torch.device("cuda"))
        for settings in case.candidates[share::of]:
            with table.trying(case.operator, settings), suppress(*_unfit()):
                for step in steps:
                    step("triton")


def _compile_in(jobs: int, arguments: Sequence[str]) -> None:
    """Compile in so many processes at once; a settings' failure shows again when it is timed."""
    command = [sys.executable, "-m", "graphrec.kernels.tune", *arguments]
    started = [subprocess.Popen([*command, "--share", f"{part}/{jobs}"]) for part in range(jobs)]
    for one in started:
        one.wait()


def refusal() -> str | None:
    """Why nothing can be timed here, or None."""
    if missing := triton_missing():
        return missing
    if interpreting():
        return "TRITON_INTERPRET=1 is set, and the interpreter's time says nothing about a GPU"
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for CPUs only"
        return f"kernels are timed on a CUDA device, and none is here (this torch is {built})"
    return None


def origin_of_times() -> str:
    """The device and the versions that a measurement holds for."""
    return f"measured on {torch.cuda.get_device_name()}, " + ", ".join(
        f"{name} {_version(name)}" for name in ("graphrec", "torch", "triton")
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _listing(wanted: Sequence[Case], path: Path) -> str:
    held = {row.key for row in table.read(path)} if path.is_file() else set()
    lines = [
        f"{case.operator} dim {case.dim} {case.dtype} on {case.architecture}: "
        f"{len(case.candidates)} settings{', in the file already' if case.key in held else ''}"
        for case in wanted
    ]
    total = sum(len(case.candidates) for case in wanted)
    return "\n".join([*lines, f"{len(wanted)} rows, {total} settings to compile and time, into {path}"])


def _measure(path: Path, wanted: Sequence[Case], timer: Timer, source: str, again: bool) -> list[table.Row]:
    """:func:`fill` with a bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    before: Mapping[table.Key, int] = _starts(wanted)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("tuning", total=sum(len(case.candidates) for case in wanted))

        def tell(case: Case, number: int, best: float | None) -> None:
            so_far = "" if best is None else f", best {best:.3f} ms"
            text = f"{case.operator} {case.dim} {case.dtype}{so_far}"
            bar.update(task, completed=before[case.key] + number, description=text)

        return fill(path, wanted, timer, source, again=again, tell=tell)


def _starts(wanted: Sequence[Case]) -> dict[table.Key, int]:
    starts, total = {}, 0
    for case in wanted:
        starts[case.key] = total
        total += len(case.candidates)
    return starts


def _fail(message: str) -> None:
    typer.echo(f"tune: {message}", err=True)
    raise typer.Exit(2)


Operators = Annotated[
    list[str] | None, typer.Argument(help=f"What to tune, of {', '.join(WORKLOADS)}; all by default.")
]
Dims = Annotated[list[int] | None, typer.Option(help="Head dimension, a power of two; may be repeated.")]
Dtypes = Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(DTYPES)}; may be repeated.")]
Output = Annotated[Path | None, typer.Option(help="Write here instead of the file that graphrec reads.")]
Again = Annotated[bool, typer.Option("--again", help="Measure also what the file has already.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs per measurement, of which the median counts.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that compile at once, before anything is timed.")]
Share = Annotated[str | None, typer.Option(hidden=True)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be timed; needs no GPU.")]


def main(
    operators: Operators = None,
    dim: Dims = None,
    dtype: Dtypes = None,
    output: Output = None,
    again: Again = False,
    repeats: Repeats = 20,
    jobs: Jobs = 1,
    share: Share = None,
    dry_run: DryRun = False,
) -> None:
    """Find the fastest launch settings of the Triton kernels on this machine's GPU.

    Kernels are launched with tile sizes from a table, so that no program stops to tune itself. The table that
    comes with graphrec follows from the limits of registers and shared memory. This command measures instead:
    for each operator, head dimension and dtype it compiles every setting that fits the GPU, checks its
    numbers against the torch backend, and times forward and backward of typical calls. The fastest goes into
    a file in your configuration folder, which graphrec reads from then on; delete the file to undo it.

    The file is rewritten after every row. Stop at any time and start again: rows from the same GPU and
    versions are kept. `graphrec doctor` tells how many rows are measured, and graphrec.kernels.explain which
    row a call uses.

    Examples:

        python -m graphrec.kernels.tune --dry-run

        python -m graphrec.kernels.tune attention --dim 32 --dim 64 --dtype bfloat16 --jobs 8
    """
    path = output or table.user_file()
    kind = table.architecture()
    kind = "sm_90" if kind == table.ANY else kind
    try:
        wanted = cases(operators or WORKLOADS, dim or (), dtype or DTYPES, kind)
        if dry_run:
            typer.echo(_listing(wanted, path))
            return
        if why := refusal():
            _fail(f"{why}; --dry-run lists what would be timed")
        if share is not None:
            part, of = map(int, share.split("/"))
            compile_share(wanted, part, of)
            return
        if jobs > 1:
            chosen = [*(operators or ()), *(f"--dim={one}" for one in dim or ())]
            _compile_in(jobs, [*chosen, *(f"--dtype={one}" for one in dtype or ())])
        made = _measure(path, wanted, CudaTimer(repeats), origin_of_times(), again)
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo(f"tune: stopped; what is measured is in {path}, start again to go on", err=True)
        raise typer.Exit(130) from None
    typer.echo(
        f"{len(made)} rows measured, {len(wanted) - len(made)} kept or without settings that fit: {path}"
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(main)
    app(prog_name="python -m graphrec.kernels.tune", args=sys.argv[1:])
