"""Test AUC of our models and LightGBM on real tables, three seeds, the same small search for each model.

    python benchmarks/quality_real.py --root DATA --tables movielens movielens-no-ids criteo
    python benchmarks/quality_real.py --root DATA --tables adult movielens-two --name quality_real_two

Each seed is another random 8:1:1 split. Every model is tried with the same number of settings on the first
seed, and the one with the best validation AUC is fitted on all seeds. An interrupted run goes on where it
stopped. The tables' folders are described in `real_tables.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl
import real_tables
import torch

from graphrec import CTRClassifier
from graphrec.estimators.preparing import Prepared, prepare

TABLES: dict[str, tuple[Callable[[Path], pl.DataFrame], list[str]]] = {
    "movielens": (lambda root: real_tables.movielens(root, ids=True), ["like"]),
    "movielens-no-ids": (lambda root: real_tables.movielens(root, ids=False), ["like"]),
    "criteo": (real_tables.criteo, ["click"]),
    "adult": (real_tables.adult, ["income", "married"]),
    "movielens-two": (lambda root: real_tables.movielens(root, ids=True, labels=2), ["like", "love"]),
}
ONE_LABEL = (
    *("lr", "fcn", "autoint", "dnn", "deepfm", "dcnv2", "gdcn", "masknet", "xdeepfm", "finalmlp"),
    *("fm", "fwfm"),
)
SEVERAL = ("lr", "dnn", "shared_bottom", "mmoe", "ple", "infnet", "fcn")
SEARCH: list[dict[str, Any]] = [
    {},
    {"learning_rate": 0.005},
    {"embedding_l2": 4.0},
    {"learning_rate": 0.005, "embedding_l2": 4.0},
]
TREES: list[dict[str, Any]] = [
    {"num_leaves": leaves, "learning_rate": rate} for leaves in (15, 63) for rate in (0.03, 0.1)
]


def prepare_table(frame: pl.DataFrame, labels: list[str], seed: int, cache: Path) -> Prepared:
    """Encode an 8:1:1 split."""
    base = CTRClassifier("lr", random_state=seed, cache_dir=cache)
    return prepare(base, frame, seed=seed, label=labels, validation=0.1, test=0.1)


def fit(model: str, prepared: Prepared, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit one of our models on an encoded table."""
    start = time.process_time()
    options = {"epochs": 30, **settings}
    estimator = CTRClassifier(model, random_state=seed, **options).fit_prepared(prepared, seed=seed)
    found = {"cpu": round(time.process_time() - start, 1), "epochs": len(estimator.history_)}
    return {**found, "valid": estimator.metrics_["valid"], "test": estimator.metrics_["test"]}


