"""Figures of merit, numpy alone: correlations with ties, order within a slice, detection, bootstrap by patient, exact binomial bounds.

Scores and truths are (N,) arrays; rows whose score is not finite are the caller's to leave out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

Array = np.ndarray


def ranks(values: Array) -> Array:
    """Ranks from 0, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2.0)[inverse]


def plcc(a: Array, b: Array) -> float:
    """Pearson's correlation; nan where one of the two is constant."""
    a, b = np.asarray(a, float) - np.mean(a), np.asarray(b, float) - np.mean(b)
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def srcc(a: Array, b: Array) -> float:
    """Spearman's correlation: Pearson's of the ranks."""
    return plcc(ranks(a), ranks(b))


def krocc(a: Array, b: Array, block: int = 512) -> float:
    """Kendall's tau-b: concordant minus discordant pairs over the root of the pairs that are not tied in a, times in b."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    agree = untied_a = untied_b = 0.0
    for at in range(0, len(a), block):
        x = np.sign(a[at:at + block, None] - a[None]).astype(np.int8)
        y = np.sign(b[at:at + block, None] - b[None]).astype(np.int8)
        agree += float((x * y).sum(dtype=np.int64))
        untied_a += float(np.count_nonzero(x))
        untied_b += float(np.count_nonzero(y))
    scale = math.sqrt(untied_a * untied_b)
    return agree / scale if scale > 0 else math.nan


def auc(better: Array, worse: Array) -> float:
    """Share of pairs in which a value of `better` exceeds one of `worse`, ties half; nan where one is empty."""
    n, m = len(better), len(worse)
    if n == 0 or m == 0:
        return math.nan
    place = ranks(np.concatenate([better, worse]))[:n] + 1
    return (float(place.sum()) - n * (n + 1) / 2) / (n * m)


def rows_by(groups: Array) -> Iterator[Array]:
    """Row numbers of each group."""
    order = np.argsort(groups, kind="stable")
    yield from np.split(order, np.flatnonzero(groups[order][1:] != groups[order][:-1]) + 1) if len(order) else ()


def pair_accuracy(score: Array, truth: Array, group: Array, apart: float = 5.0) -> float:
    """Share of pairs of one group (a slice) whose truths differ by more than `apart` that the score puts in the right order; ties are wrong."""
    right = total = 0
    for rows in rows_by(group):
        far = truth[rows][:, None] - truth[rows][None] > apart
        total += int(far.sum())
        right += int(((score[rows][:, None] > score[rows][None]) & far).sum())
    return right / total if total else math.nan


def same_slice_auc(score: Array, group: Array, clean: Array, mild: Array) -> float:
    """Share of (clean, mild) pairs of one group in which clean scores higher, ties half."""
    won, total = 0.0, 0
    for rows in rows_by(group):
        a, b = score[rows[clean[rows]]], score[rows[mild[rows]]]
        if len(a) and len(b):
            won += auc(a, b) * len(a) * len(b)
            total += len(a) * len(b)
    return won / total if total else math.nan


def detection_bound(log_ratio: Array, spread: float) -> float:
    """Mean AUC that a perfect meter reaches across subjects when damage raises an amount by `log_ratio` (N,) (natural logarithms) and sources
    differ by `spread` (standard deviation of their logarithms): Phi(log_ratio / (sqrt(2) spread))."""
    if len(log_ratio) == 0 or not spread > 0:
        return math.nan
    return float(np.mean([0.5 * (1.0 + math.erf(float(one) / (2.0 * spread))) for one in log_ratio]))


def bootstrap(figure: Callable[[Array], float], subject: Array, resamples: int = 300, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of `figure` (of row numbers), subjects drawn with replacement; (nan, nan) with fewer than three subjects."""
    groups = list(rows_by(subject))
    if len(groups) < 3:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    found = [figure(np.concatenate([groups[k] for k in random.integers(len(groups), size=len(groups))])) for _ in range(resamples)]
    finite = np.array([f for f in found if math.isfinite(f)])
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (Numerical Recipes 6.4)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    tiny = 1e-300
    front = math.exp(a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / a
    c, d = 1.0, 1.0 / max(abs(1.0 - (a + b) * x / (a + 1.0)), tiny)
    value = d
    for m in range(1, 1000):
        for step in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1.0 + step * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + step / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return front * value


def beta_quantile(p: float, a: float, b: float) -> float:
    """x with I_x(a, b) = p, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if incomplete_beta(a, b, middle) < p else (low, middle)
    return (low + high) / 2


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a rate observed as k of n."""
    tail = (1 - level) / 2
    return (0.0 if k == 0 else beta_quantile(tail, k, n - k + 1)), (1.0 if k == n else beta_quantile(1 - tail, k + 1, n - k))


def upper_bound(k: int, n: int, level: float = 0.95) -> float:
    """Exact one-sided upper bound of a rate observed as k of n."""
    return 1.0 if k == n else beta_quantile(level, k + 1, n - k)
