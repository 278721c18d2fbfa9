"""What is said of one method from its scores and the known truth, always with the number of subjects and an interval by patient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.metrics import (
    auc,
    bootstrap,
    clopper_pearson,
    detection_bound,
    krocc,
    pair_accuracy,
    plcc,
    rows_by,
    same_slice_auc,
    srcc,
    upper_bound,
)
from benchmarks.ours import Answer
from benchmarks.rows import FOREIGN, Rows, mild_rungs
from qa_engine.calibration import Calibration
from qa_engine.measures import MEASURE_NAMES
from qa_engine.training.calibrate import SeriesScores, coverage
from qa_engine.training.ladder import LADDERS

TISSUE = MEASURE_NAMES.index("tissue_share")


def kind_of(modality: str, rung: int) -> str:
    """Name of what a rung of the ladder does: noise, blur, noise + blur ...; "" for identity."""
    return " + ".join(step[0] for step in LADDERS[modality][rung])


def method_figures(score: np.ndarray, rows: Rows, modality: str, resamples: int) -> dict[str, Any]:
    """Of the rows of the ladder for which there is a score: correlations with the true Q, order within a slice, mild against clean."""
    pick = np.flatnonzero(np.isfinite(score) & (rows.rung != FOREIGN))
    if len(pick) < 3:
        return {}
    s, q, subject, group = score[pick], rows.q[pick], rows.subject[pick], rows.slice[pick]
    clean, mild = rows.rung[pick] == 0, np.isin(rows.rung[pick], list(mild_rungs(modality)))

    def interval(figure: Any) -> list[float]:
        return [round(v, 3) for v in bootstrap(figure, subject, resamples)]

    def same(r: np.ndarray) -> float:
        return same_slice_auc(s[r], group[r], clean[r], mild[r])

    everything = np.arange(len(s))
    return {
        "subjects": len(set(subject)), "versions": len(pick), "srcc": round(srcc(s, q), 3), "srcc_interval": interval(lambda r: srcc(s[r], q[r])),
        "plcc": round(plcc(s, q), 3), "krocc": round(krocc(s, q), 3), "pairs": round(pair_accuracy(s, q, group), 3),
        "auc_mild": round(same(everything), 3), "auc_mild_interval": interval(same), "auc_across": round(auc(s[clean], s[mild]), 3),
    }


def bounds(rows: Rows, modality: str) -> dict[str, float]:
    """AUC of mild against clean across subjects that a perfect meter of one axis reaches (references: trial, section 4)."""
    found = {}
    clean = rows.take(rows.rung == 0)
    before = dict(zip(clean.slice, clean.physics, strict=True))
    for axis, (name, kind) in enumerate((("noise", "noise"), ("width", "blur"))):
        mild = [r for r in mild_rungs(modality) if kind_of(modality, r) == kind]
        pick = np.flatnonzero(np.isin(rows.rung, mild))
        ratio = np.array([math.log(rows.physics[k, axis] / before[rows.slice[k]][axis]) for k in pick if rows.slice[k] in before])
        found[name] = round(detection_bound(ratio, float(np.log(clean.physics[:, axis]).std())), 3)
    return found


def by_kind(score: np.ndarray, rows: Rows, modality: str) -> dict[str, dict[str, Any]]:
    """Order within a slice and mild against clean, for each kind of damage with the clean version."""
    found = {}
    judged = np.isfinite(score) & (rows.rung != FOREIGN)
    kinds = np.array([kind_of(modality, int(r)) if r >= 0 else "" for r in rows.rung])
    for kind in dict.fromkeys(k for k in kinds if k):
        pick = np.flatnonzero(judged & ((kinds == kind) | (rows.rung == 0)))
        if not len(pick):
            continue
        clean, mild = rows.rung[pick] == 0, np.isin(rows.rung[pick], list(mild_rungs(modality)))
        found[kind] = {"srcc": round(srcc(score[pick], rows.q[pick]), 3), "pairs": round(pair_accuracy(score[pick], rows.q[pick], rows.slice[pick]), 3),
                       "auc_mild": round(same_slice_auc(score[pick], rows.slice[pick], clean, mild), 3)}
    return found


def by_region(score: np.ndarray, rows: Rows) -> dict[str, dict[str, Any]]:
    """SRCC per region word, with the number of subjects."""
    judged = np.isfinite(score) & (rows.rung != FOREIGN)
    found = {}
    for region in np.unique(rows.region):
        pick = judged & (rows.region == region)
        if pick.sum() > 2:
            found[str(region) or "unknown"] = {"subjects": len(set(rows.subject[pick])), "srcc": round(srcc(score[pick], rows.q[pick]), 3)}
    return found


def foreign_order(score: np.ndarray, rows: Rows) -> dict[str, float]:
    """Of damage that no simulator of ours made: share of slices, per kind, where clean scores above step 1 and step 1 above step 2."""
    pick = np.flatnonzero(np.isfinite(score) & (rows.rung == FOREIGN))
    right: dict[str, list[bool]] = {}
    for of_slice in rows_by(rows.slice[pick]):
        own = pick[of_slice]
        value = {(str(rows.kind[k]), int(rows.step[k])): float(score[k]) for k in own}
        for kind in {k for k, step in value if step}:
            if ("", 0) in value:
                right.setdefault(kind, []).append(value["", 0] > value[kind, 1] > value[kind, 2])
    return {kind: round(float(np.mean(of)), 3) for kind, of in sorted(right.items())}


def likeness_order(score: np.ndarray, rows: Rows, column: int, apart: float = 0.02) -> float:
    """Share of pairs of one slice, with likenesses more than `apart` apart, that the score orders alike."""
    pick = np.flatnonzero(np.isfinite(score) & np.isfinite(rows.likeness[:, column]))
    return pair_accuracy(score[pick], rows.likeness[pick, column], rows.slice[pick], apart)


def axis_errors(physics: np.ndarray, rows: Rows) -> dict[str, float]:
    """Median error of noise and width as a share, and their rank correlation with the truth."""
    pick = np.isfinite(physics[:, 0]) & (rows.rung != FOREIGN)
    if pick.sum() < 3:
        return {}
    error = np.abs(np.log(physics[pick]) - np.log(rows.physics[pick]))
    found = {name: round(float(np.expm1(np.median(error[:, k]))), 3) for k, name in enumerate(("noise", "width"))}
    return found | {f"{name}_srcc": round(srcc(physics[pick, k], rows.physics[pick, k]), 3) for k, name in enumerate(("noise", "width", "artefact"))}


def series_scores(answer: Answer, rows: Rows, weights: str = "trained") -> SeriesScores:
    """Each version of each series. weights: trained (softmax), constant, or one (only the first slice); the truth always weighs all slices by
    their tissue."""
    pick = np.flatnonzero(np.isfinite(answer.q) & (rows.rung != FOREIGN))
    name = np.array([f"{s}/{r}" for s, r in zip(rows.series[pick], rows.rung[pick], strict=True)])
    found = []
    for of_series in rows_by(name):
        own = pick[of_series]
        logit = answer.logit[own] if weights == "trained" else np.zeros(len(own))
        if weights == "one":
            logit[1:] = -np.inf
        weight = np.exp(logit - logit.max())
        weight /= weight.sum()
        tissue = rows.measures[own, TISSUE].astype(float) + 1e-3
        one, two = weight @ answer.members[own]
        found.append((own[0], float(weight @ answer.q[own]), float(tissue @ rows.q[own] / tissue.sum()), abs(one - two)))
    first = np.array([row[0] for row in found], int)
    score, truth, apart = (np.array([row[k] for row in found], float) for k in (1, 2, 3))
    return SeriesScores(rows.subject[first], np.full(len(first), False), rows.rung[first], score, truth, apart)


def left_out_coverage(s: SeriesScores, folds: np.ndarray) -> dict[str, Any]:
    """Intervals at 90 %, each fold of subjects by a calibration on the others; exact bounds for the number of subjects."""
    found = coverage(s, folds)
    return counted(found["coverage"], found["subjects"]) | {"median_width": found["median_width"]}


def fixed_coverage(s: SeriesScores, calibration: Calibration) -> dict[str, Any]:
    """The same for an interval that was calibrated elsewhere: of subjects never seen."""
    ends = np.array([calibration.interval(float(score), float(apart)) for score, apart in zip(s.score, s.apart, strict=True)])
    inside = (ends[:, 0] <= s.truth) & (s.truth <= ends[:, 1])
    share = float(np.mean([inside[g].mean() for g in rows_by(s.subject)]))
    return counted(share, len(set(s.subject))) | {"median_width": round(float(np.median(ends[:, 1] - ends[:, 0])), 1)}


def counted(share: float, subjects: int) -> dict[str, Any]:
    """Observed coverage with exact bounds, as if share * subjects subjects were covered."""
    k = round(share * subjects)
    low, high = clopper_pearson(k, subjects)
    return {"observed": round(share, 3), "subjects": subjects, "interval": [round(low, 3), round(high, 3)], "upper_95": round(upper_bound(k, subjects), 3)}
