"""Pages that tell a colleague how a model did: `write_report` for one, `write_comparison` for several,
`write_run_page` for the run of a recipe, `write_class_page` for a classifier of several classes.

`plots` has their figures as functions that return matplotlib figures.
"""

from .class_page import ClassPage, write_class_page
from .compare import write_comparison
from .data import FieldSummary, ReportData
from .page import write_report
from .run_page import RunPage, write_run_page

__all__ = [
    "ClassPage",
    "FieldSummary",
    "ReportData",
    "RunPage",
    "write_class_page",
    "write_comparison",
    "write_report",
    "write_run_page",
]
