"""A model, data and a metric small enough for tests, and a script that fits them in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from graphrec.pipelines.tables.features import Batch, Features
from graphrec.training import TrainConfig, Trainer, seeded

VOCABULARY = 50


class Rows:
    """Rows whose label depends on an id and a number; batches like those of a table's loader."""

    def __init__(
        self, rows: int, batch: int, *, shuffle: bool = False, rank: int = 0, world: int = 1, seed: int = 0
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(VOCABULARY, (rows, 3), generator=random, dtype=torch.int32)
        self.numbers = torch.randn(rows, 2, generator=random)
        odds = 2.0 * (self.ids[:, 0] % 2) - 1 + self.numbers[:, 0]
        self.labels = (torch.rand(rows, generator=random) < odds.sigmoid()).float()[:, None]
        self.rows, self.batch, self.shuffle = rows, batch, shuffle
        self.rank, self.world_size = rank, world
        self.steps = -(-rows // batch)
        self.delay = 0.0
        self.announce = False

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        order = torch.arange(self.rows)
        if self.shuffle:
            order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(epoch))
        for step in range(start_step, self.steps):
            if self.announce:
                print("training", flush=True)
                self.announce = False
            time.sleep(self.delay)
            rows = order[step * self.batch : (step + 1) * self.batch][self.rank :: self.world_size]
            yield Batch(Features(self.ids[rows], self.numbers[rows]), self.labels[rows])


class Tiny(nn.Module):
    """Row gradients, and on request what makes a step random (dropout) and stateful (batch norm)."""

    def __init__(self, dropout: float = 0.2, norm: bool = True, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 4, sparse=True)
        self.embedding.weight.sparse_rows = True  # type: ignore[assignment]
        layers = [nn.Linear(14, width), nn.BatchNorm1d(width) if norm else nn.Identity(), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, features: Features) -> Tensor:
        embedded = self.embedding(features.categorical).flatten(1)
        return self.net(torch.cat([embedded, features.numeric], 1)).float()

    def training_loss(self, batch: Batch) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch.features), batch.labels)

    def predict(self, batch: Batch) -> Tensor:
        return self(batch.features).sigmoid()


class Scores:
    """Log loss and accuracy, or undefined when it saw nothing."""

    def __init__(self) -> None:
        self.y = np.zeros((0, 1), np.float32)
        self.p = np.zeros((0, 1), np.float32)

    def update(self, y: Any, p: Any, weights: Any = None, groups: Any = None) -> None:
        assert y.shape == p.shape
        self.merge({"y": y, "p": p})

    def compute(self) -> dict[str, float | None]:
        if not len(self.y):
            return {"logloss": None, "accuracy": None}
        p = self.p.astype(np.float64).clip(1e-7, 1 - 1e-7)
        loss = -(self.y * np.log(p) + (1 - self.y) * np.log(1 - p)).mean()
        return {"logloss": float(loss), "accuracy": float(((p > 0.5) == self.y).mean()), "rows": len(self.y)}

    def state(self) -> dict[str, Any]:
        return {"y": self.y, "p": self.p}

    def merge(self, state: Any) -> None:
        self.y = np.concatenate([self.y, state["y"]])
        self.p = np.concatenate([self.p, state["p"]])


def make_model(seed: int = 0, **options: Any) -> Tiny:
    with seeded(seed):
        return Tiny(**options)


def quick_config(**changes: Any) -> TrainConfig:
    quick = {
        "epochs": 3,
        "learning_rate": 0.01,
        "monitor": "logloss",
        "progress": False,
        "accelerator": "cpu",
    }
    return TrainConfig(**quick | changes)


def main(folder: Path, options: dict[str, Any]) -> None:
    """Fit in ``folder`` and write weights, history and predictions of each process there."""
    trainer = Trainer(quick_config(**options["config"]))
    where = {"rank": trainer.rank, "world": trainer.world_size}
    train = Rows(options["rows"], options["batch"], shuffle=True, **where)
    train.delay, train.announce = options.get("delay", 0.0), True
    valid = Rows(333, 100, seed=1, **where)
    model = make_model(trainer.rank, **options.get("model", {}))
    history = trainer.fit(model, train, valid, metrics=Scores(), run_dir=folder / "run")
    predictions = trainer.predict(model, Rows(333, 100, seed=1, **where))
    tensors = dict(model.state_dict()) | {"predictions": torch.from_numpy(predictions)}
    save_file(tensors, folder / f"rank{trainer.rank}.safetensors")
    (folder / f"rank{trainer.rank}.json").write_text(json.dumps(history.rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
