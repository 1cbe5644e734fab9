"""Win shares, Wilcoxon with Holm's correction, Krippendorff's alpha, correlations of measures: by hand and by peers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import midgrain as mg

TABLES = arrays(
    np.float64, st.tuples(st.integers(3, 12), st.integers(2, 4)), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, np.nan])
)


def random_table(images=30, methods=4, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(images, methods)) + np.linspace(0, 0.8, methods)


@given(TABLES)
def test_wins_are_counted(table) -> None:
    wins = mg.measures.win_matrix(table)
    for i in range(table.shape[1]):
        for j in range(table.shape[1]):
            rows = [row for row in table if np.isfinite(row[i]) and np.isfinite(row[j])]
            if i == j or not rows:
                assert np.isnan(wins[i, j])
                continue
            won = sum(1.0 if row[i] > row[j] else 0.5 if row[i] == row[j] else 0.0 for row in rows)
            assert wins[i, j] == pytest.approx(won / len(rows))
    np.testing.assert_allclose(mg.measures.win_matrix(table, higher_is_better=False), wins.T)


def test_wilcoxon_is_scipys_with_holms_correction() -> None:
    table = random_table()
    plain = mg.measures.wilcoxon_matrix(table, correct=False)
    corrected = mg.measures.wilcoxon_matrix(torch.from_numpy(table))
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    p = {pair: stats.wilcoxon(table[:, pair[0]], table[:, pair[1]]).pvalue for pair in pairs}
    least = 0.0
    for rank, pair in enumerate(sorted(pairs, key=p.__getitem__)):
        least = min(1.0, max(least, p[pair] * (len(pairs) - rank)))
        assert plain[pair] == plain[pair[::-1]] == pytest.approx(p[pair])
        assert corrected[pair] == corrected[pair[::-1]] == pytest.approx(least)
    assert np.isnan(np.diag(corrected)).all()


def test_methods_that_never_differ() -> None:
    table = random_table(methods=2)
    same = mg.measures.wilcoxon_matrix(np.concatenate([table, table[:, :1]], 1), correct=False)
    assert same[0, 2] == 1.0
    assert same[0, 1] == same[1, 2]


def test_missing_values_are_left_out_pair_by_pair() -> None:
    table = random_table()
    table[:5, 0] = np.nan
    found = mg.measures.wilcoxon_matrix(table, correct=False)
    assert found[0, 1] == pytest.approx(stats.wilcoxon(table[5:, 0], table[5:, 1]).pvalue)
    assert found[1, 2] == pytest.approx(stats.wilcoxon(table[:, 1], table[:, 2]).pvalue)
    nothing = np.where(np.arange(8)[:, None] % 2 == np.arange(2), 1.0, np.nan)
    assert np.isnan(mg.measures.wilcoxon_matrix(nothing)).all()


def ordinal_alpha(ranks) -> float:
    """Krippendorff's alpha with his ordinal metric, pair by pair (units: methods, coders: images)."""
    values = sorted({rank for row in ranks for rank in row})
    counts = {value: sum(float(rank == value) for row in ranks for rank in row) for value in values}

    def difference(a, b):
        low, high = sorted((a, b))
        between = sum(counts[value] for value in values if low <= value <= high)
        return (between - (counts[a] + counts[b]) / 2) ** 2

    units = list(zip(*ranks, strict=True))
    total = sum(len(unit) for unit in units)
    observed = sum(
        difference(a, b) / (len(unit) - 1)
        for unit in units
        for i, a in enumerate(unit)
        for j, b in enumerate(unit)
        if i != j
    )
    everything = [value for unit in units for value in unit]
    expected = sum(difference(a, b) for i, a in enumerate(everything) for j, b in enumerate(everything) if i != j)
    return 1.0 - observed / total / (expected / (total * (total - 1)))


@pytest.mark.parametrize("seed", range(3))
def test_alpha_by_hand(seed) -> None:
    table = random_table(images=7, seed=seed).round(0)
    ranks = [stats.rankdata(row).tolist() for row in table]
    assert mg.measures.krippendorff_alpha(table) == pytest.approx(ordinal_alpha(ranks))


def test_alpha_of_agreement_chance_and_no_ranks() -> None:
    order = np.array([0.1, 0.5, 0.9, 0.3])
    assert mg.measures.krippendorff_alpha(order * np.arange(1, 9)[:, None]) == pytest.approx(1.0)
    assert abs(mg.measures.krippendorff_alpha(np.random.default_rng(0).normal(size=(400, 5)))) < 0.02
    assert mg.measures.krippendorff_alpha(np.stack([order, -order])) < 0
    assert np.isnan(mg.measures.krippendorff_alpha(np.ones((4, 3))))


def test_alpha_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'midgrain\[evaluate\]'"):
        mg.measures.krippendorff_alpha(random_table())


def test_correlations_are_spearmans() -> None:
    table = random_table(methods=3)
    found = mg.measures.measure_correlations(table)
    np.testing.assert_allclose(found, stats.spearmanr(table).statistic)
    table[0, 0] = np.nan
    assert mg.measures.measure_correlations(table)[0, 1] == pytest.approx(
        stats.spearmanr(table[1:, 0], table[1:, 1]).statistic
    )


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: mg.measures.win_matrix([1.0, 2.0]), ValueError, r"table: expected \[images, methods\]"),
        (lambda: mg.measures.win_matrix(np.zeros((0, 2))), ValueError, "at least one of each"),
        (lambda: mg.measures.win_matrix([["a", "b"]]), TypeError, "table: expected real numbers"),
        (lambda: mg.measures.wilcoxon_matrix([[1.0, np.inf]]), ValueError, "finite numbers or NaN, got infinity"),
        (lambda: mg.measures.wilcoxon_matrix([[1.0, 2.0]], correct="holm"), TypeError, "correct"),
        (lambda: mg.measures.krippendorff_alpha([[1.0, 2.0]]), ValueError, "at least two images and two methods"),
    ],
)
def test_bad_tables(call, error, match) -> None:
    with pytest.raises(error, match=match):
        call()
