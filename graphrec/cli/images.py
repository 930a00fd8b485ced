"""What the commands do with images: the same options, another estimator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from graphrec.errors import ConfigError

from .common import console, fraction_or_path, merge_settings, metrics_table, names, number
from .options import read_config, training_settings

if TYPE_CHECKING:
    import polars as pl

    from graphrec.vision import ImageClassifier

ESTIMATOR = "ImageClassifier"
_OF_TABLES = ("schema", "time", "ignore", "role")
_DATA_KEYS = ("label", "image", "group", "weight", "root", "split", "validation", "test", "on_corrupt")
_FOREIGN = ("data", "data_fingerprint", "model_options", "train_options")
DRAWN = 8
"""Images that `explain` draws."""
_CELLS = 12
"""Classes whose confusion fits on a terminal."""


def is_image_run(run: str) -> bool:
    """Whether a run folder holds a classifier of images.

    Raises:
        RunError: It is no run folder.
    """
    from graphrec.runs import read_run

    return read_run(run).get("estimator") == ESTIMATOR


def refuse_options(**given: Any) -> None:
    """Say that an option is for images, where a table is at hand.

    Raises:
        ConfigError: One is given.
    """
    for key, value in given.items():
        if value is not None:
            raise ConfigError(f"--{key.replace('_', '-')}: is for images, `graphrec fit --task image`")


def make_estimator(given: Mapping[str, Any], settings: Sequence[str] | None) -> ImageClassifier:
    """An estimator from a configuration file, then the options, then ``--set``.

    Raises:
        ConfigError: A key is not known anywhere, or a value is wrong.
    """
    from graphrec.vision import ImageClassifier
    from graphrec.vision.classification.settings import check, split_settings

    config, estimator = read_config(given.get("config")), ImageClassifier(random_state=0, verbose=1)
    nested = {key: config[key] for key in ("model_options", "train_options") if config.get(key)}
    flat = {k: v for k, v in config.items() if k not in (*_DATA_KEYS, *_FOREIGN) and v is not None}
    estimator.set_params(**nested, **split_settings(estimator, flat))
    changes = {
        **training_settings(given),
        "image_size": given.get("image_size"),
        "pretrained": _pretrained(given.get("pretrained")),
        "freeze": _number(given.get("freeze")),
    }
    estimator.set_params(**split_settings(estimator, merge_settings(changes, settings)))
    check(estimator)
    return estimator


def data_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of ``fit`` that describe the data.

    Raises:
        ConfigError: An option is for tables.
    """
    for key in _OF_TABLES:
        if given.get(key):
            raise ConfigError(f"--{key}: is for tables, not for images")
    config = read_config(given.get("config"))
    arguments = {key: config[key] for key in _DATA_KEYS if config.get(key) is not None}
    label = names(given.get("label"))
    if len(label) > 1:
        raise ConfigError(f"--label: an image has one, found {', '.join(label)}")
    kind, _, column = (given.get("split") or "").partition(":")
    mine = {
        "label": label[0] if label else None,
        "image": given.get("image_column"),
        "group": column if kind == "group" else given.get("group"),
        "weight": given.get("weight"),
        "split": None if kind in ("", "random", "group") else kind,
        "validation": fraction_or_path(given.get("valid")),
        "test": fraction_or_path(given.get("test")),
        **_given(bool(given.get("skip_broken"))),
    }
    return arguments | {key: value for key, value in mine.items() if value is not None}


def _given(skip_broken: bool, **more: str | None) -> dict[str, str]:
    """Arguments of `open_images`: those that are not None, and what ``--skip-broken`` stands for."""
    found = {**more, "on_corrupt": "skip" if skip_broken else None}
    return {key: value for key, value in found.items() if value is not None}


def _pretrained(text: str | None) -> bool | str | None:
    return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower(), text) if text else None