def fit_trees(prepared: Prepared, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit LightGBM, one booster per label, on the same encoded rows; lists become one column per item."""
    import lightgbm

    from graphrec.metrics import BinaryMetrics

    start, labels = time.process_time(), prepared.encoder.spec.labels
    data = {part: (_matrix(encoded), encoded.labels()) for part, encoded in prepared.parts.items()}
    categorical = list(range(len(prepared.encoder.spec.categorical)))
    scores: dict[str, list[Any]] = {"valid": [], "test": []}
    for t in range(len(labels)):
        booster = lightgbm.LGBMClassifier(
            n_estimators=1000, n_jobs=1, verbose=-1, random_state=seed, **settings
        )
        (x, y), (vx, vy) = data["train"], data["valid"]
        booster.fit(
            x, y[:, t], eval_set=[(vx, vy[:, t])], eval_metric="auc", categorical_feature=categorical,
            callbacks=[lightgbm.early_stopping(30, verbose=False)],
        )  # fmt: skip
        for part, column in scores.items():
            column.append(booster.predict_proba(data[part][0])[:, 1])
    result: dict[str, Any] = {"cpu": round(time.process_time() - start, 1), "epochs": 0}
    for part, columns in scores.items():
        metrics = BinaryMetrics(labels=labels)
        metrics.update(data[part][1], np.stack(columns, 1).astype(np.float32))
        result[part] = metrics.compute()
    return result


def _matrix(encoded: Any) -> np.ndarray:
    """(N, columns) float64: category ids, numbers, and a 0/1 column per item of each list field."""
    features = encoded.read(0, len(encoded)).features
    columns = [features.categorical.double(), features.numeric.double()]
    for field, ids in zip(encoded.spec.lists, features.lists, strict=True):
        items = torch.zeros(len(ids), field.size, dtype=torch.float64).scatter_(1, ids.long(), 1.0)
        columns.append(items[:, 1:])
    return torch.cat(columns, 1).numpy()


def run_table(
    name: str, options: argparse.Namespace, cache: Path, done: dict[str, Any], keep: Callable[..., None]
) -> None:
    """All models on one table; ``done`` holds those of an earlier, interrupted run, ``keep`` saves."""
    read, labels = TABLES[name]
    frame = read(options.root)
    prepared = [prepare_table(frame, labels, seed, cache) for seed in range(options.seeds)]
    models = options.models or (*(ONE_LABEL if len(labels) == 1 else SEVERAL), "lightgbm")
    results: dict[str, Any] = dict(done)
    for model in (m for m in models if options.redo or m not in done):

        def one(seed: int, settings: dict[str, Any], model: str = model) -> dict[str, Any]:
            if model == "lightgbm":
                return fit_trees(prepared[seed], seed, settings)
            return fit(model, prepared[seed], seed, settings)

        search = TREES if model == "lightgbm" else SEARCH
        tried = [(settings, one(0, settings)) for settings in search]
        best, first = max(tried, key=lambda pair: pair[1]["valid"]["auc"])
        runs = [first, *(one(seed, best) for seed in range(1, options.seeds))]
        results[model] = {
            "chosen": best,
            "search": [{"settings": s, "valid_auc": r["valid"]["auc"], "cpu": r["cpu"]} for s, r in tried],
            "runs": runs,
            "commit": common.commit(),
        }
        aucs = [run["test"]["auc"] for run in runs]
        print(
            f"{name} {model}: {np.mean(aucs):.4f} +- {np.std(aucs):.4f} {best}", file=sys.stderr, flush=True
        )
        keep(name, {"rows": len(frame), "labels": labels, "models": results})


def text(tables: dict[str, Any]) -> str:
    """One Markdown table per data set."""
    pages = []
    for name, table in tables.items():
        header = ["model", "test AUC", "test logloss", "settings chosen", "epochs", "CPU s per fit"]
        keys = [f"{label}/auc" for label in table["labels"]] if len(table["labels"]) > 1 else []
        rows = []
        for model, found in table["models"].items():
            runs = found["runs"]

            def cell(key: str, runs: list[Any] = runs) -> str:
                values = [run["test"][key] for run in runs]
                return f"{np.mean(values):.4f} ± {np.std(values):.4f}"

            settings = json.dumps(found["chosen"]) if found["chosen"] else "defaults"
            figures = [f"{np.mean([run[key] for run in runs]):.1f}" for key in ("epochs", "cpu")]
            rows.append([model, cell("auc"), cell("logloss"), settings, *figures, *(cell(k) for k in keys)])
        rows.sort(key=lambda row: row[1], reverse=True)
        pages.append(f"### {name} ({table['rows']:,} rows)\n\n{common.markdown_table(header + keys, rows)}")
    return "\n\n".join(pages)


def main() -> None:
    """Run and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=["movielens"])
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--redo", action="store_true", help="measure models again that have a result")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="quality_real", help="name of the result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    common.RESULTS.mkdir(exist_ok=True)
    file = common.RESULTS / f"{options.name}.json"
    tables: dict[str, Any] = json.loads(file.read_text())["tables"] if file.exists() else {}
    machine = common.cpu_description()

    def keep(name: str, table: dict[str, Any]) -> None:
        tables[name] = table
        facts = {"script": "benchmarks/quality_real.py", "machine": machine}
        file.write_text(json.dumps({**facts, "tables": tables}, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as cache:
        for name in options.tables:
            run_table(name, options, Path(cache), tables.get(name, {}).get("models", {}), keep)
    commits = sorted({found["commit"] for table in tables.values() for found in table["models"].values()})
    about = (
        f"`benchmarks/quality_real.py`, {machine['cpu']}, {options.seeds} seeds; commits {', '.join(commits)}"
    )
    page = f"## Quality on real tables\n\n{text(tables)}\n\n{about}; mean ± standard deviation over seeds.\n"
    print(page)
    (common.RESULTS / f"{options.name}.md").write_text(page)


if __name__ == "__main__":
    main()
