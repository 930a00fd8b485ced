"""Commands that fit: fit and demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphrec.errors import ConfigError

from . import options as o
from .common import DataPath, Debug, command, console, data_name, metrics_table, stopped

if TYPE_CHECKING:
    from graphrec.estimators import CTRClassifier
    from graphrec.vision import ImageClassifier

    Estimator = CTRClassifier | ImageClassifier

Out = Annotated[
    str | None, typer.Option("--out", "-o", help="Run folder to make; runs/DATA-MODEL, numbered, by default.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the unfinished run of that folder, if there is one.")
]


@command
def fit(
    data: DataPath,
    label: o.Label = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="See `graphrec models` (default fcn; of images convnext_tiny)."),
    ] = None,
    task: o.TaskName = "ctr",
    out: Out = None,
    config: o.ConfigFile = None,
    schema: o.SchemaFile = None,
    valid: o.Valid = None,
    test: o.Test = None,
    split: o.SplitKind = "",
    weight: o.Weight = None,
    group: o.Group = None,
    time: o.Time = None,
    ignore: o.Ignore = None,
    role: o.RoleOption = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    patience: o.Patience = None,
    seed: o.Seed = None,
    device: o.Device = None,
    devices: o.Devices = None,
    precision: o.Precision = None,
    compile: o.Compile = False,
    image_size: o.ImageSize = None,
    image_column: o.ImageColumn = None,
    pretrained: o.Pretrained = None,
    freeze: o.Freeze = None,
    skip_broken: o.SkipBroken = False,
    settings: o.Set = None,
    resume: Resume = False,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit a model on a table, or on images, and write a run folder with its report.

    Examples:

        graphrec fit log.parquet --label click

        graphrec fit 'logs/*.parquet' --label click --model autoint --test 0.1 --split time:ts --group user_id

        graphrec fit log.parquet --label click --label like --model mmoe --set embedding_dim=32

        graphrec fit log.parquet --config runs/first/config.yaml --seed 1 --out runs/second

        graphrec fit photos/ --task image --model swin_tiny --pretrained yes --freeze 2 --epochs 5

        graphrec fit images.parquet --task image --label species --model convnext_tiny --set ema=0.9998
    """
    given = dict(locals())
    from .images import refuse_options

    if task == "image":
        _fit_images(given)
        return
    if task != "ctr":
        raise ConfigError(f"--task: {task!r} is neither ctr nor image; recipes (graphrec run) have others")
    of_images = ("image_size", "image_column", "pretrained", "freeze")
    refuse_options(**{key: given[key] for key in of_images}, skip_broken=skip_broken or None)
    settings_of_file = o.read_config(config)
    arguments = o.data_arguments(settings_of_file, {**given, "split": split or None})
    estimator = o.make_estimator(settings_of_file, o.training_settings(given), settings, config)
    folder = Path(out) if out else _free_folder(data, estimator.model, resume)
    _fit_into(estimator, data, folder, {**arguments, "resume": resume, "overwrite": overwrite})


def _fit_images(given: dict[str, Any]) -> None:
    from .images import data_arguments, make_estimator

    arguments = data_arguments(given)
    estimator = make_estimator(given, given["settings"])
    folder = (
        Path(given["out"]) if given["out"] else _free_folder(given["data"], estimator.model, given["resume"])
    )
    arguments |= {"resume": given["resume"], "overwrite": given["overwrite"]}
    _fit_into(estimator, given["data"], folder, arguments)


@command
def demo(
    out: Out = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model to fit.")] = "fcn",
    quick: Annotated[bool, typer.Option("--quick", help="One epoch, to see that everything works.")] = False,
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    overwrite: o.Overwrite = False,
    debug: Debug = False,
) -> None:
    """Fit a model on the real data set that ships with the package.

    12,330 sessions of a web shop: which of them end with a purchase?

    Example: graphrec demo
    """
    from graphrec.data import DEMO_LABEL, DEMO_ROLES, demo_path

    given = {"model": model, "seed": seed, "epochs": 1 if quick else None, "quiet": quiet}
    estimator = o.make_estimator({}, o.training_settings(given), None)
    folder = Path(out) if out else _free_folder("demo", model, resume=False)
    console().print(
        "UCI Online Shoppers Purchasing Intention: 12,330 sessions of a web shop; did they end in a purchase?"
    )
    arguments = {"label": DEMO_LABEL, "roles": DEMO_ROLES, "test": 0.2, "overwrite": overwrite}
    _fit_into(estimator, str(demo_path()), folder, arguments)


def _free_folder(data: str, model: str, resume: bool) -> Path:
    """runs/DATA-MODEL, with the first number that is free; with ``resume`` an unfinished one if there is
    any.
    """
    base = Path("runs") / f"{data_name(data)}-{model}"
    candidates = [base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 10_000))]
    unfinished = [c for c in candidates[:100] if c.with_name(c.name + ".partial").exists()]
    if resume and unfinished:
        return unfinished[-1]
    return next(c for c in candidates if not c.exists() and c not in unfinished)


def _fit_into(estimator: Estimator, data: str, folder: Path, arguments: dict[str, Any]) -> None:
    try:
        estimator.fit(data, run_dir=folder, **arguments)
    except KeyboardInterrupt as error:
        hint = f"; run the same command with --out {folder} --resume to continue" if _partial(folder) else ""
        stopped(error, hint)
    from graphrec.runs import is_main_process

    if is_main_process():
        _show(estimator, folder)


def _partial(folder: Path) -> bool:
    return folder.with_name(folder.name + ".partial").exists()


def _show(estimator: Estimator, folder: Path) -> None:
    console().print(metrics_table(estimator.metrics_, f"{estimator.model}: metrics"))
    typer.echo(f"run folder: {folder}")
    typer.echo(f"report: {folder / 'report.html'}")
