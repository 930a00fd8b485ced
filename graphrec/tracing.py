"""Models to files that a server runs without this package: ONNX and torch.export, any number of rows."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import MissingExtraError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

FACTS = "graphrec"
"""Key under which both formats hold what is to be known of the model, as JSON."""
_EXTERNAL_DATA_FROM = 1.5e9
"""Bytes of weights from which ONNX keeps them in a second file: a protobuf cannot exceed 2 GB."""


def traced(
    module: nn.Module, inputs: tuple[Tensor, ...], *, star: bool = False
) -> torch.export.ExportedProgram:
    """A module as a graph whose first axes are free.

    Args:
        module: In evaluation mode, without gradients.
        inputs: Examples with two rows or more: one row would be taken for a constant.
        star: Whether the module's forward takes ``*inputs``.
    """
    import torch

    rows = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    with torch.no_grad(), quiet():
        return torch.export.export(module, inputs, dynamic_shapes=(rows,) if star else rows, strict=False)


def write_torch(
    program: torch.export.ExportedProgram, file: Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write a graph for `torch.export.load`.

    Raises:
        OSError: It cannot be written. That is why it is made in memory first: where torch itself cannot write
            on, as on a full disk, it aborts the process.
    """
    import torch

    extra, made = None if facts is None else {FACTS: json.dumps(facts)}, io.BytesIO()
    with quiet():
        torch.export.save(program, made, extra_files=extra)
    file.write_bytes(made.getbuffer())


def run_torch(file: Path, inputs: Sequence[Tensor]) -> NDArray[Any]:
    """What a written graph makes of inputs."""
    import torch

    with torch.no_grad(), quiet():
        return torch.export.load(file).module()(*inputs).numpy()


def write_onnx(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    file: Path,
    *,
    names: Sequence[str],
    output: str,
    star: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a module as ONNX.

    Args:
        module: As for `traced`.
        inputs: As for `traced`.
        file: To write.
        names: Of the inputs.
        output: Name of the output.
        star: As for `traced`.
        facts: What the file's metadata are to say.
    """
    import torch

    size = sum(p.numel() * p.element_size() for p in module.parameters())
    rows = tuple({0: torch.export.Dim("rows")} for _ in inputs)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            module, inputs, file, dynamo=True, input_names=list(names), output_names=[output], verbose=False,
            dynamic_shapes=(rows,) if star else rows, external_data=size > _EXTERNAL_DATA_FROM,
        )  # fmt: skip
    if facts is not None:
        _add_facts(file, facts)


def _add_facts(file: Path, facts: Mapping[str, Any]) -> None:
    import onnx

    model = onnx.load(file, load_external_data=False)
    onnx.helper.set_model_props(model, {FACTS: json.dumps(facts)})
    onnx.save(model, file)


def run_onnx(file: Path, inputs: Mapping[str, Tensor], output: str) -> NDArray[Any]:
    """What a written model makes of inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    return np.asarray(session.run([output], feed)[0])


def need_onnx() -> None:
    """Refuse to begin without the packages of the extra.

    Raises:
        MissingExtraError: One is missing.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"export to onnx needs {', '.join(missing)}: pip install 'graphrec[onnx]'")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters print their progress and warn of their own internals; neither helps here."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)
