"""The export itself: trace, write, run what was written, compare."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from graphrec import runs, tracing
from graphrec.errors import ConfigError, DataError, RunError
from graphrec.pipelines.tables import Batch, Features, FeatureSpec, open_table

from .readme import readme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from graphrec.ctr.base import CTRModel
    from graphrec.estimators import CTRClassifier

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2"}
"""Format -> file name."""
EXPORT_FILE = "export.json"
FORMAT_VERSION = 1
TOLERANCE = 1e-4
"""Largest difference between exported and original probabilities that is accepted."""
CHECK_ROWS = 512


class Scorer(nn.Module):
    """A CTR model as a function of plain tensors: those of `input_names`, in that order, to probabilities (B,
    T).
    """

    def __init__(self, module: CTRModel) -> None:
        super().__init__()
        # A copy without gradients takes the embedding's plain lookup, which exporters understand.
        self.module = copy.deepcopy(module).cpu().eval().requires_grad_(False)
        self.spec = module.spec

    def forward(self, *inputs: Tensor) -> Tensor:
        rows = inputs[0].shape[0]  # len() would fix the number of rows
        given = iter(inputs)
        categorical = (
            next(given) if self.spec.categorical else inputs[0].new_zeros((rows, 0), dtype=torch.int32)
        )
        numeric = next(given) if self.spec.numeric else inputs[0].new_zeros((rows, 0), dtype=torch.float32)
        features = Features(categorical, numeric, tuple(given))
        labels = inputs[0].new_zeros((rows, len(self.spec.labels)), dtype=torch.float32)
        return self.module.predict(Batch(features, labels))


def input_names(spec: FeatureSpec) -> list[str]:
    """Names of the model's inputs: ``categorical``, ``numeric`` where there are such fields,
    ``list_<field>``.
    """
    kinds = [name for name in ("categorical", "numeric") if getattr(spec, name)]
    return kinds + [f"list_{field.name}" for field in spec.lists]


def input_tensors(spec: FeatureSpec, features: Features) -> tuple[Tensor, ...]:
    """The tensors of `input_names`."""
    plain = [getattr(features, name) for name in ("categorical", "numeric") if getattr(spec, name)]
    return (*plain, *features.lists)


def export_run(
    run: str | Path, folder: str | Path, *, format: str = "onnx", data: Any = None
) -> dict[str, Any]:
    """`export_model` for the estimator of a run folder."""
    from graphrec.estimators import CTRClassifier

    return export_model(CTRClassifier.load(run), folder, format=format, data=data)


def export_model(
    estimator: CTRClassifier,
    folder: str | Path,
    *,
    format: str = "onnx",
    data: Any = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a fitted estimator's model and encoder, and check that the exported model gives the same scores.

    Args:
        estimator: A fitted `CTRClassifier`.
        folder: Folder to make; nothing is left when the export fails.
        format: ``"onnx"`` or ``"torch"``.
        data: Rows to check on; without it, the file that the model was fitted on, where it is still there,
            and random valid inputs otherwise.
        overwrite: Replace the folder.

    Returns:
        What ``export.json`` says: format, inputs, labels, classes, and ``check`` with the number and origin
        of the rows and the largest difference.

    Raises:
        ConfigError: The format is unknown.
        MissingExtraError: The ONNX packages are not installed.
        RunError: The folder exists, or the scores differ by more than 1e-4.
    """
    if format not in FORMATS:
        raise ConfigError(f"format: {format!r} is not one of {', '.join(FORMATS)}")
    if format == "onnx":
        tracing.need_onnx()
    spec: FeatureSpec = estimator.encoder_.spec
    scorer = Scorer(estimator.module_)
    features, origin = check_features(estimator, data)
    inputs = input_tensors(spec, features)
    with runs.atomic_folder(folder, overwrite=overwrite) as temporary:
        file = temporary / FORMATS[format]
        write, read = (_write_onnx, _run_onnx) if format == "onnx" else (_write_torch, _run_torch)
        write(scorer, inputs, input_names(spec), file)
        difference = _difference(scorer, inputs, lambda tensors: read(file, input_names(spec), tensors))
        facts = _facts(
            estimator, format, {"rows": len(inputs[0]), "origin": origin, "max_abs_difference": difference}
        )
        estimator.encoder_.save(temporary / "encoder")
        runs.write_json(temporary / EXPORT_FILE, facts)
        (temporary / "README.md").write_text(readme(estimator, facts), encoding="utf-8")
    return facts


