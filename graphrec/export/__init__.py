"""Export a fitted model for a server: ONNX or torch.export, with the encoder beside it.

The folder holds ``model.onnx`` or ``model.pt2`` (encoded inputs to probabilities, any number of rows),
``encoder/`` (raw rows to encoded inputs), ``export.json`` (inputs, labels, the check that was made) and a
README. ``python -m graphrec.examples.score FOLDER rows.jsonl`` goes from raw rows to scores without torch.
"""

from .exporting import Scorer, export_model, export_run, input_names, input_tensors

__all__ = ["Scorer", "export_model", "export_run", "input_names", "input_tensors"]
