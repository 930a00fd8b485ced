"""Pages that tell a colleague how a model did: `write_report` for one, `write_comparison` for several,
`write_run_page` for the run of a recipe.

`plots` has their figures as functions that return matplotlib figures.
"""

from .compare import write_comparison
from .data import FieldSummary, ReportData
from .page import write_report
from .run_page import RunPage, write_run_page

__all__ = ["FieldSummary", "ReportData", "RunPage", "write_comparison", "write_report", "write_run_page"]
