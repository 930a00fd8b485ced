"""Linear recurrences along a sequence."""

from .operator import scan, selective_scan

__all__ = ["scan", "selective_scan"]
