"""Test AUC and log loss with a moving average of the weights (`ema`) and without, on the same splits.

    python benchmarks/averaging.py --root DATA

All other settings are the defaults. Each seed is another random 8:1:1 split. `real_tables.py` describes the
tables' folders; an interrupted run goes on where it stopped, one with another `--ema` begins anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import quality_real
import torch

from graphrec.estimators.settings import EMA

CASES = {
    "movielens": ("dnn", "dcnv2", "fcn", "autoint", "fwfm"),
    "criteo": ("dnn", "dcnv2", "fcn", "autoint", "fwfm"),
    "adult": ("dnn", "fcn"),
}


def pairs(runs: dict[str, list[dict[str, Any]]], key: str) -> str:
    """The mean of the differences, and the smallest and largest of them."""
    found = [b["test"][key] - a["test"][key] for a, b in zip(runs["without"], runs["with"], strict=True)]
    return f"{np.mean(found):+.4f} ({min(found):+.4f} to {max(found):+.4f})"


def text(tables: dict[str, Any]) -> str:
    """One row for each table and model."""
    rows = []
    for name, models in tables.items():
        for model, found in models.items():
            plain, averaged = found["runs"]["without"], found["runs"]["with"]
            auc = [f"{np.mean([run['test']['auc'] for run in runs]):.4f}" for runs in (plain, averaged)]
            cpu = [f"{np.mean([run['cpu'] for run in runs]):.1f}" for runs in (plain, averaged)]
            changes = [pairs(found["runs"], key) for key in ("auc", "logloss")]
            rows.append([name, model, *auc, *changes, " / ".join(cpu)])
    header = ["table", "model", "AUC", "with the average", "change of AUC", "of log loss", "CPU s per fit"]
    return common.markdown_table(header, rows)


def main() -> None:
    """Run and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--tables", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--ema", type=float, default=EMA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    common.RESULTS.mkdir(exist_ok=True)
    file, machine = common.RESULTS / "averaging.json", common.cpu_description()
    facts = {"script": "benchmarks/averaging.py", "machine": machine, "ema": options.ema}
    former = json.loads(file.read_text()) if file.exists() else {}
    tables: dict[str, Any] = former["tables"] if former.get("ema") == options.ema else {}
    ways: dict[str, dict[str, Any]] = {
        "without": {"train_options": {"ema": 0}},
        "with": {"train_options": {"ema": options.ema}},
    }
    with tempfile.TemporaryDirectory() as cache:
        for name in options.tables:
            read, labels = quality_real.TABLES[name]
            frame = read(options.root)
            done = tables.setdefault(name, {})
            for model in (one for one in CASES[name] if one not in done):
                runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
                for seed in range(options.seeds):
                    prepared = quality_real.prepare_table(frame, labels, seed, Path(cache))
                    for way, settings in ways.items():
                        runs[way].append(quality_real.fit(model, prepared, seed, settings))
                done[model] = {"runs": runs, "commit": common.commit()}
                print(name, model, pairs(runs, "auc"), file=sys.stderr, flush=True)
                file.write_text(json.dumps({**facts, "tables": tables}, indent=1) + "\n")
    commits = sorted({found["commit"] for models in tables.values() for found in models.values()})
    about = f"{machine['cpu']}, {options.seeds} seeds; commits {', '.join(commits)}"
    page = (
        f"## A moving average of the weights\n\n{text(tables)}\n\nMeans over seeds, all settings but "
        f"`ema={options.ema}` as they are by default; changes are those of single splits: mean (smallest to "
        f"largest).\n\n`benchmarks/averaging.py`, {about}.\n"
    )
    print(page)
    (common.RESULTS / "averaging.md").write_text(page)


if __name__ == "__main__":
    main()
