"""Interactions between the fields of a table's row."""

from .field import field_attention

__all__ = ["field_attention"]
