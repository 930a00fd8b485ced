"""Options that several commands share, as annotated types, and how they become estimator arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphrec.errors import ConfigError

from .common import fraction_or_path, merge_settings, names, parse_settings

if TYPE_CHECKING:
    from graphrec.estimators import CTRClassifier

DATA, TRAINING, IMAGES = "Data", "Training", "Images"

TaskName = Annotated[
    str,
    typer.Option(
        "--task", help="ctr: clicks, from a table. image: classes of images, from a manifest or folder."
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", help="Side in pixels (default: the model's).", rich_help_panel=IMAGES),
]
ImageColumn = Annotated[
    str | None,
    typer.Option("--image-column", help="Column of paths or bytes; found otherwise.", rich_help_panel=IMAGES),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        help="Start from weights: yes for the published ones, or a file.",
        rich_help_panel=IMAGES,
    ),
]
Freeze = Annotated[
    str | None,
    typer.Option(
        "--freeze", help="Leave as they are: stem, so many stages, or all-but-head.", rich_help_panel=IMAGES
    ),
]
SkipBroken = Annotated[
    bool,
    typer.Option(
        "--skip-broken", help="Leave out images that cannot be read, and name them.", rich_help_panel=IMAGES
    ),
]

Label = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", help="Label column; repeat, or separate by commas, for several."),
]
Valid = Annotated[
    str | None,
    typer.Option(
        "--valid", help="Fraction (default 0.1) or file to stop by and to measure on.", rich_help_panel=DATA
    ),
]
Test = Annotated[
    str | None,
    typer.Option("--test", help="Fraction or file that training never sees.", rich_help_panel=DATA),
]
SplitKind = Annotated[
    str,
    typer.Option(
        "--split",
        help="random, order, time:COLUMN or group:COLUMN; of images also a column of parts.",
        rich_help_panel=DATA,
    ),
]
Weight = Annotated[
    str | None, typer.Option("--weight", help="Column of sample weights.", rich_help_panel=DATA)
]
Group = Annotated[
    str | None,
    typer.Option("--group", help="Column of the user or session, for group AUC.", rich_help_panel=DATA),
]
Time = Annotated[str | None, typer.Option("--time", help="Timestamp column.", rich_help_panel=DATA)]
Ignore = Annotated[
    list[str] | None, typer.Option("--ignore", help="Column to leave out; repeatable.", rich_help_panel=DATA)
]
RoleOption = Annotated[
    list[str] | None, typer.Option("--role", help="column=role, to overrule the guess.", rich_help_panel=DATA)
]
SchemaFile = Annotated[
    str | None,
    typer.Option("--schema", help="Schema that `graphrec schema --out` wrote.", rich_help_panel=DATA),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", help="Passes over the data, at most.", rich_help_panel=TRAINING)
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Rows per step.", rich_help_panel=TRAINING)
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", "--learning-rate", help="Learning rate.", rich_help_panel=TRAINING)
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience",
        help="Stop after so many evaluations without a better one (default 2; of images never); 0 for never.",
        rich_help_panel=TRAINING,
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Of everything random (default 0).", rich_help_panel=TRAINING)
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.", rich_help_panel=TRAINING)]
Devices = Annotated[
    str | None, typer.Option("--devices", help="How many, or auto.", rich_help_panel=TRAINING)
]
Precision = Annotated[
    str | None, typer.Option("--precision", help="32-true or bf16-mixed.", rich_help_panel=TRAINING)
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the model by torch.compile.", rich_help_panel=TRAINING)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="key=value: any setting of the estimator, trainer or model.", rich_help_panel=TRAINING
    ),
]
ConfigFile = Annotated[
    str | None,
    typer.Option("--config", help="YAML of settings, such as a run's config.yaml; options given here win."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]

_DATA_KEYS = ("label", "weight", "group", "time", "split", "validation", "test", "roles", "ignore")
_FOREIGN_KEYS = ("data", "data_fingerprint", "model_options", "train_options")


def read_config(file: str | None) -> dict[str, Any]:
    """A configuration file with the paths in it made absolute; that of a run must be whole."""
    from graphrec import runs

    if file is None:
        return {}
    folder = Path(file).parent
    if Path(file).name == runs.CONFIG_FILE and (folder / runs.RUN_FILE).is_file():
        config = runs.read_config(folder, runs.read_run(folder))
    else:
        config = runs.read_yaml(Path(file))
    if config.get("schema"):
        config["schema"] = str(Path(file).parent / str(config["schema"]))
    return config


def data_arguments(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of ``fit`` that describe the data: the configuration's, with the command line's
    over them.

    Raises:
        ConfigError: No label is named and there is no schema to tell.
    """
    arguments = {key: config[key] for key in _DATA_KEYS if config.get(key) is not None}
    label = names(given.get("label"))
    roles = parse_settings(given.get("role") or [], "--role")
    mine = {
        "label": label[0] if len(label) == 1 else label,
        "validation": fraction_or_path(given.get("valid")),
        "test": fraction_or_path(given.get("test")),
        "ignore": names(given.get("ignore")),
        "roles": {**(arguments.get("roles") or {}), **roles},
        **{key: given.get(key) for key in ("weight", "group", "time", "split")},
    }
    arguments |= {key: value for key, value in mine.items() if value not in (None, [], {})}
    if not arguments.get("label") and not (given.get("schema") or config.get("schema")):
        raise ConfigError("--label: name the column to predict; `graphrec schema PATH` lists the columns")
    return arguments


def make_estimator(
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    settings: Sequence[str] | None,
    file: str | None = None,
) -> CTRClassifier:
    """An estimator from a configuration file, then the options, then ``--set``, each over those before it.

    Args:
        config: What the file says.
        given: Options by their names as arguments.
        settings: Pairs of ``--set``.
        file: The file, for messages.

    Raises:
        ConfigError: A key is not known anywhere, or a value is wrong.
    """
    from graphrec.estimators import CTRClassifier
    from graphrec.estimators.settings import check, split_settings
    from graphrec.training.arguments import seed_of

    estimator = CTRClassifier(random_state=0, verbose=1)
    nested = {key: config[key] for key in ("model_options", "train_options") if config.get(key)}
    flat = {k: v for k, v in config.items() if k not in (*_DATA_KEYS, *_FOREIGN_KEYS) and v is not None}
    try:
        estimator.set_params(**nested, **split_settings(estimator, flat))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    estimator.set_params(**split_settings(estimator, merge_settings(given, settings)))
    check(estimator, seed_of(estimator.random_state))
    return estimator


def training_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Command line options by their names as estimator arguments."""
    devices = given.get("devices")
    return {
        "model": given.get("model"),
        "schema": given.get("schema"),
        "epochs": given.get("epochs"),
        "batch_size": given.get("batch_size"),
        "learning_rate": given.get("lr"),
        "patience": given.get("patience"),
        "random_state": given.get("seed"),
        "accelerator": given.get("device"),
        "devices": int(devices) if devices is not None and devices.isdigit() else devices,
        "precision": given.get("precision"),
        "compile": True if given.get("compile") else None,
        "verbose": 0 if given.get("quiet") else None,
    }
