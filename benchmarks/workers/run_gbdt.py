"""LightGBM and CatBoost: reading and casting, fitting and testing, or saving and serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from meter import Clock, finish, serve, settings

given = settings()


def read() -> tuple[pd.DataFrame, pd.Series, list[str]]:
    """Features, label and names of the categorical columns."""
    data = pd.read_parquet(Path(given["data"]) / "ctr_1m.parquet")
    label = data.pop("label")
    return data, label, [name for name in data if name.startswith("C")]


def encode() -> dict[str, float]:
    """Read, cast to categories; then bin, which LightGBM does inside ``fit``."""
    import lightgbm

    clock = Clock()
    data, label, names = read()
    data[names] = data[names].astype("category")
    wall, cpu = clock.read()
    lightgbm.Dataset(data, label, params={"verbose": -1, "num_threads": given["threads"]}).construct()
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "cpu_with_binning": round(clock.read()[1], 2)}


def make_model(names: list[str]) -> tuple[Any, dict[str, Any]]:
    """An untuned model of the system that the settings name, and its arguments of ``fit``."""
    if given["model"] == "LightGBM":
        import lightgbm

        model = lightgbm.LGBMClassifier(
            n_estimators=given.get("rounds", 200),
            num_leaves=127,
            n_jobs=given["threads"],
            random_state=given.get("seed", 0),
            verbose=-1,
        )
        return model, {"eval_metric": "auc", "callbacks": [lightgbm.early_stopping(20, verbose=False)]}
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(
        iterations=given.get("rounds", 200),
        learning_rate=0.15,
        depth=6,
        cat_features=names,
        thread_count=given["threads"],
        random_seed=given.get("seed", 0),
        early_stopping_rounds=20,
        eval_metric="AUC",
        verbose=0,
        allow_writing_files=False,
    )
    return model, {}


def quality() -> dict[str, float]:
    """Fit on the first 80 % with early stopping on the next 10 %, test on the last 10 %."""
    from sklearn.metrics import log_loss, roc_auc_score

    data, label, names = read()
    lightgbm = given["model"] == "LightGBM"
    data[names] = data[names].astype("category") if lightgbm else data[names].fillna("NA")
    stop, start = int(0.8 * len(data)), int(0.9 * len(data))
    valid = (data[stop:start], label[stop:start])
    model, extra = make_model(names)
    clock = Clock()
    model.fit(data[:stop], label[:stop], eval_set=[valid] if lightgbm else valid, **extra)
    _, cpu = clock.read()
    scores = model.predict_proba(data[start:])[:, 1]
    return {
        "auc": float(roc_auc_score(label[start:], scores)),
        "logloss": float(log_loss(label[start:], scores)),
        "fit_cpu": round(cpu, 1),
    }


def _as_taken(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the types that the system wants."""
    names = [name for name in rows if name.startswith("C")]
    columns = rows[names].astype("category") if given["model"] == "LightGBM" else rows[names].fillna("NA")
    return rows.assign(**columns)


def save() -> dict[str, float]:
    """Fit on the first rows, which are also those that it stops by, and save."""
    import joblib

    data, label, names = read()
    data, label = _as_taken(data[: given["rows"]]), label[: given["rows"]]
    model, extra = make_model(names)
    valid = (data, label)
    model.fit(data, label, eval_set=[valid] if given["model"] == "LightGBM" else valid, **extra)
    joblib.dump(model, Path(given["work"]) / given["model"])
    return {}


def serve_model() -> dict[str, float]:
    """Time a saved model on later rows."""

    def load() -> Any:
        import joblib

        model = joblib.load(Path(given["work"]) / given["model"])
        return lambda rows: model.predict_proba(_as_taken(rows))

    def read_rows() -> pd.DataFrame:
        return pd.read_parquet(Path(given["data"]) / "split_1m" / "test.parquet").drop(columns="label")

    return serve(read_rows, load, given["sizes"])


TASKS = {"encode": encode, "quality": quality, "save": save, "serve": serve_model}

if __name__ == "__main__":
    library = "catboost" if given.get("model") == "CatBoost" else "lightgbm"
    finish([library, "pandas"], **TASKS[given["task"]]())
