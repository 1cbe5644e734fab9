"""Bootstrap intervals: they cover the truth as often as they say, draw units, and refuse what has no interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import midgrain as mg
from midgrain.measures import bootstrap_interval


def test_close_to_the_textbook_where_there_is_one() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    found = bootstrap_interval(values)
    half = norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)
    narrower = bootstrap_interval(values, confidence=0.5)
    assert found.low < narrower.low < found.mean < narrower.high < found.high


def test_covers_the_truth_about_as_often_as_said() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = bootstrap_interval(random.exponential(1.0, 40), confidence=0.9, n_resamples=500)
        hits += found.low <= 1.0 <= found.high
    assert 0.82 <= hits / 200 <= 0.96


@settings(max_examples=60)
@given(st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.5, 1.0]), min_size=2, max_size=12))
def test_few_and_equal_values(values) -> None:
    found = bootstrap_interval(values, n_resamples=200)
    assert np.isfinite([found.low, found.high]).all()
    assert min(values) <= found.low <= found.high <= max(values)
    assert found.mean == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert found.low == found.mean == found.high


def test_seeded_and_of_any_kind() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4, 0.3]
    found = bootstrap_interval(values)
    assert bootstrap_interval(torch.tensor(values, dtype=torch.float64)) == found
    assert bootstrap_interval(np.array(values)) == found
    assert bootstrap_interval(values, seed=1) != found
    hits = torch.tensor([True, False, True, True])
    assert bootstrap_interval(hits).mean == 0.75


def test_units_are_drawn_not_values() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    found = bootstrap_interval(values)
    repeated = bootstrap_interval(
        [value for value in values for _ in range(10)], units=[n for n in range(4) for _ in range(10)]
    )
    assert repeated.mean == pytest.approx(found.mean)
    assert (repeated.low, repeated.high) == pytest.approx((found.low, found.high))
    uneven = bootstrap_interval([1.0, 1.0, 1.0, 0.0], units=["a", "a", "a", "b"])
    assert uneven.mean == 0.5


def test_text() -> None:
    assert str(mg.measures.Interval(-0.0123, -0.05, 0.02)) == "-0.012 [-0.050, +0.020]"


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ([1.0], {}, ValueError, "^values: expected at least two, got 1"),
        ([], {}, ValueError, "^values: "),
        ([[1.0, 2.0]], {}, ValueError, r"^values: .*\[1, 2\]"),
        ([1.0, float("nan")], {}, ValueError, "^values: expected finite"),
        (["a", "b"], {}, TypeError, "^values: "),
        ([1.0, 2.0], {"units": [1]}, ValueError, r"^units: expected one per value \(2\), got 1"),
        ([1.0, 2.0], {"units": [1, 1]}, ValueError, "^units: expected at least two, got 1"),
        ([1.0, 2.0], {"confidence": 1.0}, ValueError, "^confidence: "),
        ([1.0, 2.0], {"confidence": 95}, TypeError, "^confidence: "),
        ([1.0, 2.0], {"n_resamples": 10}, ValueError, "^n_resamples: "),
        ([1.0, 2.0], {"seed": -1}, ValueError, "^seed: "),
    ],
)
def test_bad_input(values, options, error, message) -> None:
    with pytest.raises(error, match=message):
        bootstrap_interval(values, **options)
