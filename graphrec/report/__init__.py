"""Pages that tell a colleague how a model did: `write_report` for one, `write_comparison` for several.

`plots` has their figures as functions that return matplotlib figures.
"""

from .compare import write_comparison
from .data import FieldSummary, ReportData
from .page import write_report

__all__ = ["FieldSummary", "ReportData", "write_comparison", "write_report"]
