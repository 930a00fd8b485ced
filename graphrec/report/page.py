"""Render templates to one self-contained HTML file."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import RunError
from graphrec.metrics import METRICS

from . import pictures, tables, view
from .data import ReportData

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MAX_LABEL_FIGURES = 6
"""Labels that get figures of their own."""

_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_ADDRESS = re.compile(r"https?://\S*[^\s,;.]")


def write_report(path: str | os.PathLike[str], data: ReportData) -> Path:
    """Write the report of one model as one HTML file that needs no network and no script.

    The file appears under its name only when it is complete.

    Args:
        path: File to write, such as ``run/report.html``.
        data: What to show.

    Raises:
        RunError: The file cannot be written.
    """
    return write_atomically(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The page of `write_report`."""
    labels = []
    for i, label in enumerate(data.labels):
        scores = data.scores(label) if i < MAX_LABEL_FIGURES else None
        labels.append(
            {
                "name": label,
                "figures": view.key_figures(data, label, scores),
                "pictures": (
                    pictures.pictures(scores, str(i), weighted=data.weights is not None)
                    if scores is not None and scores.rows
                    else []
                ),
                "metrics": tables.metric_table(data, label),
            }
        )
    title = data.title or f"Predicting {view.listing(data.labels)} with {data.model}"
    return render(
        "report.html.j2",
        data=data,
        title=title,
        headline=view.headline(data),
        remarks=list(view.remarks(data)),
        labels=labels,
        means=tables.metric_table(data, "") if len(data.labels) > 1 else None,
        history=pictures.history_pictures(data.history),
        importance=pictures.importance_picture(data),
        interactions=pictures.interaction_picture(data),
        parts=tables.part_table(data),
        fields=tables.field_table(data),
        steps=tables.history_table(data.history),
        origin=tables.origin(data),
    )


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder."""
    return _environment().get_template(template).render(**values)


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text under a temporary name in the same folder, then rename it.

    Raises:
        RunError: The file cannot be written.
    """
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise RunError(f"{target}: the report cannot be written ({error.strerror or error})") from error
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: Any) -> Any:
    """Text from the data without control characters, half characters and direction overrides."""
    if isinstance(value, str) and _NOT_TEXT.search(value):
        return type(value)(_NOT_TEXT.sub("\ufffd", value))
    return "" if value is None else value


def _linked(value: Any) -> Markup:
    """Text in which an address at the beginning is a link; what follows it, in words, is none of it."""
    from markupsafe import Markup

    text = str(value)
    address = found.group() if (found := _ADDRESS.match(text)) else ""
    link = Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(address) if address else Markup("")
    return link + text[len(address) :]


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("graphrec.report", ".")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=tables.count, duration=tables.duration, part=tables.part_title, linked=_linked
    )
    css = loader.get_source(environment, "report.css")[0]
    environment.globals.update(css=Markup(css), metrics=METRICS)
    return environment
