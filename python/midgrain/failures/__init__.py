"""Explaining failure: which filters of a network reacted to an input otherwise than they do to its class.

* `filter_scores`: how much each filter of the last convolution matters to a class; `FilterScorer` for many batches.
"""

from __future__ import annotations

from midgrain.failures.filters import FILTER_MEASURES, FilterPass, FilterScorer, filter_scores

__all__ = [
    "FILTER_MEASURES",
    "FilterPass",
    "FilterScorer",
    "filter_scores",
]
