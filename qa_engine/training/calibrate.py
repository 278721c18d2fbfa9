"""What is said of the network comes from the folds, whose subjects it never saw: intervals, correlations, order inside a slice."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qa_engine.calibration import Calibration, conformal_half_width, image_spread
from qa_engine.measures import MEASURE_NAMES
from qa_engine.network.mediqa import MedIQA
from qa_engine.network.views import channels
from qa_engine.targets import quality_of
from qa_engine.training.cache import Cache
from qa_engine.training.folds import folds_of
from qa_engine.training.ladder import STRONG

SHRINK = 0.2
ENDS, APART = (1.0, 0.7, 0.45, 0.25), (0.0, 0.02, 0.05, 0.1, 0.2)
"""Shapes of the spread that are tried; few, so that they cost the guarantee nothing that shows."""
MODALITIES = ("CT", "MR")


NAMES = ("series", "subject", "source", "place", "draw", "rung", "is_mr", "tissue", "physics", "true_physics", "q", "truth", "logit", "members")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of N versions that the network did not see: what they are (series, subject, source, place, draw, rung, is_mr, share of tissue), predicted
    and true physics (N,3), Q and true Q (N,), weight logits (N,), Q by network and by trees alone (N,2)."""

    series: np.ndarray
    subject: np.ndarray
    source: np.ndarray
    place: np.ndarray
    draw: np.ndarray
    rung: np.ndarray
    is_mr: np.ndarray
    tissue: np.ndarray
    physics: np.ndarray
    true_physics: np.ndarray
    q: np.ndarray
    truth: np.ndarray
    logit: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.series)

    def only(self, rows: np.ndarray) -> Predictions:
        """Those rows."""
        return Predictions(**{name: getattr(self, name)[rows] for name in NAMES})

    def save(self, path: Path) -> None:
        """Numbers and names alone; no pixel is in them."""
        np.savez_compressed(path, **{name: getattr(self, name) for name in NAMES})


def load_predictions(paths: Sequence[Path]) -> Predictions:
    """Of all folds of a split together."""
    parts = [dict(np.load(path, allow_pickle=False)) for path in paths]
    return Predictions(**{name: np.concatenate([part[name] for part in parts]) for name in NAMES})


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2.0)[inverse]


