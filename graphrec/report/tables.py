"""The tables of the page as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphrec.metrics import METRICS

from .data import PARTS, ReportData

BETTER = {"higher": "↑", "lower": "↓", "one": "→ 1"}
"""Which way a metric is better, as a sign."""


@dataclass
class Table:
    """Rows of text under a header; the first ``text`` columns are words, the others numbers."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    text: int = 1

    @property
    def tall(self) -> bool:
        """Whether it is so long that it scrolls in a box."""
        return len(self.rows) > 20


def number(value: float | None, digits: int = 4) -> str:
    """``value`` with that many decimals, or an en dash where it is undefined."""
    if value is None or value != value:
        return "–"
    return f"{value:.{digits}f}" if abs(value) >= 10**-digits or value == 0 else f"{value:.1e}"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return "–" if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share in percent to one decimal, and never 0 % for what is not 0."""
    if share is None:
        return "–"
    return f"{100 * share:.1f}%" if share == 0 or abs(share) >= 0.0005 else f"{100 * share:.1g}%"


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 120:
        return f"{seconds:.3g} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def part_title(part: str) -> str:
    """ "Validation" for "valid"; other names as they are."""
    return PARTS.get(part, part)


def metric_table(data: ReportData, label: str) -> Table | None:
    """Every metric of one label by part, or of the mean over labels for ""; None when there is none."""
    by_part = [data.of(part, label) if label else data.metrics[part] for part in data.parts]
    rows = [
        [f"{m.title} {BETTER[m.better]}", *(number(values.get(m.name)) for values in by_part)]
        for m in METRICS.values()
        if any(m.name in values for values in by_part)
    ]
    caption = f"Metrics of {label}" if label else "Mean over the labels"
    return Table(caption, ["metric", *map(part_title, data.parts)], rows) if rows else None


def part_table(data: ReportData) -> Table | None:
    """Rows and base rate of each part of the data."""
    order = list(PARTS)
    parts = sorted({*data.rows, *data.metrics}, key=lambda n: (order.index(n) if n in order else 9, n))
    rows = [
        [part_title(p), count(_rows(data, p)), *(percent(_base_rate(data, p, t)) for t in data.labels)]
        for p in parts
    ]
    positive = ["positive"] if len(data.labels) == 1 else [f"positive: {t}" for t in data.labels]
    return Table("Rows by part", ["part", "rows", *positive], rows) if rows else None


def _rows(data: ReportData, part: str) -> float | None:
    if part in data.rows:
        return data.rows[part]
    return max((data.of(part, label).get("rows") or 0 for label in data.labels), default=None)


def _base_rate(data: ReportData, part: str, label: str) -> float | None:
    known = data.of(part, label).get("base_rate")
    return known if known is not None else data.base_rates.get(part, {}).get(label)


def field_table(data: ReportData) -> Table | None:
    """The fields with their vocabularies and shares of null and unseen values; empty columns are left out."""
    columns = {
        "field": [f.name for f in data.fields],
        "role": [f.role for f in data.fields],
        "note": [f.note for f in data.fields],
        "vocabulary": [count(f.size) for f in data.fields],
        "null": [percent(f.nulls) for f in data.fields],
        "unseen": [percent(f.unseen) for f in data.fields],
    }
    used = {name: cells for name, cells in columns.items() if set(cells) - {"", "–"}}
    rows = [list(row) for row in zip(*used.values(), strict=True)]
    text = sum(name in used for name in ("field", "role", "note"))
    return Table("Fields", list(used), rows, text) if rows else None


def history_table(history: Sequence[Mapping[str, Any]]) -> Table | None:
    """The training history as it is, the row whose weights were kept marked."""
    columns = list(dict.fromkeys(k for row in history for k in row))
    rows = [[_cell(row.get(c)) for c in columns] for row in history]
    return Table("Training history", [c.replace("_", " ") for c in columns], rows, 0) if rows else None


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "●" if value else ""
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else f"{value}"


def origin(data: ReportData) -> Sequence[tuple[str, str]]:
    """Where the numbers come from: data, fingerprint, seed, time, versions."""
    facts = {
        "data": data.data,
        "fingerprint": data.fingerprint,
        "seed": "" if data.seed is None else str(data.seed),
        "time to fit": "" if data.seconds is None else duration(data.seconds),
        "made": data.created,
        **data.versions,
    }
    return [(k, v) for k, v in facts.items() if v]
