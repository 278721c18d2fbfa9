"""From physics to points, intervals and verdicts: pure functions with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qa_engine.calibration import Calibration, conformal_half_width, verdict
from qa_engine.degradation_grades import grades
from qa_engine.targets import SCALES, Curve, axes_of, purpose_of, quality_of
from qa_engine.training.calibrate import SeriesScores, calibrated, coverage, srcc


def test_half_width_is_the_rank_of_split_conformal() -> None:
    assert conformal_half_width([0.0] * 8) == math.inf  # 9 subjects are the least for 90 %
    assert conformal_half_width(list(range(1, 10))) == 9
    assert conformal_half_width([-v for v in range(1, 20)]) == 18  # ceil(20 * 0.9)
    assert conformal_half_width(list(range(100)), 0.5) == 50


def test_coverage_holds_on_average() -> None:
    random = np.random.default_rng(3)
    covered = [abs(random.normal()) <= conformal_half_width(random.normal(size=39).tolist()) for _ in range(4000)]
    assert 0.885 <= np.mean(covered) <= 0.93


def series(subject: list[str], error: np.ndarray, score: np.ndarray | float = 50.0, apart: np.ndarray | float = 0.0) -> SeriesScores:
    """Scores that miss the truth by `error`."""
    n = len(subject)
    scores = np.full(n, score) if isinstance(score, float) else score
    differences = np.full(n, apart) if isinstance(apart, float) else apart
    return SeriesScores(np.array(subject), np.zeros(n, bool), np.zeros(n, int), scores, scores - error, differences)


def test_one_version_per_subject_counts() -> None:
    """A subject with a thousand versions weighs no more than one with a single version."""
    found = calibrated(series(["many"] * 1000 + [f"s{k}" for k in range(19)], np.array([90.0] * 1000 + [float(k) for k in range(19)])))
    assert found is not None and found.parts(50.0, 0.0)[0] == pytest.approx(18.0)  # the 19th of 20; 90 if versions were counted
    assert calibrated(series([f"s{k}" for k in range(8)], np.ones(8))) is None


def test_the_interval_is_wider_where_the_models_differ_and_covers_subjects_left_out() -> None:
    random = np.random.default_rng(5)
    subject = [f"s{k // 10}" for k in range(800)]
    apart = random.uniform(0, 30, 800)
    s = series(subject, random.normal(size=800) * (2 + apart), random.uniform(20, 80, 800), apart)
    found = calibrated(s)
    assert found is not None and found.apart > 0
    narrow, wide = (sum(found.parts(50.0, d)) for d in (0.0, 30.0))
    assert wide > 2 * narrow
    left_out = coverage(s, np.array([int(name[1:]) % 4 for name in subject]))
    assert left_out["subjects"] == 80 and 0.86 <= left_out["coverage"] <= 0.94


@pytest.mark.parametrize(("interval", "word"), [
    ((50.0, 70.0), "Good"), ((49.9, 99.0), "Usable"), ((10.0, 34.9), "Reject"), ((10.0, 35.0), "Usable"), ((0.0, 100.0), "Usable")])
def test_verdict_is_taken_from_the_interval(interval: tuple[float, float], word: str) -> None:
    assert str(verdict(interval, 35.0, 50.0)) == word


def test_interval_stays_on_the_scale() -> None:
    flat = Calibration(20.0, 1.0, 0.0, 30)
    assert flat.interval(95.0, 9.0) == (75.0, 100.0) and flat.interval(5.0, 9.0) == (0.0, 25.0)
    local = Calibration(20.0, 0.5, 0.05, 30)
    assert local.parts(50.0, 0.0) == (20.0, 0.0) and local.parts(100.0, 4.0) == pytest.approx((10.0, 4.0))
    assert local.interval(50.0, 4.0) == pytest.approx((26.0, 74.0))


@pytest.mark.parametrize("key", SCALES)
def test_more_damage_never_raises_axes_or_quality(key: tuple[str, str]) -> None:
    random = np.random.default_rng(1)
    physics = np.exp(random.normal(size=(200, 3)) + np.log([10.0, 1.5, 8.0] if key[0] == "CT" else [0.03, 1.5, 0.03]))
    for axis in range(3):
        worse = physics.copy()
        worse[:, axis] *= 1.5
        assert (quality_of(worse, *key) <= quality_of(physics, *key)).all()
        fell = axes_of(worse, *key)[:, axis] < axes_of(physics, *key)[:, axis]
        assert fell[physics[:, axis] > 0.02 if (key[0], axis) == ("MR", 2) else slice(None)].all()
    q = quality_of(physics, *key)
    assert q.min() >= 0 and q.max() <= 100


def test_what_texture_shows_as_well_counts_as_none() -> None:
    curve = Curve(0.05, 1.6, texture=0.02)
    assert curve(np.array([0.0, 0.02])).tolist() == [1.0, 1.0] and curve(np.array([math.hypot(0.05, 0.02)]))[0] == pytest.approx(0.5)


def test_a_curve_halves_at_its_amount() -> None:
    assert Curve(25.0, 1.3)(np.array([25.0]))[0] == pytest.approx(0.5) and Curve(25.0, 1.3)(np.array([-3.0]))[0] == 1.0


@pytest.mark.parametrize(("kernel", "text", "purpose"), [
    ("B30f", "", "soft tissue"), ("STANDARD", "", "soft tissue"), ("LUNG", "", "lung"), ("B70f", "", "lung"), ("BONEPLUS", "", "bone"),
    ("YA", "", "bone"), ("", "Lung 1.0", "lung"), ("", "", "soft tissue"), ("FC18", "", "soft tissue"), ("Hr64h\\3", "", "bone")])
def test_purpose_of_a_kernel(kernel: str, text: str, purpose: str) -> None:
    assert purpose_of("CT", kernel, text) == purpose and purpose_of("MR", kernel, text) == ""


def test_grades_name_what_is_wrong_worst_first() -> None:
    physics = np.array([[60.0, 1.0, 2.0], [60.0, 3.0, 2.0]])
    found = grades(physics, np.array([0.5, 0.5]), "CT", "soft tissue", "ring")
    assert [d.type for d in found] == ["noise", "blur"] and str(found[0].severity) == "severe" and found[0].unit == "[hnsf'U]"
    assert found[0].amount == pytest.approx(60.0) and 0.5 < found[0].probability <= 1.0
    assert grades(np.array([[2.0, 0.8, 2.0]]), np.array([1.0]), "CT", "soft tissue", "ring") == ()
    assert [d.type for d in grades(np.array([[2.0, 0.8, 60.0]]), np.array([1.0]), "CT", "soft tissue", "ring")] == ["ring"]


def test_rank_correlation_with_ties() -> None:
    assert srcc(np.array([1, 2, 2, 4]), np.array([10, 20, 20, 40])) == pytest.approx(1.0)
    assert srcc(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1.0)
