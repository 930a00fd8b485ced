"""DeepCTR-Torch 0.3.0 by its own Criteo example: encode, time steps, fit and test, or save and serve."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from meter import Clock, Steps, finish, gflops, serve, settings

given = settings()
SPARSE = [f"C{i}" for i in range(1, 27)]
DENSE = [f"I{i}" for i in range(1, 14)]
BATCH = given.get("batch_size", 4096)


class EnoughSteps(Exception):
    """Ends `fit` after the steps that were asked for."""


def encode() -> pd.DataFrame:
    """Read the table, label-encode and scale its columns in place."""
    from sklearn.preprocessing import LabelEncoder, MinMaxScaler

    data = pd.read_parquet(Path(given["data"]) / "ctr_1m.parquet")
    data[SPARSE] = data[SPARSE].fillna("-1")
    data[DENSE] = data[DENSE].fillna(0)
    for name in SPARSE:
        data[name] = LabelEncoder().fit_transform(data[name])
    data[DENSE] = MinMaxScaler(feature_range=(0, 1)).fit_transform(data[DENSE])
    return data


def encoded() -> pd.DataFrame:
    """The encoded table, kept in the work folder so that repetitions do not encode it again."""
    path = Path(given["work"]) / "deepctr.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        encode().to_parquet(path)
    return pd.read_parquet(path)


def build(data: pd.DataFrame) -> tuple[Any, dict[str, np.ndarray]]:
    """A compiled model at its own defaults, and the table as its inputs."""
    import torch
    from deepctr_torch.inputs import DenseFeat, SparseFeat, get_feature_names
    from deepctr_torch.models import DCN, AutoInt

    columns = [
        SparseFeat(name, vocabulary_size=int(data[name].max()) + 1, embedding_dim=16) for name in SPARSE
    ]
    columns += [DenseFeat(name, 1) for name in DENSE]
    torch.manual_seed(given.get("seed", 0))
    if given["model"] == "AutoInt":
        model = AutoInt(columns, columns, att_layer_num=3, att_head_num=2, dnn_hidden_units=())
    else:
        model = DCN(
            columns, columns, cross_num=3, cross_parameterization="matrix", dnn_hidden_units=(400, 400)
        )
    model.compile("adam", "binary_crossentropy", metrics=["binary_crossentropy", "auc"])
    return model, {name: data[name].to_numpy() for name in get_feature_names(columns)}


def train() -> dict[str, Any]:
    """Time the steps of ``model.fit``, counted at its optimiser."""
    data = encoded()
    model, inputs = build(data)
    steps, update = Steps(given["warmup"]), model.optim.step
    steps.tick(BATCH)

    def counted(*arguments: Any, **options: Any) -> None:
        update(*arguments, **options)
        if steps.steps == given["warmup"] + given["steps"]:
            raise EnoughSteps
        steps.tick(BATCH)

    model.optim.step = counted
    with contextlib.suppress(EnoughSteps):
        model.fit(inputs, data[["label"]].to_numpy(), batch_size=BATCH, epochs=1, verbose=0)
    return {**steps.stop(), "gflops": gflops()}


def quality() -> dict[str, Any]:
    """Fit on the first 80 % of the rows, test on the last 10 %, as the others do."""
    from sklearn.metrics import log_loss, roc_auc_score

    data = encoded()
    model, inputs = build(data)
    stop, start = int(0.8 * len(data)), int(0.9 * len(data))
    labels = data[["label"]].to_numpy()
    clock = Clock()
    model.fit(
        {name: values[:stop] for name, values in inputs.items()},
        labels[:stop],
        batch_size=BATCH,
        epochs=given.get("epochs", 1),
        verbose=0,
    )
    _, cpu = clock.read()
    scores = model.predict({name: values[start:] for name, values in inputs.items()}, BATCH)
    auc, logloss = roc_auc_score(labels[start:], scores), log_loss(labels[start:], scores)
    return {"auc": float(auc), "logloss": float(logloss), "fit_cpu": round(cpu, 1)}


def save() -> dict[str, Any]:
    """Fit on the first rows and save, with what makes numbers of later ones."""
    import joblib
    import torch
    from sklearn.preprocessing import MinMaxScaler

    data = pd.read_parquet(Path(given["data"]) / "ctr_1m.parquet")[: given["rows"]]
    texts, scaler = data[SPARSE].fillna("-1"), MinMaxScaler(feature_range=(0, 1))
    codes = {name: {value: i for i, value in enumerate(sorted(texts[name].unique()))} for name in SPARSE}
    data = data.assign(**{name: texts[name].map(codes[name]) for name in SPARSE})
    data[DENSE] = scaler.fit_transform(data[DENSE].fillna(0))
    model, inputs = build(data)
    model.fit(inputs, data[["label"]].to_numpy(), batch_size=BATCH, epochs=given["epochs"], verbose=0)
    folder = Path(given["work"]) / f"deepctr_{given['model']}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model, folder / "model.pt")
    joblib.dump((codes, scaler), folder / "encoders")
    return {}


def serve_model() -> dict[str, Any]:
    """Time a saved model on later rows; unseen categories get the first code."""

    def load() -> Any:
        import joblib
        import torch

        folder = Path(given["work"]) / f"deepctr_{given['model']}"
        model = torch.load(folder / "model.pt", weights_only=False)
        codes, scaler = joblib.load(folder / "encoders")

        def score(rows: pd.DataFrame) -> Any:
            inputs = {
                name: rows[name].fillna("-1").map(codes[name]).fillna(0).astype(int).to_numpy()
                for name in SPARSE
            }
            numbers = scaler.transform(rows[DENSE].fillna(0))
            inputs |= {name: numbers[:, i] for i, name in enumerate(DENSE)}
            return model.predict(inputs, BATCH)

        return score

    def read() -> pd.DataFrame:
        return pd.read_parquet(Path(given["data"]) / "split_1m" / "test.parquet").drop(columns="label")

    return serve(read, load, given["sizes"])


def main() -> None:
    """Run the task that the settings name."""
    libraries = ["deepctr-torch", "torch", "pandas"]
    if given["task"] == "encode":
        clock = Clock()
        encode()
        wall, cpu = clock.read()
        finish(["pandas", "scikit-learn"], wall=round(wall, 2), cpu=round(cpu, 2))
    else:
        tasks = {"train": train, "quality": quality, "save": save, "serve": serve_model}
        finish(libraries, **tasks[given["task"]]())


if __name__ == "__main__":
    main()
