"""graphrec: encode, train, fit and test, fit for memory, time steps by vocabulary size, or save and serve."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meter import Clock, PeakAnonymous, Steps, finish, gflops, serve, settings, status_mb

given = settings()
WORK = Path(given.get("work") or tempfile.mkdtemp()) / "graphrec"
BATCH = given.get("batch_size", 4096)


class Timed:
    """A batch source that gives the first steps of another one and times those after the warm-up.

    The time is taken whenever the trainer asks for a batch. One more batch ends the last interval, so it does
    not matter whether the trainer asks for each batch before the step on it, or one ahead.
    """

    def __init__(self, source: Any, warmup: int, steps: int) -> None:
        self.source, self.meter, self.result = source, Steps(warmup), {}
        self.steps = warmup + steps + 1

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """Batches of one epoch."""
        for count, batch in zip(range(self.steps), self.source.epoch(epoch, start_step), strict=False):
            if count == self.steps - 1:
                self.result = self.meter.stop()
            self.meter.tick(len(batch.labels))
            yield batch


def split_files() -> dict[str, str]:
    """The three files of the data."""
    folder = Path(given["data"]) / "split_1m"
    return {part: str(folder / f"{part}.parquet") for part in ("train", "valid", "test")}


def encode() -> dict[str, float]:
    """Infer the schema, fit the encoder on the training rows and write the shards of all parts."""
    from graphrec.pipelines.tables import Split, TableEncoder, TableSchema, open_table

    shutil.rmtree(WORK, ignore_errors=True)
    clock = Clock()
    table = open_table(str(Path(given["data"]) / "ctr_1m.parquet"))
    encoder = TableEncoder(TableSchema.infer(table, label="label"))
    encoder.fit_encode(table, Split.order(valid=0.1, test=0.1), cache_dir=WORK)
    wall, cpu = clock.read()
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "peak_mb": round(status_mb("VmHWM"))}


def train() -> dict[str, Any]:
    """Time steps of the training engine on the encoded training rows, as `CTRClassifier.fit` runs it."""
    import torch

    from graphrec import create_model
    from graphrec.estimators.settings import EMA
    from graphrec.pipelines.tables import BatchLoader, Role, Split, TableEncoder, TableSchema, open_table
    from graphrec.training import TrainConfig, Trainer

    table = open_table(str(Path(given["data"]) / "ctr_1m.parquet"))
    schema = TableSchema.infer(table, label="label", ignore=given.get("ignore", []))
    for column in schema.features:
        if column.role is Role.NUMERIC:  # the peers scale one vector by the number
            schema = schema.replace(column.name, transform=given.get("numbers", "standard"))
    encoder = TableEncoder(schema)
    parts = encoder.fit_encode(table, Split.order(valid=0.1, test=0.1), cache_dir=WORK)
    torch.manual_seed(given.get("seed", 0))
    model = create_model(given["model"], encoder.spec, **given.get("options", {}))
    source = Timed(BatchLoader(parts["train"], BATCH, shuffle=True), given["warmup"], given["steps"])
    training = {"ema": EMA, **given.get("training", {})}
    config = TrainConfig(epochs=1, batch_size=BATCH, progress=False, checkpoint_every=None, **training)
    Trainer(config).fit(model, source)
    return {**source.result, "gflops": gflops()}


def quality() -> dict[str, Any]:
    """Fit by the estimator, encoding included, and evaluate on the test file."""
    from graphrec import CTRClassifier

    files = split_files()
    shutil.rmtree(WORK, ignore_errors=True)
    arguments = {"random_state": given.get("seed", 0), "cache_dir": WORK, **given.get("arguments", {})}
    clock = Clock()
    model = CTRClassifier(given["model"], **arguments).fit(
        files["train"], label="label", validation=files["valid"]
    )
    _, cpu = clock.read()
    found = model.evaluate(files["test"])
    return {"auc": found["auc"], "logloss": found["logloss"], "fit_cpu": round(cpu, 1)}


def memory() -> dict[str, Any]:
    """Peak memory of fitting one epoch on a file, and what importing the libraries takes of it."""
    from graphrec import CTRClassifier

    CTRClassifier(given["model"])
    before, sampler, clock = status_mb("VmHWM"), PeakAnonymous(), Clock()
    shutil.rmtree(WORK, ignore_errors=True)
    sampler.start()
    model = CTRClassifier(given["model"], epochs=1, batch_size=BATCH, random_state=0, cache_dir=WORK)
    model.fit(given["file"], label="label", split="order")
    figures = {"peak_mb": round(status_mb("VmHWM")), "peak_anonymous_mb": round(sampler.stop())}
    shutil.rmtree(WORK, ignore_errors=True)
    return {**figures, "imports_mb": round(before), "cpu": round(clock.read()[1], 1)}


class RandomIds:
    """Batches of random ids: as 1 / rank, uniform (most ids of a large vocabulary are new to a step), or
    uniform among the same number of ids, spread evenly over the vocabulary.
    """

    steps, used = 10**9, 10_000

    def __init__(self, fields: int, size: int, draw: str) -> None:
        self.fields, self.size, self.draw = fields, size, draw

    def _ids(self, drawn: Any) -> Any:
        if self.draw == "same":
            drawn = (drawn * self.used).floor() / self.used
        places = self.size ** (drawn - 1) if self.draw == "skewed" else drawn
        return places.mul(self.size - 2).add(2).int()

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """Batches without end."""
        import torch

        from graphrec.pipelines.tables import Batch, Features

        generator = torch.Generator().manual_seed(0)
        while True:
            drawn = torch.rand(BATCH, self.fields, generator=generator, dtype=torch.float64)
            labels = torch.randint(0, 2, (BATCH, 1), generator=generator).float()
            yield Batch(Features(self._ids(drawn), torch.empty(BATCH, 0)), labels)


def vocabulary() -> dict[str, Any]:
    """Time steps on 10 categorical fields that share a given number of ids between them."""
    from graphrec import create_model
    from graphrec.estimators.settings import EMA
    from graphrec.pipelines.tables import FeatureSpec, Field, FieldKind
    from graphrec.training import TrainConfig, Trainer

    size = given["ids"] // 10
    spec = FeatureSpec(tuple(Field(f"C{i}", FieldKind.CATEGORICAL, size=size) for i in range(10)), ("label",))
    source = Timed(RandomIds(10, size, given["draw"]), given["warmup"], given["steps"])
    config = TrainConfig(epochs=1, progress=False, checkpoint_every=None, ema=EMA)
    Trainer(config).fit(create_model(given["model"], spec, embedding_dim=16), source)
    return {**source.result, "ms_per_step": round(1000 * BATCH / source.result["rows_per_cpu_second"], 2)}


def _saved() -> Path:
    return WORK / f"saved_{given['model']}"


def save_model() -> dict[str, Any]:
    """Fit on the first rows and save."""
    import polars as pl

    from graphrec import CTRClassifier

    rows = pl.read_parquet(Path(given["data"]) / "ctr_1m.parquet", n_rows=given["rows"])
    CTRClassifier(given["model"], epochs=given["epochs"], random_state=0, cache_dir=WORK).fit(
        rows, label="label"
    ).save(_saved(), overwrite=True)
    return {}


def serve_model() -> dict[str, Any]:
    """Time a saved model on later rows."""
    import pandas as pd

    def load() -> Any:
        from graphrec import CTRClassifier

        return CTRClassifier.load(_saved()).predict_proba

    def read() -> pd.DataFrame:
        return pd.read_parquet(Path(given["data"]) / "split_1m" / "test.parquet").drop(columns="label")

    return serve(read, load, given["sizes"])


TASKS = {
    "encode": encode,
    "train": train,
    "quality": quality,
    "memory": memory,
    "vocabulary": vocabulary,
    "save": save_model,
    "serve": serve_model,
}

if __name__ == "__main__":
    import torch

    torch.set_num_threads(given["threads"])
    finish(["graphrec", "torch", "polars"], **TASKS[given["task"]]())
