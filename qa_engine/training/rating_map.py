"""A rising map from points to ratings, chosen and judged by leaving patients out.

The rating of a series is the weighted sum of the mapped points of its slices, which is linear in the map's values at its knots, so each map
is an exact least squares problem with increments of at least 0. Candidates: Q or a weighted geometric mean of the three axes, straight or
bent. Taken is the simplest candidate that is within one standard error of the best by leave-one-patient-out. Residuals behind the interval
come from patients that neither choice nor fit has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from qa_engine.calibration import conformal_half_width
from qa_engine.ratings import points_of

FOLDS = 10
GRID = 4
"""Exponents of the axes are multiples of 1/GRID."""
BENDS = (0, 3)
"""Knots between the ends."""
SMOOTH = 600.0
"""Weight of the squared change of slope, over the number of patients."""
DRAWS = 200


@dataclass(frozen=True, eq=False)
class Rated:
    """One rated series: of its n scored slices q (n,), axes (n,3), weight (n,) (sum 1); the mean rating in 0..100."""

    patient: str
    q: np.ndarray
    axes: np.ndarray
    weight: np.ndarray
    rating: float


@dataclass(frozen=True)
class Candidate:
    """Exponents of noise, sharpness, artefact (None: Q is mapped) and the number of inner knots."""

    exponents: tuple[float, float, float] | None
    bends: int

    def points(self, one: Rated) -> np.ndarray:
        """What is mapped, (n,)."""
        return points_of(one.q, one.axes, None if self.exponents is None else np.array(self.exponents))


@dataclass(frozen=True, eq=False)
class RatingMap:
    """Piecewise linear, rising: values (K,) at `places` (K,) of 0..100."""

    candidate: Candidate
    places: np.ndarray
    values: np.ndarray

    def predict(self, series: Sequence[Rated]) -> np.ndarray:
        """Ratings of series, as the product computes them."""
        return np.array([float((s.weight * np.interp(self.candidate.points(s), self.places, self.values)).sum()) for s in series])


def candidates() -> list[Candidate]:
    """The simplest first."""
    shares = [c for c in product(range(GRID + 1), repeat=3) if sum(c) == GRID]
    return [Candidate(e, b) for e in (None, *((a / GRID, s / GRID, k / GRID) for a, s, k in shares)) for b in BENDS]


def _places(points: np.ndarray, bends: int) -> np.ndarray:
    inner = np.quantile(points, (np.arange(bends) + 1) / (bends + 1)) if bends else np.array([])
    return np.unique(np.concatenate([[0.0], inner.clip(1.0, 99.0).round(2), [100.0]]))


def _hats(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) -> (n,K) weights of the knots around each point."""
    return np.stack([np.interp(points, places, row) for row in np.eye(len(places))], 1)