def _number(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


def predict_images(
    run: str,
    data: str,
    out: str,
    keep: Sequence[str],
    image: str | None,
    overwrite: bool,
    skip_broken: bool = False,
) -> int:
    """Write a row per image: its name, the class, its probability and that of every class.

    Columns of the manifest to keep come first; one of the name ``image`` takes the place of ours.

    Raises:
        ConfigError: ``out`` has another extension than .parquet and .csv, or columns cannot be kept.
        SchemaError: There is no such column.
        RunError: It exists.
    """
    import polars as pl

    from graphrec.estimators.writing import check_out
    from graphrec.runs import atomic_file
    from graphrec.vision import ImageClassifier
    from graphrec.vision.classification.data import open_unlabelled

    path = check_out(out, overwrite)
    model = ImageClassifier.load(run)
    scores = ["class", "probability", *(f"probability_{name}" for name in model.classes_)]
    kept = _kept(data, keep, scores, path)
    images = open_unlabelled(data, columns=_given(skip_broken, image=image))
    p = model.predict_proba(images)
    best = p.argmax(1)
    values = [model.classes_[best], p[range(len(p)), best], *p.T]
    frame = pl.DataFrame(dict(zip(scores, values, strict=True)))
    if kept is None or "image" not in kept.columns:
        frame.insert_column(0, pl.Series("image", images.names))
    if kept is not None:
        frame = pl.concat([kept[images.rows.numpy()], frame], how="horizontal")
    with atomic_file(path) as temporary:
        if path.suffix == ".csv":
            frame.write_csv(temporary)
        else:
            frame.write_parquet(temporary)
    return len(frame)


def _kept(data: str, keep: Sequence[str], scores: Sequence[str], out: Path) -> pl.DataFrame | None:
    """Columns of a manifest to copy; of ``all`` without the encoded images."""
    import polars as pl

    if not keep:
        return None
    from graphrec.estimators.writing import kept_columns
    from graphrec.pipelines.images.opening import kind_of
    from graphrec.pipelines.tables import open_table

    if kind_of(data) != "manifest":
        raise ConfigError(f"--keep: is for manifests; {data} has no columns")
    table = open_table(data)
    if list(keep) == ["all"]:
        keep = [name for name, kind in table.columns.items() if not (kind == pl.Binary or kind.is_nested())]
    return table.collect(table.lazy.select(kept_columns(table, keep, scores, out)))


def explain_images(run: str, data: str, out: str, overwrite: bool, skip_broken: bool = False) -> list[str]:
    """Draw what a run looks at in images from all over the data, as PNG and SVG: a folder is sorted by class.

    Returns:
        The names of the files.
    """
    import numpy as np

    from graphrec.runs import atomic_folder
    from graphrec.vision import ImageClassifier
    from graphrec.vision.classification.data import open_unlabelled

    model = ImageClassifier.load(run)
    images = open_unlabelled(data, columns=_given(skip_broken))
    files = ["attention.png", "attention.svg"]
    with atomic_folder(out, overwrite=overwrite) as folder:
        shown = np.linspace(0, len(images) - 1, min(len(images), DRAWN)).round().astype(int)
        figure = model.draw_attention(images.subset(shown))
        for name in files:
            figure.savefig(folder / name, dpi=120)
    return files


def export_images(run: str, out: str, format: str, overwrite: bool) -> dict[str, Any]:
    """Write a run's model for a server; its file and what the check of it found.

    Raises:
        ConfigError: There is no such format.
    """
    from graphrec.runs import atomic_folder
    from graphrec.vision import ImageClassifier

    files = {"onnx": "model.onnx", "torch": "model.pt2"}
    if format not in files:
        raise ConfigError(f"--format: {format!r} is not one of {', '.join(files)}")
    model = ImageClassifier.load(run)
    with atomic_folder(out, overwrite=overwrite) as folder:
        facts = model.export(folder / files[format])
        model._write_more(folder)
    return {"file": files[format], **facts}


def evaluate_images(
    run: str, data: str, as_json: bool, skip_broken: bool = False, **columns: str | None
) -> None:
    """Print metrics, those of every class, and of few classes the confusion."""
    from rich.table import Table

    from graphrec.vision import ImageClassifier

    found = ImageClassifier.load(run).evaluate(data, **_given(skip_broken, **columns))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    plain = {key: value for key, value in found.items() if not isinstance(value, dict | list)}
    out = console()
    out.print(metrics_table({data: plain}, f"{run}: metrics"))
    shown = ("images", "precision", "recall", "f1")
    table = Table("class", *shown, title="every class", title_justify="left")
    for name, values in found["per_class"].items():
        table.add_row(name, *(number(values[key]) for key in shown))
    out.print(table)
    classes = list(found["per_class"])
    if len(classes) <= _CELLS:
        table = Table("true class", *classes, title="taken for", title_justify="left")
        for name, cells in zip(classes, found["confusion"], strict=True):
            table.add_row(name, *map(str, cells))
        out.print(table)
