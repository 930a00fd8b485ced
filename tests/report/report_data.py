"""Reports to test with: an ordinary one and one whose every name is hostile."""

import numpy as np

from graphrec.metrics import BinaryMetrics
from graphrec.report import FieldSummary, ReportData, RunPage
from graphrec.report.pictures import Picture
from graphrec.report.run_plots import plot_confusion, plot_curves, plot_spread
from graphrec.report.svg import figure_svg

EVIL = "<script>alert('x')</script>"
LONG = "a_very_long_column_name_that_goes_on_" * 8


def predictions(rows=2000, labels=1, seed=0):
    """Labels (rows, labels) drawn from calibrated probabilities, and the probabilities."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 5, (rows, labels)).astype(np.float32)
    return (rng.random(p.shape) < p).astype(np.float32), p


def metrics(y, p, labels):
    collected = BinaryMetrics(labels)
    collected.update(y, p)
    return collected.compute()


def ordinary(**changes):
    """One label, three parts, four epochs, twelve fields."""
    y, p = predictions()
    rng = np.random.default_rng(1)
    names = [f"field_{i}" for i in range(12)]
    history = [
        {"epoch": e, "train_loss": 0.6 / e, "valid_auc": 0.7 + e / 100, "lr": 1e-3, "best": e == 3}
        for e in (1, 2, 3, 4)
    ]
    values = {
        "model": "fcn",
        "labels": ["click"],
        "data": "clicks.parquet",
        "model_facts": {"paper": "https://arxiv.org/abs/2407.13349", "parameters": "201,728"},
        "rows": {"train": 16000, "valid": 2000, "test": 2000},
        "fields": [FieldSummary(n, "categorical", 100, 0.01, 0.0003) for n in names],
        "metrics": {part: metrics(y, p, ["click"]) for part in ("train", "valid", "test")},
        "y": y,
        "p": p,
        "history": history,
        "importance": (names, rng.random(12)),
        "importance_note": "Permutation importance.",
        "interactions": (rng.random((12, 12)), names),
        "config": {"epochs": 4, "batch_size": 4096},
        "command": "graphrec fit clicks.parquet --label click",
        "seed": 7,
        "versions": {"graphrec": "0.1.0"},
        "fingerprint": "0123abcd",
        "seconds": 12.5,
        "warnings": ["Column leak gives the label away."],
    }
    return ReportData(**{**values, **changes})


def plain(**changes):
    """`ordinary` without the figures that take time to draw."""
    return ordinary(**{"history": [], "importance": None, "interactions": None, **changes})


def hostile():
    """Two labels, 200 fields, one epoch, no test part, and markup or huge text wherever text can be."""
    rng = np.random.default_rng(2)
    labels = [EVIL, LONG]
    y, p = predictions(labels=2)
    y[::7, 1] = np.nan
    odd = [
        EVIL,
        LONG,
        "$a$ & 'b' \"c\"",
        "价格 täx",
        "tab\tline\nnul\x00 \u202e half\ud800",
        "</svg><img src=x>",
    ]
    names = odd + [f"field_{i}" for i in range(194)]
    return ReportData(
        model=EVIL,
        labels=labels,
        data=EVIL,
        rows={"train": 10},
        fields=[FieldSummary(n, EVIL, 5, 0.5, 0.5, EVIL) for n in names],
        metrics={"valid": metrics(y, p, labels), EVIL: metrics(y, p, labels)},
        y=y,
        p=p,
        history=[{"epoch": 1, "train_loss": 0.5, f"valid_{EVIL}/auc": None, "best": True}],
        importance=(names, rng.random(200)),
        importance_note=EVIL,
        interactions=(rng.random((200, 200)), names),
        interactions_note=EVIL,
        config={EVIL: EVIL, "path": LONG},
        command=EVIL + LONG,
        model_facts={"paper": "javascript:alert(1)"},
        versions={EVIL: EVIL},
        warnings=[EVIL],
    )


COMPARED = [
    {"model": "lr", "auc": 0.71, "logloss": 0.4, "calibration": 1.02, "seconds": 2.0, "parameters": 1042},
    {"model": "fcn", "auc": 0.78, "logloss": 0.37, "calibration": 0.9, "seconds": 30.0, "parameters": 201728},
    {"model": EVIL, "auc": None, "logloss": 0.5, "calibration": None, "seconds": 3.0, "parameters": 5},
    {"model": "din", "error": f"needs a sequence {EVIL}"},
]


def recipe_run(**changes):
    """Two variants, one of them of a hostile name, three repetitions of each."""
    rng = np.random.default_rng(0)
    values = {"gin": rng.uniform(0.7, 0.8, 3).tolist(), EVIL: rng.uniform(0.5, 0.7, 3).tolist()}
    metrics = ("test/accuracy", "test/logloss", "test/my_score")
    summary = {
        name: {metric: {"mean": float(np.mean(v)), "std": float(np.std(v)), "n": 3} for metric in metrics}
        for name, v in values.items()
    }
    steps = [(np.arange(1, 6), np.linspace(1, 0.1, 5) + 0.1 * i) for i in range(3)]
    drawn = {
        "spread": plot_spread(values, "Test accuracy", {"gin": 0.9}),
        "curves": plot_curves(dict.fromkeys(values, steps), "training loss"),
        "confusion": plot_confusion(rng.integers(0, 3, 50), rng.integers(0, 3, 50), ["a", LONG, EVIL]),
    }
    pictures = {
        name: Picture(name, figure_svg(figure, name, name), EVIL, wide=name == "spread")
        for name, figure in drawn.items()
    }
    page = {
        "title": EVIL,
        "task": "Classes of whole graphs.",
        "metric": "test/accuracy",
        "summary": summary,
        "costs": {name: {"parameters": 201728.0, "seconds": 1.25} for name in values},
        "rows": [
            {"variant": n, "seed": 0, "split": i, "test/accuracy": v[i]}
            for n, v in values.items()
            for i in (0, 1, 2)
        ],
        "published": {"gin": 0.9},
        "spread": pictures["spread"],
        "curves": [pictures["curves"]],
        "pictures": [pictures["confusion"]],
        "data": {"data": LONG},
        "recipe": f"title: {LONG}",
        "command": "graphrec run x.yaml",
    }
    return RunPage(**{**page, **changes})
