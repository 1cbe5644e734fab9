"""Explaining failure: which filters of a network reacted to an input otherwise than they do to its class.

* `filter_scores`: how much each filter of the last convolution matters to a class; `FilterScorer` for many batches.
* `FilterStatistics`: their distribution over the training images of every class.
* `report`: a validation set, its errors by how typical they are of their class, as tables and as one page.
* `explain`: why predictions are wrong. Its parts: `surprise` (filters that react too much, or are missed, and how
  typical an input is of its class), `ThroughFilter` (where a filter looks), `filter_maps`, and `suppress` (does the
  prediction come right without what misled it?).
* `without_surprises`: a training set without the regions that surprise.
"""

from __future__ import annotations

from midgrain.failures.explaining import Example, Failure, Finding, explain, filter_maps
from midgrain.failures.filters import FILTER_MEASURES, FilterPass, FilterScorer, filter_scores
from midgrain.failures.report_results import FailureReport
from midgrain.failures.reporting import report
from midgrain.failures.statistics import FilterStatistics, images_needed
from midgrain.failures.suppression import Suppression, suppress
from midgrain.failures.surprise import Surprise, surprise
from midgrain.failures.through_filter import ThroughFilter
from midgrain.failures.without_surprises import WithoutSurprises, without_surprises

__all__ = [
    "FILTER_MEASURES",
    "Example",
    "Failure",
    "FailureReport",
    "FilterPass",
    "FilterScorer",
    "FilterStatistics",
    "Finding",
    "Suppression",
    "Surprise",
    "ThroughFilter",
    "WithoutSurprises",
    "explain",
    "filter_maps",
    "filter_scores",
    "images_needed",
    "report",
    "suppress",
    "surprise",
    "without_surprises",
]
