"""A fit that writes a run folder as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphrec import runs

from . import settings
from .data import Parts
from .fitting import Trained, train
from .report import write_image_report

if TYPE_CHECKING:
    from graphrec.run_writer import RunWriter

    from .classifier import ImageClassifier


def train_into(estimator: ImageClassifier, writer: RunWriter, parts: Parts) -> Trained:
    """Train with checkpoints in the unfinished run folder, then fill it and give it its name.

    A fit that cannot be continued leaves nothing; one that was interrupted leaves what ``resume`` needs.
    """
    config = {**settings.run_config(estimator), "data_fingerprint": parts.fingerprint()}
    resumed = writer.start(config)
    with writer.training(resumed):
        trained = train(estimator, parts, writer.partial, resume=writer.resume)
    estimator._keep(trained)
    if runs.is_main_process():
        with runs.naming(writer.partial):
            estimator._write(writer.partial)
        write_image_report(writer.partial / runs.REPORT_FILE, estimator, parts, trained)
    writer.finish()
    return trained
