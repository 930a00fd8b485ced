"""The data set that ships with the package: UCI Online Shoppers Purchasing Intention, as one parquet file.

12,330 sessions of a web shop over one year, 17 columns and the label ``Revenue`` (did the session end with a
purchase; 15.5 % did). Source, licence (CC BY 4.0) and checksums are in ``README.md`` beside this file.
"""

from pathlib import Path

__all__ = ["DEMO_LABEL", "DEMO_ROLES", "demo_path"]

DEMO_LABEL = "Revenue"
"""Label column of the demo table, a boolean."""

DEMO_ROLES = dict.fromkeys(("OperatingSystems", "Browser", "Region", "TrafficType"), "categorical")
"""Columns of the demo table whose integers are codes and not amounts: ``roles`` of ``TableSchema.infer``."""


def demo_path() -> Path:
    """Path of the demo table, a parquet file of 12,330 rows and 18 columns."""
    return Path(__file__).with_name("online_shoppers.parquet")
