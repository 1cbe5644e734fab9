"""Rank correlation beside SciPy, and when an estimate counts as settled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from midgrain.stability import Stability, rank_correlation

PAIRS = arrays(np.float64, st.tuples(st.just(2), st.integers(2, 12)), elements=st.integers(-4, 4).map(float))


@given(PAIRS)
def test_rank_correlation_is_spearmans(pair) -> None:
    if (pair == pair[:, :1]).all(1).any():
        constant = (pair == pair[:, :1]).all(1)
        assert rank_correlation(*pair) == float(constant.all())
    else:
        assert rank_correlation(*pair) == pytest.approx(spearmanr(*pair).statistic, abs=1e-12)


def test_settles_after_enough_agreement_in_a_row() -> None:
    stability = Stability(0.9, patience=2)
    same, other = [1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 3.0, 2.0]
    told = [stability.settled(scores) for scores in (same, same, other, same, same, same)]
    assert told == [False, False, False, False, False, True]


def test_keeps_its_own_copy() -> None:
    stability, scores = Stability(0.9, patience=1), np.arange(5.0)
    assert not stability.settled(scores)
    scores[:] = scores[::-1].copy()
    assert not stability.settled(scores)


def test_without_a_threshold_never() -> None:
    stability = Stability(None)
    assert not any(stability.settled([1.0, 2.0]) for _ in range(5))
