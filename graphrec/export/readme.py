"""The README of an export folder: what goes in, what comes out, how to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphrec.estimators import CTRClassifier

_ONNX = """```python
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
probability = session.run(["probability"], {feed})[0]  # (rows, {labels})
```"""
_TORCH = """```python
import torch
model = torch.export.load("model.pt2").module()
probability = model({arguments})  # (rows, {labels})
```"""


def readme(estimator: CTRClassifier, facts: dict[str, Any]) -> str:
    """Markdown for the people who serve the model."""
    check = facts["check"]
    parts = [
        f"# {facts['model']}, exported by graphrec {facts['graphrec']}\n",
        f"`{facts['file']}` takes encoded inputs and returns the probability of {_labels(facts)}; any "
        f"number of rows at once. It was compared with the original on {check['rows']} rows "
        f"({check['origin']}): the largest difference was {check['max_abs_difference']:.2g}.\n",
        "## From raw rows to scores\n",
        "`encoder/` holds the fitted encoder: the schema (YAML), its parameters (JSON) and vocabularies "
        "(parquet). One JSON object per line, one key per column below:\n",
        _score_example(facts),
        "| column | type | role |\n|---|---|---|",
        *(f"| {c.name} | {c.dtype} | {c.role.value} |" for c in estimator.schema_.features),
        "\nA value that the encoder never saw, a null and a missing key are all fine.\n",
        "## Encoded inputs\n",
        "| input | dtype | shape | columns, in order |\n|---|---|---|---|",
        *map(_input_row, facts["inputs"]),
        "\nIds: 0 is null (and padding of lists), 1 is unseen. `numeric` is scaled as the encoder does it; "
        "NaN is a missing value.\n",
        _run_example(facts),
    ]
    return "\n".join(parts) + "\n"


def _labels(facts: dict[str, Any]) -> str:
    pairs = zip(facts["labels"], facts["classes"], strict=True)
    return " and ".join(f"`{name}` = {classes[1]!r}" for name, classes in pairs)


def _score_example(facts: dict[str, Any]) -> str:
    if facts["format"] != "onnx":
        return "`graphrec.pipelines.tables.TableEncoder.load('encoder')` turns a table into the inputs.\n"
    return "```bash\npython -m graphrec.examples.score . rows.jsonl\n```\n"


def _input_row(entry: dict[str, Any]) -> str:
    width = entry.get("length", len(entry["fields"]))
    return f"| `{entry['name']}` | {entry['dtype']} | (rows, {width}) | {', '.join(entry['fields'])} |"


def _run_example(facts: dict[str, Any]) -> str:
    names = [entry["name"] for entry in facts["inputs"]]
    if facts["format"] == "onnx":
        feed = "{" + ", ".join(f'"{name}": {name}' for name in names) + "}"
        return _ONNX.replace("{feed}", feed).replace("{labels}", str(len(facts["labels"])))
    return _TORCH.replace("{arguments}", ", ".join(names)).replace("{labels}", str(len(facts["labels"])))
