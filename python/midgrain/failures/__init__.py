"""Explaining failure: which filters of a network reacted to an input otherwise than they do to its class.

* `filter_scores`: how much each filter of the last convolution matters to a class; `FilterScorer` for many batches.
* `FilterStatistics`: their distribution over the training images of every class.
"""

from __future__ import annotations

from midgrain.failures.filters import FILTER_MEASURES, FilterPass, FilterScorer, filter_scores
from midgrain.failures.statistics import FilterStatistics, images_needed

__all__ = [
    "FILTER_MEASURES",
    "FilterPass",
    "FilterScorer",
    "FilterStatistics",
    "filter_scores",
    "images_needed",
]
