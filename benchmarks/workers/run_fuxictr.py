"""FuxiCTR 2.3.10 by its own recipe: encode the three files, time training steps, or fit and test.

The wheel lacks the models: ``zoo`` is the folder ``model_zoo`` of a checkout. FCN's official code, written
for FuxiCTR, goes there too: its ``src`` as ``DCNv3/src``, by the name that the model has in it.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from meter import Clock, Steps, finish, gflops, settings

given = settings()
WORK = Path(given["work"]) / "fuxictr"

PARAMETERS: dict[str, Any] = {
    "dataset_id": "ctr",
    "data_root": str(WORK),
    "data_format": "parquet",
    "min_categr_count": 2,
    "feature_cols": [
        {
            "name": [f"I{i}" for i in range(1, 14)],
            "active": True,
            "dtype": "float",
            "type": "numeric",
            "fill_na": 0.0,
            "normalizer": "StandardScaler",
        },
        {
            "name": [f"C{i}" for i in range(1, 27)],
            "active": True,
            "dtype": "str",
            "type": "categorical",
            "fill_na": "",
        },
    ],
    "label_col": {"name": "label", "dtype": "float"},
    "model_root": str(WORK / "checkpoints"),
    "loss": "binary_crossentropy",
    "metrics": ["logloss", "AUC"],
    "task": "binary_classification",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "embedding_regularizer": 0,
    "net_regularizer": 0,
    "batch_size": given.get("batch_size", 4096),
    "embedding_dim": 16,
    "dnn_hidden_units": [],
    "num_heads": 2,
    "attention_layers": 3,
    "attention_dim": 64,
    "use_residual": True,
    "model_structure": "parallel",
    "num_cross_layers": 3,
    "parallel_dnn_hidden_units": [400, 400],
    "dnn_activations": "relu",
    "epochs": given.get("epochs", 1),
    "shuffle": True,
    "seed": given.get("seed", 2019),
    "monitor": "AUC",
    "monitor_mode": "max",
    "verbose": 0,
    "num_workers": 1,
    "early_stop_patience": 2,
    "save_best_only": True,
    "eval_steps": None,
    "gpu": -1,
}

OF_MODEL: dict[str, dict[str, Any]] = {
    "DCNv3": {
        "num_heads": 1,
        "num_deep_cross_layers": 3,
        "num_shallow_cross_layers": 4,
        "deep_net_dropout": 0.1,
        "shallow_net_dropout": 0.1,
        "layer_norm": True,
        "batch_norm": True,
    }
}
"""What a model calls otherwise, or wants different."""

SET_ITSELF = {"FwFM": ("embedding_regularizer", "net_regularizer")}
"""Arguments that a model makes of others; its ``regularizer`` is none by default."""


def encode(params: dict[str, Any]) -> tuple[float, float]:
    """Build the data set in `WORK` anew; (wall, CPU) seconds."""
    from fuxictr.preprocess import FeatureProcessor, build_dataset

    shutil.rmtree(WORK / "ctr", ignore_errors=True)
    split = Path(given["data"]) / "split_1m"
    clock = Clock()
    processor = FeatureProcessor(**params)
    build_dataset(processor, **params, **{f"{part}_data": f"{split}/{part}.parquet" for part in PARTS})
    return clock.read()


PARTS = ("train", "valid", "test")


def encoded(params: dict[str, Any]) -> Any:
    """The feature map of the data set in `WORK`, encoded first if it is not there; sets the parts' paths."""
    from fuxictr.features import FeatureMap

    folder = WORK / "ctr"
    if not (folder / "test.parquet").exists():  # written last
        encode(params)
    params.update({f"{part}_data": str(folder / f"{part}.parquet") for part in PARTS})
    features = FeatureMap("ctr", str(folder))
    features.load(str(folder / "feature_map.json"), params)
    return features


def build(params: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Model, training loader and validation loader."""
    from fuxictr.pytorch.dataloaders import RankDataLoader
    from fuxictr.pytorch.torch_utils import seed_everything

    sys.path.insert(0, str(Path(given["zoo"]) / given["model"]))
    import src

    seed_everything(params["seed"])
    features = encoded(params)
    set_itself = SET_ITSELF.get(given["model"], ())
    model = getattr(src, given["model"])(features, **{k: v for k, v in params.items() if k not in set_itself})
    if given["model"] == "DCNv3":
        model.add_loss = functools.partial(tri_bce, model)
    train, valid = RankDataLoader(features, stage="train", **params)
    return model, train, valid


def tri_bce(model: Any, made: dict[str, Any], labels: Any) -> Any:
    """The loss of FCN's official code, for which FuxiCTR has run the model already since that was written."""
    whole, deep, shallow = (
        model.loss_fn(made[name], labels, reduction="mean") for name in ("y_pred", "y_d", "y_s")
    )
    return whole + deep * (deep - whole).clamp(min=0) + shallow * (shallow - whole).clamp(min=0)


def train(params: dict[str, Any]) -> dict[str, Any]:
    """Time steps of its own ``train_step`` on batches of its own loader."""
    model, batches, _ = build(params)
    model._max_gradient_norm = 10.0
    model.train()
    steps = Steps(given["warmup"])
    for count, batch in enumerate(batches):
        if count == given["warmup"] + given["steps"]:
            break
        steps.tick(len(batch["label"]))
        model.train_step(batch)
    return {**steps.stop(), "gflops": gflops()}


def quality(params: dict[str, Any]) -> dict[str, Any]:
    """Fit with early stopping on the validation part, evaluate on the test part."""
    from fuxictr.pytorch.dataloaders import RankDataLoader

    model, batches, valid = build(params)
    clock = Clock()
    model.fit(batches, validation_data=valid, epochs=params["epochs"])
    _, cpu = clock.read()
    found = model.evaluate(RankDataLoader(model.feature_map, stage="test", **params))
    return {"auc": float(found["AUC"]), "logloss": float(found["logloss"]), "fit_cpu": round(cpu, 1)}


def main() -> None:
    """Run the task that the settings name."""
    from fuxictr.utils import set_logger

    params = {
        **PARAMETERS,
        **OF_MODEL.get(given.get("model", ""), {}),
        "model": given.get("model", ""),
        "model_id": f"{given.get('model', '')}_{os.getpid()}",
    }
    WORK.mkdir(parents=True, exist_ok=True)
    os.chdir(WORK)
    set_logger(params)
    if given["task"] == "encode":
        wall, cpu = encode(params)
        finish(["fuxictr", "polars", "ray"], wall=round(wall, 2), cpu=round(cpu, 2))
        return
    figures = train(params) if given["task"] == "train" else quality(params)
    finish(["fuxictr", "torch"], **figures)


if __name__ == "__main__":
    main()
