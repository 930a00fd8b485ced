"""From `ReportData` to the sentences and numbers of the page; no HTML here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphrec.metrics import Scores

from .data import ReportData
from .tables import count, number, part_title, percent


@dataclass
class KeyFigure:
    """A number at the top of the page, with what it means here and what guessing gives."""

    title: str
    value: str
    meaning: str
    baseline: str = ""


def listing(names: Sequence[str], most: int = 3) -> str:
    """ "a, b and c"; beyond ``most`` the rest as a number."""
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def headline(data: ReportData) -> str:
    """Two sentences: what was trained on what, and how well it ranks."""
    source = f" from {count(len(data.fields))} fields" if data.fields else ""
    if "train" in data.rows:
        source += f" of {count(data.rows['train'])} rows"
    if data.data:
        source += f" of {_file_name(data.data)}"
    return f"{data.model} learned to predict {listing(data.labels)}{source}. {_verdict(data)}"


def _file_name(path: str) -> str:
    """The last part of a path, or the whole of a pattern."""
    return path if "*" in path else path.rstrip("/").rsplit("/", 1)[-1] or path


def _verdict(data: ReportData) -> str:
    auc, ne = (data.metrics.get(data.shown, {}).get(k) for k in ("auc", "ne"))
    if auc is None:
        return "How well it ranks is not known: there were no rows of both outcomes to evaluate it on."
    where = "the rows that it learned from" if data.shown == "train" else "rows that it had not seen"
    mean = " (mean over the labels)" if len(data.labels) > 1 else ""
    text = f"On {where}, it scores a positive row above a negative one {100 * auc:.1f} times in 100{mean}"
    if ne is None:
        return text + "."
    gain = f"removes {percent(1 - ne)} of" if ne < 1 else f"adds {percent(ne - 1)} to"
    return f"{text}, and {gain} the uncertainty that is left when only the base rate is known."


def key_figures(data: ReportData, label: str, scores: Scores | None) -> list[KeyFigure]:
    """The three to five numbers to take home, as far as they are defined."""
    m = data.of(data.shown, label)
    error = scores.auc_error if scores is not None and data.weights is None else None
    found = (_auc(m, error), _logloss(m), _pr_auc(m), _lift(scores), _calibration(m))
    return [figure for figure in found if figure is not None]


def _auc(m: Mapping[str, float | None], error: float | None) -> KeyFigure | None:
    if (auc := m.get("auc")) is None:
        return None
    meaning = "How often a positive row is scored above a negative one."
    if error is not None:
        low, high = (number(min(1.0, max(0.0, auc + z * error))) for z in (-1.96, 1.96))
        meaning += f" 95% interval {low} to {high}."
    return KeyFigure("AUC", number(auc), meaning, "guessing: 0.5")


def _logloss(m: Mapping[str, float | None]) -> KeyFigure | None:
    if (loss := m.get("logloss")) is None:
        return None
    if not (ne := m.get("ne")):
        return KeyFigure("Log loss", number(loss), "How surprised the model is by what happened.")
    less = f"{percent(abs(1 - ne))} {'less' if ne <= 1 else 'more'}"
    meaning = f"Surprise at what happened, {less} than the base rate's."
    return KeyFigure("Log loss", number(loss), meaning, f"base rate: {number(loss / ne)}")


def _pr_auc(m: Mapping[str, float | None]) -> KeyFigure | None:
    if (value := m.get("pr_auc")) is None:
        return None
    meaning = "How pure the top of the ranking is, over all cut-offs."
    return KeyFigure("PR-AUC", number(value), meaning, f"guessing: {number(m.get('base_rate'))}")


def _lift(scores: Scores | None) -> KeyFigure | None:
    if scores is None or (found := top_share(scores)) is None:
        return None
    meaning = f"The tenth with the highest scores holds {percent(found)} of all positive rows."
    return KeyFigure("Lift of the top tenth", f"× {10 * found:.2f}", meaning, "guessing: × 1")


def _calibration(m: Mapping[str, float | None]) -> KeyFigure | None:
    if (ratio := m.get("calibration")) is None:
        return None
    meaning = f"Probabilities are {percent(abs(ratio - 1))} too {'high' if ratio > 1 else 'low'} on average."
    return KeyFigure("Predicted / observed", number(ratio, 3), meaning, "ideal: 1")


def top_share(scores: Scores, part: float = 0.1) -> float | None:
    """Share of the positives in the ``part`` of the rows with the highest scores, ties in proportion.

    None when no row is positive.
    """
    if not scores.positive.any():
        return None
    mass = np.cumsum((scores.positive + scores.negative)[::-1])
    hits = np.cumsum(scores.positive[::-1])
    return float(np.interp(mass[-1] * part, np.append(0, mass), np.append(0, hits)) / hits[-1])


def remarks(data: ReportData) -> Iterator[str]:
    """What a colleague would point out from the metrics alone."""
    train = data.metrics.get("train", {}).get("auc")
    shown = data.metrics.get(data.shown, {}).get("auc")
    if data.shown == "train":
        yield "All figures are of the rows that the model learned from, so they are too good."
    elif train is not None and shown is not None and train - shown > 0.05:
        part = part_title(data.shown).lower()
        yield (
            f"AUC is {number(train)} on the training rows and {number(shown)} on the {part} rows: "
            "the model knows its training rows much better than new ones (over-fitting)."
        )
    for label in data.labels:
        m = data.of(data.shown, label)
        rows, rate = m.get("rows") or 0, m.get("base_rate") or 0
        if m and rows * min(rate, 1 - rate) < 50:
            yield f"Fewer than 50 rows of one outcome of {label} were evaluated: the figures are rough."