def check_features(estimator: CTRClassifier, data: Any) -> tuple[Features, str]:
    """Encoded rows to compare on, and where they are from."""
    source = data if data is not None else estimator._facts["source"].get("data")
    if source is not None:
        try:
            batches = estimator.encoder_.batches(
                open_table(source), batch_size=CHECK_ROWS, require_labels=None
            )
            features = next(iter(batches)).features
            if len(input_tensors(estimator.encoder_.spec, features)[0]) > 1:
                return features, "given rows" if data is not None else "the rows it was fitted on"
        except DataError:
            if data is not None:
                raise
    return random_features(estimator.encoder_.spec, CHECK_ROWS), "random valid inputs"


def random_features(spec: FeatureSpec, rows: int) -> Features:
    """Valid inputs with every kind of value: null, unseen and known ids, missing and large numbers, empty
    lists.
    """
    draw = torch.Generator().manual_seed(0)

    def ids(size: int, *shape: int) -> Tensor:
        return torch.randint(0, size, shape, generator=draw, dtype=torch.int32)

    columns = [ids(field.size, rows) for field in spec.categorical]
    categorical = torch.stack(columns, 1) if columns else torch.zeros(rows, 0, dtype=torch.int32)
    numeric = torch.randn(rows, len(spec.numeric), generator=draw)
    numeric *= torch.tensor([max(field.knots, 1) for field in spec.numeric])
    numeric[torch.rand(numeric.shape, generator=draw) < 0.1] = float("nan")
    lists = []
    for field in spec.lists:
        lengths = torch.randint(0, field.length + 1, (rows, 1), generator=draw)
        items = ids(field.size - 1, rows, field.length) + 1
        lists.append(items.masked_fill(torch.arange(field.length) >= lengths, 0))
    return Features(categorical, numeric, tuple(lists))


def _difference(scorer: Scorer, inputs: tuple[Tensor, ...], run: Any) -> float:
    """Largest absolute difference over all rows at once, and over the first row alone."""
    worst = 0.0
    for tensors in (inputs, tuple(t[:1] for t in inputs)):
        with torch.no_grad():
            expected = scorer(*tensors).numpy()
        worst = max(worst, float(np.abs(run(tensors) - expected).max()))
    if not worst <= TOLERANCE:
        raise RunError(
            f"export: the exported model's scores differ by {worst:.2g}, more than {TOLERANCE:g}; not written"
        )
    return worst


def _write_torch(scorer: Scorer, inputs: tuple[Tensor, ...], names: list[str], file: Path) -> None:
    tracing.write_torch(tracing.traced(scorer, inputs, star=True), file)


def _run_torch(file: Path, names: list[str], inputs: tuple[Tensor, ...]) -> NDArray[np.float32]:
    return tracing.run_torch(file, inputs)


def _write_onnx(scorer: Scorer, inputs: tuple[Tensor, ...], names: list[str], file: Path) -> None:
    tracing.write_onnx(scorer, inputs, file, names=names, output="probability", star=True)


def _run_onnx(file: Path, names: list[str], inputs: tuple[Tensor, ...]) -> NDArray[np.float32]:
    return tracing.run_onnx(file, dict(zip(names, inputs, strict=True)), "probability")


def _facts(estimator: CTRClassifier, format: str, check: dict[str, Any]) -> dict[str, Any]:
    from graphrec import __version__

    spec: FeatureSpec = estimator.encoder_.spec
    fields = {"categorical": spec.categorical, "numeric": spec.numeric}
    inputs: list[dict[str, Any]] = [
        {"name": n, "dtype": "float32" if n == "numeric" else "int32", "fields": [f.name for f in fields[n]]}
        for n in ("categorical", "numeric")
        if fields[n]
    ]
    inputs += [
        {"name": f"list_{f.name}", "dtype": "int32", "fields": [f.name], "length": f.length}
        for f in spec.lists
    ]
    return {
        "format_version": FORMAT_VERSION, "graphrec": __version__, "torch": torch.__version__,
        "format": format, "model": estimator._asked["model"], "file": FORMATS[format],
        "inputs": inputs, "output": "probability",
        "labels": list(spec.labels), "classes": [np.asarray(pair).tolist() for pair in estimator._classes],
        "check": check,
    }  # fmt: skip
