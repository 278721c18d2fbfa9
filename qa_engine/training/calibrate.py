"""What is said of a fitted network comes from subjects that were kept out: intervals, correlations, order inside a slice, novelty limits."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qa_engine.calibration import conformal_half_width
from qa_engine.network.mediqa import MedIQA
from qa_engine.network.views import channels
from qa_engine.targets import quality_of
from qa_engine.training.cache import Cache
from qa_engine.training.fit import Standard

SHRINK = 0.2
MODALITIES = ("CT", "MR")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of cache rows: predicted physics (N,3), Q and true Q (N,), weight logits (N,)."""

    rows: np.ndarray
    physics: np.ndarray
    q: np.ndarray
    truth: np.ndarray
    logit: np.ndarray


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


def predict(network: MedIQA, standard: Standard, cache: Cache, rows: np.ndarray, batch: int = 16) -> Predictions:
    """All views, prompts as the tags would give them, on the network's device."""
    physics, logit = [], []
    device = next(network.parameters()).device
    with torch.inference_mode():
        for at in range(0, len(rows), batch):
            pick = torch.from_numpy(rows[at:at + batch])
            is_mr = cache.is_mr[pick]
            seen = channels(cache.views[pick].float(), is_mr).to(device)
            out = network(seen, cache.measures[pick].to(device), cache.prompts[pick].to(device))
            physics.append(standard.physics(out.axes.cpu(), is_mr).numpy())
            logit.append(out.weight_logit.cpu().numpy())
    is_mr = cache.is_mr.numpy()[rows]
    found = np.concatenate(physics).astype(float)
    return Predictions(rows, found, _purposed_quality(found, cache, rows, is_mr),
                       _purposed_quality(cache.physics.numpy()[rows].astype(float), cache, rows, is_mr), np.concatenate(logit))


def series_scores(p: Predictions, cache: Cache) -> list[tuple[str, bool, float, float]]:
    """(subject, is MR, score, truth) of each version of each series: slices weighted by the trained weights, truth by tissue."""
    from qa_engine.measures import MEASURE_NAMES

    tissue = cache.measures.numpy()[:, MEASURE_NAMES.index("tissue_share")]
    groups: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for k, row in enumerate(p.rows):
        groups[(str(cache.series[row]), int(cache.draw[row]), int(cache.rung[row]))].append(k)
    found = []
    for pick in groups.values():
        weight = np.exp(p.logit[pick] - p.logit[pick].max())
        weight /= weight.sum()
        true_weight = tissue[p.rows[pick]] + 1e-3
        true_weight = true_weight / true_weight.sum()
        first = p.rows[pick[0]]
        found.append((str(cache.subject[first]), bool(cache.is_mr[first]), float((weight * p.q[pick]).sum()),
                      float((true_weight * p.truth[pick]).sum())))
    return found


def residual_per_subject(scores: list[tuple[str, bool, float, float]], is_mr: bool, draws: int = 200, seed: int = 0) -> float:
    """Median over draws of the conformal half width, each draw taking one version per subject (subjects are what is exchangeable)."""
    by_subject: dict[str, list[float]] = defaultdict(list)
    for subject, mr, score, truth in scores:
        if mr == is_mr:
            by_subject[subject].append(score - truth)
    random = np.random.default_rng(seed)
    widths = [conformal_half_width([values[random.integers(len(values))] for values in by_subject.values()]) for _ in range(draws)]
    return float(np.median(widths))


def pair_order(p: Predictions, cache: Cache, is_mr: bool) -> float:
    """Share of pairs of versions of one slice, more than 5 points apart, that the score puts in the right order."""
    right = total = 0
    groups: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for k, row in enumerate(p.rows):
        if bool(cache.is_mr[row]) == is_mr:
            groups[(str(cache.series[row]), int(cache.draw[row]), int(cache.place[row]))].append(k)
    for pick in groups.values():
        truth, q = p.truth[pick], p.q[pick]
        apart = truth[:, None] - truth[None]
        total += int((apart > 5).sum())
        right += int(((q[:, None] - q[None] > 0) & (apart > 5)).sum())
    return right / max(total, 1)


def novelty(network: MedIQA, cache: Cache) -> dict[str, torch.Tensor]:
    """Mean and precision of the standardised measures of fitted subjects per modality; the limit is the 99 % quantile of others."""
    scaled = ((cache.measures - network.measure_mean) / network.measure_std).numpy().astype(float)
    means, precisions, limits = [], [], []
    for mr in (False, True):
        of = cache.is_mr.numpy() == mr
        inside = scaled[of & ~cache.held_out]
        mean, covariance = inside.mean(0), np.cov(inside.T)
        covariance = (1 - SHRINK) * covariance + SHRINK * np.eye(len(mean)) * np.trace(covariance) / len(mean)
        precision = np.linalg.inv(covariance)
        apart = scaled[of & cache.held_out] - mean
        distance = np.sqrt(np.einsum("ni,ij,nj->n", apart, precision, apart))
        means.append(mean)
        precisions.append(precision)
        limits.append(np.quantile(distance, 0.99))
    return {"known.mean": torch.tensor(np.array(means)).float(), "known.precision": torch.tensor(np.array(precisions)).float(),
            "known.limit": torch.tensor(limits).float()}


def _known(half_width: float) -> float | None:
    """None, which gives no number to anybody, when too few subjects were kept out for the level."""
    return round(half_width, 2) if math.isfinite(half_width) else None


def report(network: MedIQA, standard: Standard, cache: Cache) -> dict[str, Any]:
    """Calibration and evaluation on subjects kept out, per modality; numbers of the model card."""
    p = predict(network, standard, cache, np.flatnonzero(cache.held_out))
    scores = series_scores(p, cache)
    found: dict[str, Any] = {}
    for mr, modality in enumerate(MODALITIES):
        pick = cache.is_mr.numpy()[p.rows] == bool(mr)
        of_series = [(s, t) for _, m, s, t in scores if m == bool(mr)]
        true = cache.physics.numpy()[p.rows][pick]
        error = np.abs(np.log(p.physics[pick]) - np.log(true))
        found[modality] = {
            "half_width": _known(residual_per_subject(scores, bool(mr))),
            "subjects": len({s for s, m, _, _ in scores if m == bool(mr)}),
            "srcc_slice": round(srcc(p.q[pick], p.truth[pick]), 3),
            "srcc_series": round(srcc(np.array([s for s, _ in of_series]), np.array([t for _, t in of_series])), 3),
            "pairs": round(pair_order(p, cache, bool(mr)), 3),
            "median_error": {"noise": round(float(np.expm1(np.median(error[:, 0]))), 3),
                             "width": round(float(np.expm1(np.median(error[:, 1]))), 3)},
            "true_quantiles": [round(float(v), 1) for v in np.quantile(p.truth[pick], [0.05, 0.25, 0.5, 0.75, 0.95])],
        }
    return found
