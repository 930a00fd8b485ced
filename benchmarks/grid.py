"""Many independent training runs over several processes, a line of JSON each as it comes, to go on from.

A script lists its runs as dicts of settings and gives the function that makes one. What a file holds already
is not run again, so a grid may be cut off by ``--minutes`` or a crash, and finished later or elsewhere.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common

Settings = dict[str, Any]
Figures = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every grid takes."""
    parser.add_argument("--root", type=Path, required=True, help="folder of the data")
    parser.add_argument("--runs", type=Path, required=True, help="file of JSON lines, to go on from")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--report", action="store_true", help="record the file's runs, run nothing")


def read(path: Path) -> list[dict[str, Any]]:
    """The file's lines, ``{"settings": ..., "figures": ..., "about": ...}``, but for one that was cut off."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: line {number} is no JSON, left out", file=sys.stderr)
    return found


def run(
    function: Callable[[Settings, Path, str], Figures],
    wanted: Sequence[Settings],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Make the runs that the file lacks; all of the file's lines that are wanted.

    Raises:
        SystemExit: A run fails; the others are kept, and its settings named.
    """
    have = {_key(one["settings"]) for one in read(options.runs)}
    missing = [one for one in wanted if _key(one) not in have]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there", file=sys.stderr, flush=True)
    if missing and not options.report:
        _spread(partial(_one, function, options.root, options.device), missing, options)
    keys = {_key(one) for one in wanted}
    return [one for one in read(options.runs) if _key(one["settings"]) in keys]


def chart(lines: Sequence[dict[str, Any]], rows: Sequence[str], column: str, figure: str) -> list[list[str]]:
    """Cells ``mean ± deviation (runs)`` in per cent, a row for each of the settings' values, sorted.

    Args:
        lines: What `run` gives.
        rows: Settings that name a row.
        column: Setting that names a column.
        figure: Which of the figures.
    """
    columns = sorted({one["settings"][column] for one in lines})
    cells: dict[tuple[Any, ...], dict[Any, list[float]]] = {}
    for one in lines:
        name = tuple(one["settings"][key] for key in rows)
        cells.setdefault(name, {}).setdefault(one["settings"][column], []).append(one["figures"][figure])
    body = (
        [*map(str, name), *(percent(cells[name].get(one, [])) for one in columns)] for name in sorted(cells)
    )
    return [[*rows, *(str(one) for one in columns)], *body]


def percent(shares: Sequence[float]) -> str:
    """``mean ± sample deviation (count)`` of shares, in per cent; a dash of none."""
    if not shares:
        return "–"
    spread = statistics.stdev(shares) * 100 if len(shares) > 1 else 0.0
    return f"{statistics.mean(shares) * 100:.1f} ± {spread:.1f} ({len(shares)})"


def record(name: str, title: str, text: str, lines: Sequence[dict[str, Any]]) -> None:
    """Write ``results/<name>.md`` and ``.json``; devices and times are those of the runs."""
    where = sorted({f"{one['about']['device']}, torch {one['about']['torch']}" for one in lines})
    hours = sum(one["about"]["cpu_seconds"] for one in lines) / 3600
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    about = (
        f"`benchmarks/{name}.py`, {date}, commit {common.commit()}; {'; '.join(where)}; "
        f"{len(lines)} runs of one thread, {hours:.1f} CPU hours."
    )
    page = f"## {title}\n\n{text.strip()}\n\n{about}\n"
    print(page)
    facts = {"script": f"benchmarks/{name}.py", "date": date, "commit": common.commit(), "runs": list(lines)}
    common.RESULTS.mkdir(exist_ok=True)
    (common.RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (common.RESULTS / f"{name}.md").write_text(page, encoding="utf-8")


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


def _spread(
    function: Callable[[Settings], dict[str, Any]], missing: list[Settings], options: argparse.Namespace
) -> None:
    end = time.monotonic() + options.minutes * 60
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    _end_line(options.runs)
    with (
        multiprocessing.get_context("spawn").Pool(min(options.jobs, len(missing)), _start) as pool,
        options.runs.open("a", encoding="utf-8") as file,
    ):
        results = pool.imap_unordered(function, missing)
        for count in range(1, len(missing) + 1):
            try:
                found = results.next(timeout=min(max(end - time.monotonic(), 0.01), 1e6))
            except multiprocessing.TimeoutError:
                print(f"out of time after {count - 1} of {len(missing)} runs", file=sys.stderr)
                break  # leaving the block ends the processes
            if "failed" in found:
                failed.append(found)
                print(json.dumps(found), file=sys.stderr, flush=True)
                continue
            file.write(json.dumps(found) + "\n")
            file.flush()
            print(f"{count}/{len(missing)} {json.dumps(found)}", file=sys.stderr, flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed, the first: {failed[0]}")


def _end_line(path: Path) -> None:
    """Put an end to a line that was cut off, so that the next is a line of its own."""
    if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")


def _start() -> None:
    """One thread for each process."""
    import torch

    torch.set_num_threads(1)


def _one(
    function: Callable[[Settings, Path, str], Figures], root: Path, device: str, settings: Settings
) -> dict[str, Any]:
    import torch

    start, cpu = time.monotonic(), time.process_time()
    try:
        figures = function(settings, root, device)
    except Exception as error:
        return {"settings": settings, "failed": f"{type(error).__name__}: {error}"}
    on = torch.cuda.get_device_name() if device.startswith("cuda") else common.cpu_description()["cpu"]
    about = {
        "device": on,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "load": round(os.getloadavg()[0], 1),
        "torch": str(torch.__version__),
    }
    return {"settings": settings, "figures": figures, "about": about}
