"""`midgrain.timing` under the name that `benchmarks/` of the repository know it by."""

from __future__ import annotations

from midgrain.timing import Times, machine, race, summary

__all__ = ["Times", "machine", "race", "summary"]
