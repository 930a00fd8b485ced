"""Interactions between the fields of a table's row: many thousand tiny problems."""

from .operator import field_attention, interacting_layer
from .reference import project

__all__ = ["field_attention", "interacting_layer", "project"]
