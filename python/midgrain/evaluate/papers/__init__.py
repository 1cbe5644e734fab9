"""The papers' tables, and what this version measures beside them."""

from __future__ import annotations

from midgrain.evaluate.papers.comparison import Line, Reproduction
from midgrain.evaluate.papers.declaration import Figure, Measure, Method, Network, Table
from midgrain.evaluate.papers.reproducing import reproduce
from midgrain.evaluate.papers.tables import TABLES

__all__ = ["TABLES", "Figure", "Line", "Measure", "Method", "Network", "Reproduction", "Table", "reproduce"]
