"""Put together what a run's report shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphrec.report import ClassPage, write_class_page
from graphrec.report.image_plots import plot_sheet
from graphrec.report.pictures import Picture
from graphrec.report.run_plots import plot_confusion
from graphrec.report.svg import figure_svg

from ..models import family
from . import settings
from .data import Parts, labels_of
from .scores import confusion_matrix, per_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graphrec.pipelines.images import ImageSet

    from .classifier import ImageClassifier
    from .fitting import Trained

_PACKAGES = ("graphrec", "torch", "timm", "numpy", "lightning-fabric")
MISTAKES, THUMBNAIL = 24, 112
DRAWN = 40
"""Classes whose confusion is drawn; more cannot be read, the table has them all."""

_CONFUSION = "Rows are the true classes, columns what they were taken for; the colour is the row's share."
_MISTAKES = "The mistakes that it is surest of: the true class, and below it what the image was taken for."


def write_image_report(path: Path, estimator: ImageClassifier, parts: Parts, trained: Trained) -> None:
    """Write ``report.html`` for a run."""
    names = [str(name) for name in parts.classes]
    confusion = confusion_matrix(trained.labels, trained.scores.argmax(1), len(names))
    sizes = {name: labels_of(part) for name, part in parts.items()}
    shown = dict(parts.items())[trained.part]
    page = ClassPage(
        model=estimator.facts_["variant"],
        things="images",
        classes=names,
        counts={k: np.bincount(v, minlength=len(names)).tolist() for k, v in sizes.items()},
        metrics=trained.metrics,
        part=trained.part,
        confusion=confusion,
        per_class=per_class(confusion),
        pictures=_pictures(shown, trained, names),
        data=parts.train.title,
        history=trained.history.rows,
        model_facts=_model_facts(estimator, trained),
        settings={k: v for k, v in settings.run_config(estimator).items() if v not in (None, {}, False)},
        origin={
            "seed": estimator.facts_["seed"],
            "fingerprint": parts.fingerprint(),
            **{name: version(name) for name in _PACKAGES},
        },
        created=time.strftime("%Y-%m-%d %H:%M %Z"),
        seconds=trained.seconds,
        warnings=_warnings(parts),
    )
    write_class_page(path, page)


def worst_mistakes(labels: NDArray[Any], scores: NDArray[Any], most: int = MISTAKES) -> NDArray[np.int64]:
    """Numbers of the images whose wrong class the model is surest of, surest first."""
    guess = scores.argmax(1)
    wrong = np.flatnonzero(guess != labels)
    order = np.argsort(-scores[wrong, guess[wrong]], kind="stable")
    return wrong[order][:most].astype(np.int64)


def plot_mistakes(
    images: ImageSet, labels: NDArray[Any], scores: NDArray[Any], names: Sequence[str]
) -> Figure | None:
    """A sheet of the `worst_mistakes`; None when there are none."""
    chosen = worst_mistakes(labels, scores)
    if not len(chosen):
        return None
    guess = scores.argmax(1)
    captions = [(names[labels[i]], f"as {names[guess[i]]}, {100 * scores[i, guess[i]]:.0f}%") for i in chosen]
    return plot_sheet([_thumbnail(images, int(i)) for i in chosen], captions)


def _thumbnail(images: ImageSet, index: int) -> NDArray[np.uint8]:
    picture = images.pil(index)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(picture.convert("RGB"))


def _pictures(images: ImageSet, trained: Trained, names: Sequence[str]) -> list[Picture]:
    """The confusion, and the worst mistakes."""
    found = []
    if len(names) <= DRAWN:
        figure = plot_confusion(trained.labels, trained.scores.argmax(1), names)
        svg = figure_svg(figure, "confusion", _CONFUSION)
        found.append(Picture("Who is taken for whom", svg, _CONFUSION, wide=True))
    sheet = plot_mistakes(images, trained.labels, trained.scores, names)
    if sheet is not None:
        svg = figure_svg(sheet, "mistakes", _MISTAKES)
        found.append(Picture("Worst mistakes", svg, _MISTAKES, wide=True))
    return found


def _model_facts(estimator: ImageClassifier, trained: Trained) -> dict[str, Any]:
    card, best = family(estimator.facts_["variant"]).card, trained.history.best
    height, width = trained.module.img_size
    facts = {
        "name": estimator.facts_["variant"],
        "system": card.title,
        "paper": card.paper,
        "parameters": f"{sum(one.numel() for one in trained.module.parameters()):,}",
        "image size": f"{height} x {width}",
        "stopped by": trained.history.stopped,
        "best epoch": best["epoch"] if best else None,
    }
    return {key: value for key, value in facts.items() if value}


def _warnings(parts: Parts) -> list[str]:
    """What a reader should know of the data before the numbers."""
    found = []
    lacking = [str(name) for name, n in zip(parts.classes, parts.counts(), strict=True) if not n]
    if lacking:
        found.append(f"No training image is of class {', '.join(lacking)}: it cannot be learned.")
    skipped = [name for _, part in parts.items() for name in part.skipped]
    if skipped:
        found.append(f"{len(set(skipped))} images could not be read and were left out.")
    return found