def least_squares(gram: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Minimisers (B,K) >= 0 of x G x / 2 - b x for G (B,K,K) positive definite, b (B,K): every set of free values is tried."""
    count, size = target.shape
    best, found = np.zeros(count), np.zeros((count, size))
    for free in product((False, True), repeat=size):
        pick = np.flatnonzero(free)
        if not len(pick):
            continue
        x = np.linalg.solve(gram[:, pick[:, None], pick], target[:, pick, None])[..., 0]
        value = -0.5 * (target[:, pick] * x).sum(1)
        better = (x >= 0).all(1) & (value < best)
        best[better] = value[better]
        found[better] = 0.0
        found[np.ix_(better, pick)] = x[better]
    return found


def _system(candidate: Candidate, series: Sequence[Rated], patients: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places, design (n,K) of the increments, weights (n,) by which each patient counts once, and the smoothing (K,K)."""
    points = [candidate.points(s) for s in series]
    places = _places(np.concatenate(points), candidate.bends)
    lower = np.tril(np.ones((len(places), len(places))))
    design = np.stack([s.weight @ _hats(p, places) @ lower for s, p in zip(series, points, strict=True)])
    _, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    steps = np.diff(places)
    change = np.zeros((max(0, len(steps) - 1), len(places)))
    for k in range(len(change)):
        change[k, k + 1], change[k, k + 2] = -1.0 / steps[k], 1.0 / steps[k + 1]
    # a trace on each increment keeps the problem definite where no rating lies
    return places, design, 1.0 / counts[inverse], SMOOTH * change.T @ change + 1e-6 * len(series) * np.eye(len(places))


def fit_map(candidate: Candidate, series: Sequence[Rated]) -> RatingMap:
    """The rising map with the least squared error, each patient counting once."""
    places, design, weight, smooth = _system(candidate, series, _patients(series))
    rating = np.array([s.rating for s in series])
    gram = design.T @ (weight[:, None] * design) + smooth
    increments = least_squares(gram[None], (design.T @ (weight * rating))[None])[0]
    return RatingMap(candidate, places, np.minimum(np.cumsum(increments), 100.0))


def _patients(series: Sequence[Rated]) -> np.ndarray:
    return np.array([s.patient for s in series])


def left_out_errors(candidate: Candidate, series: Sequence[Rated]) -> np.ndarray:
    """(P,) mean squared error of each patient under the map fitted to the others."""
    patients = _patients(series)
    places, design, weight, smooth = _system(candidate, series, patients)
    rating = np.array([s.rating for s in series])
    names = np.unique(patients)
    of = (patients[None] == names[:, None]).astype(float)
    kept = (1.0 - of) * weight
    gram = np.einsum("ps,sk,sl->pkl", kept, design, design) + smooth
    increments = least_squares(gram, kept * rating @ design)
    values = np.minimum(np.cumsum(increments, 1), 100.0)
    hats = design @ np.linalg.inv(np.tril(np.ones((len(places), len(places)))))
    errors = (values @ hats.T - rating) ** 2
    return (errors * of).sum(1) / of.sum(1)


def choose(series: Sequence[Rated], among: Sequence[Candidate]) -> Candidate:
    """The simplest candidate within one standard error of the best by leave-one-patient-out; `among` has the simplest first."""
    errors = [left_out_errors(c, series) for c in among]
    best = min(errors, key=lambda e: float(e.mean()))
    worse = [e - best for e in errors]
    return next(c for c, w in zip(among, worse, strict=True) if w.mean() <= w.std() / np.sqrt(len(w)))


def folds(series: Sequence[Rated], count: int = FOLDS) -> np.ndarray:
    """(n,) fold of each series; patients are never divided. Their digests put them in order, so the folds are the same every time."""
    patients = _patients(series)
    place = {name: k % count for k, name in enumerate(np.unique(patients))}
    return np.array([place[p] for p in patients])


def out_of_fold(series: Sequence[Rated], among: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray]:
    """Ratings of all series by maps chosen and fitted without their patients, and the mean rating of those others (n,), (n,)."""
    fold = folds(series)
    predicted, constant = np.zeros(len(series)), np.zeros(len(series))
    for k in np.unique(fold):
        rest, left = [s for s, f in zip(series, fold, strict=True) if f != k], [s for s, f in zip(series, fold, strict=True) if f == k]
        predicted[fold == k] = fit_map(choose(rest, among), rest).predict(left)
        constant[fold == k] = np.mean([s.rating for s in rest])
    return predicted, constant


def half_width(series: Sequence[Rated], predicted: np.ndarray, seed: int = 0) -> float:
    """Median over draws of the conformal half width, each draw taking one series of each patient; infinite below nine patients."""
    patients = _patients(series)
    residuals = np.array([s.rating for s in series]) - predicted
    of = [residuals[patients == name] for name in np.unique(patients)]
    random = np.random.default_rng(seed)
    return float(np.median([conformal_half_width([r[random.integers(len(r))] for r in of]) for _ in range(DRAWS)]))