def srcc(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def _purposed_quality(physics: np.ndarray, cache: Cache, rows: np.ndarray, is_mr: np.ndarray) -> np.ndarray:
    q = np.zeros(len(rows))
    for mr in (False, True):
        for purpose in np.unique(cache.purpose[rows]):
            pick = (is_mr == mr) & (cache.purpose[rows] == purpose)
            if pick.any():
                q[pick] = quality_of(physics[pick], MODALITIES[int(mr)], str(purpose))
    return q


def predict(network: MedIQA, cache: Cache, rows: np.ndarray, batch: int = 32) -> Predictions:
    """All views, prompts as the tags would give them, on the network's device."""
    device = next(network.parameters()).device
    standard = network.standard
    found: list[list[np.ndarray]] = [[], [], []]
    with torch.inference_mode():
        for at in range(0, len(rows), batch):
            pick = torch.from_numpy(rows[at:at + batch])
            is_mr = cache.is_mr[pick]
            seen = channels(cache.views[pick].float(), is_mr).to(device)
            out = network(seen, cache.measures[pick].to(device), cache.prompts[pick].to(device))
            for kept, values in zip(found, (standard.physics(out.axes.cpu(), is_mr), out.weight_logit.cpu(), torch.stack(
                    [standard.physics(out.members[:, k].cpu(), is_mr) for k in (0, 1)], 1)), strict=True):
                kept.append(values.double().numpy())
    physics, logit, members = (np.concatenate(kept) for kept in found)
    is_mr, true = cache.is_mr.numpy()[rows], cache.physics.numpy()[rows].astype(float)

    def points(amounts: np.ndarray) -> np.ndarray:
        return _purposed_quality(amounts, cache, rows, is_mr)

    return Predictions(cache.series[rows], cache.subject[rows], cache.source[rows], cache.place[rows], cache.draw[rows], cache.rung[rows], is_mr,
                       cache.measures.numpy()[rows, MEASURE_NAMES.index("tissue_share")], physics, true, points(physics), points(true), logit,
                       np.stack([points(members[:, k]) for k in (0, 1)], 1))


@dataclass(frozen=True, eq=False)
class SeriesScores:
    """Of S versions of series: subject, modality, score by the trained slice weights, truth by tissue, disagreement of the two models."""

    subject: np.ndarray
    is_mr: np.ndarray
    rung: np.ndarray
    score: np.ndarray
    truth: np.ndarray
    apart: np.ndarray


def series_scores(p: Predictions) -> SeriesScores:
    """Each version of each series."""
    groups: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for k in range(len(p)):
        groups[(str(p.series[k]), int(p.draw[k]), int(p.rung[k]))].append(k)
    rows = []
    for pick in groups.values():
        weight = np.exp(p.logit[pick] - p.logit[pick].max())
        weight /= weight.sum()
        true_weight = (p.tissue[pick] + 1e-3) / (p.tissue[pick] + 1e-3).sum()
        one, two = weight @ p.members[pick]
        rows.append((pick[0], weight @ p.q[pick], true_weight @ p.truth[pick], abs(one - two)))
    first = np.array([r[0] for r in rows])
    score, truth, apart = (np.array([r[k] for r in rows]) for k in (1, 2, 3))
    return SeriesScores(p.subject[first], p.is_mr[first], p.rung[first], score, truth, apart)


def _drawn_quantile(residual: np.ndarray, subject: np.ndarray, draws: int, seed: int = 0) -> float:
    """Median over draws of the conformal quantile, each draw taking one version per subject (subjects are what is exchangeable)."""
    of = [np.flatnonzero(subject == name) for name in np.unique(subject)]
    random = np.random.default_rng(seed)
    return float(np.median([conformal_half_width([residual[rows[random.integers(len(rows))]] for rows in of]) for _ in range(draws)]))


def calibrated(s: SeriesScores, draws: int = 100) -> Calibration | None:
    """The spread that makes the mean interval narrowest at the level; None with too few subjects for it."""
    error, best = np.abs(s.score - s.truth), None
    for ends in ENDS:
        for apart in APART:
            spread = image_spread(s.score, ends) + apart * s.apart
            quantile = _drawn_quantile(error / spread, s.subject, draws)
            width = quantile * float(spread.mean())
            if math.isfinite(width) and (best is None or width < best[0]):
                best = (width, Calibration(round(quantile, 3), ends, apart, len(np.unique(s.subject))))
    return None if best is None else best[1]


def coverage(s: SeriesScores, folds: np.ndarray) -> dict[str, float]:
    """By leaving folds of subjects out of the calibration as well: share of versions inside, each subject counting the same; widths."""
    inside, width = np.zeros(len(s.score)), np.zeros(len(s.score))
    for fold in np.unique(folds):
        rest = SeriesScores(*(getattr(s, n)[folds != fold] for n in ("subject", "is_mr", "rung", "score", "truth", "apart")))
        found = calibrated(rest, draws=40)
        for k in np.flatnonzero(folds == fold):
            low, high = (-math.inf, math.inf) if found is None else found.interval(float(s.score[k]), float(s.apart[k]))
            inside[k], width[k] = low <= s.truth[k] <= high, high - low
    names = np.unique(s.subject)
    return {"coverage": round(float(np.mean([inside[s.subject == n].mean() for n in names])), 3), "subjects": len(names),
            "median_width": _finite(float(np.median(width)))}


def _finite(value: float) -> float | None:
    """Rounded; None, which JSON knows, for what is not finite."""
    return round(value, 1) if math.isfinite(value) else None


def pair_order(p: Predictions) -> float:
    """Share of pairs of versions of one slice, more than 5 points apart, that the score puts in the right order."""
    right = total = 0
    groups: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for k in range(len(p)):
        groups[(str(p.series[k]), int(p.draw[k]), int(p.place[k]))].append(k)
    for pick in groups.values():
        truth, q = p.truth[pick], p.q[pick]
        apart = truth[:, None] - truth[None]
        total += int((apart > 5).sum())
        right += int(((q[:, None] - q[None] > 0) & (apart > 5)).sum())
    return right / max(total, 1)


def _gaussian(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision, the covariance shrunk to a multiple of the identity."""
    covariance = np.cov(rows.T)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.eye(rows.shape[1]) * np.trace(covariance) / rows.shape[1]
    return rows.mean(0), np.linalg.inv(covariance)


def _distance(rows: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    apart = rows - mean
    return np.sqrt(np.einsum("ni,ij,nj->n", apart, precision, apart))


def novelty(network: MedIQA, cache: Cache) -> dict[str, torch.Tensor]:
    """Mean and precision of the standardised measures per modality; the limit is the 99 % quantile of subjects left out of them, in turn."""
    scaled = ((cache.measures - network.measure_mean) / network.measure_std).numpy().astype(float)
    fold = folds_of(cache.subject, cache.source, np.where(cache.is_mr.numpy(), "MR", "CT"), "subject")
    means, precisions, limits = [], [], []
    for mr in (False, True):
        of = cache.is_mr.numpy() == mr
        apart = [_distance(scaled[of & (fold == k)], *_gaussian(scaled[of & (fold != k)])) for k in np.unique(fold[of & (fold >= 0)])]
        mean, precision = _gaussian(scaled[of])
        means.append(mean)
        precisions.append(precision)
        limits.append(np.quantile(np.concatenate(apart), 0.99))
    return {"known.mean": torch.tensor(np.array(means)).float(), "known.precision": torch.tensor(np.array(precisions)).float(),
            "known.limit": torch.tensor(limits).float()}


def thresholds(s: SeriesScores, modality: str) -> dict[str, float]:
    """Where the verdict turns, in steps of 5 points: Good from the lower quartile of the true Q of series as received, Reject below the upper quartile
    of the strongest damage."""
    clean, strong = s.truth[s.rung == 0], s.truth[np.isin(s.rung, STRONG[modality])]
    good, reject = 5.0 * round(float(np.quantile(clean, 0.25)) / 5.0), 5.0 * round(float(np.quantile(strong, 0.75)) / 5.0)
    return {"reject_below": min(reject, good), "good_from": good}


def figures(p: Predictions) -> dict[str, Any]:
    """Evaluation of one modality out of fold; numbers of the model card."""
    s = series_scores(p)
    error = np.abs(np.log(p.physics) - np.log(p.true_physics))
    return {"subjects": len(np.unique(p.subject)), "srcc_slice": round(srcc(p.q, p.truth), 3), "srcc_series": round(srcc(s.score, s.truth), 3),
            "pairs": round(pair_order(p), 3),
            "median_error": {axis: round(float(np.expm1(np.median(error[:, k]))), 3) for k, axis in enumerate(("noise", "width"))},
            "true_quantiles": [round(float(v), 1) for v in np.quantile(s.truth, [0.05, 0.25, 0.5, 0.75, 0.95])]}


def report(by_subject: Predictions, by_source: Predictions | None = None) -> dict[str, Any]:
    """Calibration and evaluation per modality from the predictions of the folds by subject; figures of whole sources left out beside them."""
    found: dict[str, Any] = {}
    for mr, modality in enumerate(MODALITIES):
        p = by_subject.only(by_subject.is_mr == bool(mr))
        s = series_scores(p)
        fold = folds_of(s.subject, _sources(p, s.subject), [modality] * len(s.subject), "subject")
        chosen = calibrated(s)
        row = {"interval": None if chosen is None else {k: v for k, v in asdict(chosen).items() if k != "subjects"}, **figures(p),
               "interval_left_out": coverage(s, fold), "thresholds": thresholds(s, modality)}
        if by_source is not None:
            row["source_left_out"] = figures(by_source.only(by_source.is_mr == bool(mr)))
        found[modality] = row
    return found


def _sources(p: Predictions, subjects: np.ndarray) -> list[str]:
    of = dict(zip(p.subject.tolist(), p.source.tolist(), strict=True))
    return [of[name] for name in subjects.tolist()]
