"""Explainers, measures and data sets in one table: `midgrain.evaluate(model, dataset, explainers, measures, out)`.

The package is callable: `midgrain.evaluate(...)` is `midgrain.evaluate.evaluate(...)`, whose docstring says what it
takes. Beside it stand `Sample`, `Results` and, in `midgrain.evaluate.synthetic`, data whose true explanation is known.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from midgrain.evaluate.datasets import Dataset, Entry, read_dataset
from midgrain.evaluate.layouts import LAYOUTS, Layout
from midgrain.evaluate.measuring import MEASURES, options_of
from midgrain.evaluate.papers import TABLES, Reproduction, reproduce
from midgrain.evaluate.planning import BASELINES, Run, plan_run
from midgrain.evaluate.results import Results
from midgrain.evaluate.run import evaluate
from midgrain.evaluate.samples import Sample
from midgrain.evaluate.summary import Summary
from midgrain.evaluate.work import Plan, Record, evaluate_sample

__all__ = [
    "BASELINES",
    "LAYOUTS",
    "MEASURES",
    "TABLES",
    "Dataset",
    "Entry",
    "Layout",
    "Plan",
    "Record",
    "Reproduction",
    "Results",
    "Run",
    "Sample",
    "Summary",
    "evaluate",
    "evaluate_sample",
    "options_of",
    "plan_run",
    "read_dataset",
    "reproduce",
]


class _CallablePackage(ModuleType):
    """Python sets `midgrain.evaluate` to this package as soon as anything of it is imported; so it can be called."""

    __signature__ = inspect.signature(evaluate)

    def __call__(self, *args: Any, **options: Any) -> Results:
        return evaluate(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
