"""Figures of merit against values computed by hand or printed in textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.metrics import (
    auc,
    beta_quantile,
    bootstrap,
    clopper_pearson,
    detection_bound,
    incomplete_beta,
    krocc,
    pair_accuracy,
    plcc,
    ranks,
    same_slice_auc,
    srcc,
    upper_bound,
)


def test_ranks_share_ties() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_correlations_with_ties() -> None:
    a, b = np.array([1.0, 2, 2, 3, 4]), np.array([1.0, 3, 2, 2, 5])
    assert plcc(a, b) == pytest.approx(5.8 / math.sqrt(5.2 * 9.2))
    assert srcc(a, b) == pytest.approx(7.25 / 9.5)  # ranks 1 2.5 2.5 4 5 and 1 4 2.5 2.5 5
    # ten pairs: 7 concordant, 1 discordant, one tied in each
    assert krocc(a, b) == pytest.approx(6 / 9)
    assert krocc(a, b, block=2) == pytest.approx(krocc(a, b))
    assert math.isnan(srcc(a, np.ones(5))) and math.isnan(krocc(a, np.ones(5)))


def test_correlations_turn_with_the_sign() -> None:
    random = np.random.default_rng(1)
    a = random.normal(size=200)
    b = a + random.normal(size=200)
    for figure in (plcc, srcc, krocc):
        assert figure(a, -b) == pytest.approx(-figure(a, b))
        assert figure(a, a) == pytest.approx(1.0)


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert math.isnan(auc(np.array([]), np.array([1.0])))


def test_order_within_a_slice_knows_no_other_slice() -> None:
    score, truth = np.array([50.0, 40, 30, 90, 95, 80]), np.array([80.0, 60, 58, 20, 10, 8])
    group = np.array(["a", "a", "a", "b", "b", "b"])
    # a: 80>60, 80>58 right (60>58 too near); b: 20>10 wrong, 20>8 right (10>8 too near)
    assert pair_accuracy(score, truth, group) == pytest.approx(3 / 4)
    clean, mild = np.array([1, 0, 0, 1, 0, 0], bool), np.array([0, 1, 0, 0, 1, 1], bool)
    assert same_slice_auc(score, group, clean, mild) == pytest.approx((1 + 0 + 1) / 3)
    assert pair_accuracy(np.zeros(6), truth, group) == 0.0, "a constant orders nothing"
    assert same_slice_auc(np.zeros(6), group, clean, mild) == 0.5


def test_detection_bound_is_that_of_the_table() -> None:
    assert detection_bound(np.log([2.13]), 0.63) == pytest.approx(0.80, abs=0.003)
    assert detection_bound(np.zeros(3), 0.5) == pytest.approx(0.5)


def test_bootstrap_draws_subjects_not_rows() -> None:
    random = np.random.default_rng(2)
    value = random.normal(size=40)
    subject = np.arange(40)

    def mean(rows: np.ndarray) -> float:
        return float(values[rows].mean())

    values = value
    low, high = bootstrap(mean, subject)
    assert (high - low) / 2 == pytest.approx(1.96 * value.std() / math.sqrt(40), rel=0.25)
    values = np.repeat(value, 25)  # the same subjects, each row 25 times: not surer
    again = bootstrap(mean, np.repeat(subject, 25))
    assert again[1] - again[0] == pytest.approx(high - low, rel=0.15)
    assert math.isnan(bootstrap(mean, np.array([0, 0, 1]))[0])


@pytest.mark.parametrize(("k", "n", "low", "high"), [(9, 10, 0.555, 0.997), (18, 20, 0.683, 0.988), (45, 50, 0.782, 0.967), (90, 100, 0.824, 0.951),
                                                     (270, 300, 0.860, 0.932), (0, 10, 0.0, 0.308), (7, 7, 0.590, 1.0)])
def test_clopper_pearson(k: int, n: int, low: float, high: float) -> None:
    found = clopper_pearson(k, n)
    assert found[0] == pytest.approx(low, abs=6e-4) and found[1] == pytest.approx(high, abs=6e-4)


def test_one_sided_bound_and_beta() -> None:
    assert upper_bound(0, 29) == pytest.approx(1 - 0.05 ** (1 / 29))
    assert upper_bound(10, 10) == 1.0 and clopper_pearson(45, 50, 0.90)[1] == pytest.approx(upper_bound(45, 50))
    assert incomplete_beta(2.0, 3.0, 0.4) == pytest.approx(0.5248)  # 1 - sum of the binomial (4, 0.4) below 2
    assert incomplete_beta(1.0, 1.0, 0.3) == pytest.approx(0.3) and incomplete_beta(5.0, 2.0, 1.0) == 1.0
    assert incomplete_beta(200.0, 30.0, beta_quantile(0.1, 200.0, 30.0)) == pytest.approx(0.1)
