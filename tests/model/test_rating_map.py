"""The map from points to ratings: rising, exact, chosen without the patients that judge it; tables of ratings and their refusals."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from qa_engine.targets import SCALES
from qa_engine.training.calibrate import ranks
from qa_engine.training.rating_labels import Label, RatingsRefused, agreement, find_series, read_labels, scale_of
from qa_engine.training.rating_map import Candidate, Rated, candidates, choose, fit_map, folds, half_width, least_squares, left_out_errors, out_of_fold
from tests.support.data import data_folder
from tests.support.series import axial, write_all

Rule = Callable[[Rated], float]


def rated(patients: int, rule: Rule, noise: float = 5.0, seed: int = 0) -> list[Rated]:
    """One or two series per patient, seven slices each, rated by `rule` with an error of `noise` points."""
    random, found, scale = np.random.default_rng(seed), [], SCALES[("CT", "soft tissue")]
    for k in range(patients):
        for _ in range(1 + k % 2):
            axes = np.clip(random.uniform(30, 98, (1, 3)) + random.normal(0, 3, (7, 3)), 1, 100)
            q = 100 * np.clip((np.prod(axes / 100, 1) - scale.low) / (scale.high - scale.low), 0, 1)
            one = Rated(f"p{k:03}", q, axes, random.dirichlet(np.full(7, 5.0)), 0.0)
            found.append(Rated(one.patient, q, axes, one.weight, float(np.clip(rule(one) + random.normal(0, noise), 0, 100))))
    return found


def bent(one: Rated) -> float:
    return float((one.weight * (15 + 75 * (one.q / 100) ** 0.4)).sum())


def of_noise(one: Rated) -> float:
    return float((one.weight * one.axes[:, 0]).sum())


def test_least_squares_is_the_constrained_minimum() -> None:
    random = np.random.default_rng(1)
    a = random.normal(size=(6, 8, 4))
    gram, target = np.einsum("bij,bik->bjk", a, a), random.normal(size=(6, 4)) * 3
    found = least_squares(gram, target)
    slope = np.einsum("bij,bj->bi", gram, found) - target
    assert (found >= 0).all() and (found == 0).any() and (found > 0).any()
    assert (slope >= -1e-9).all() and np.abs(slope * found).max() < 1e-9  # Karush, Kuhn, Tucker


@pytest.mark.parametrize("candidate", [Candidate(None, 0), Candidate((0.5, 0.25, 0.25), 0)])
def test_leaving_out_is_fitting_without(candidate: Candidate) -> None:
    series = rated(12, bent)
    errors = left_out_errors(candidate, series)
    for k, name in enumerate(sorted({s.patient for s in series})):
        again = fit_map(candidate, [s for s in series if s.patient != name])
        left = [s for s in series if s.patient == name]
        assert errors[k] == pytest.approx(np.mean([(again.predict([s])[0] - s.rating) ** 2 for s in left]), rel=1e-3)


@pytest.mark.parametrize(("rule", "exponents", "bends"), [(bent, None, (3,)), (of_noise, (1.0, 0.0, 0.0), (0, 3))])
def test_the_map_that_the_readers_used_is_found(rule: Rule, exponents: tuple[float, ...] | None, bends: tuple[int, ...]) -> None:
    series = rated(60, rule)
    chosen = choose(series, candidates())
    assert chosen.exponents == exponents and chosen.bends in bends
    fitted = fit_map(chosen, series)
    assert (np.diff(fitted.values) >= 0).all() and fitted.values[0] >= 0 and fitted.values[-1] <= 100
    predicted, constant = out_of_fold(series, candidates())
    truth = np.array([s.rating for s in series])
    assert np.abs(predicted - truth).mean() < 0.5 * np.abs(constant - truth).mean()
    assert 6 < half_width(series, predicted) < 16  # an error of 5 points lies within 8.2 in nine of ten cases


def test_ratings_without_relation_gain_nothing() -> None:
    random = np.random.default_rng(5)
    series = rated(60, lambda one: float(random.uniform(0, 100)), 0.0)
    predicted, constant = out_of_fold(series, candidates())
    truth = np.array([s.rating for s in series])
    assert ((predicted - truth) ** 2).mean() > 0.93 * ((constant - truth) ** 2).mean()
    assert half_width(series, predicted) > 35


def test_patients_are_never_divided() -> None:
    series = rated(25, bent)
    fold = folds(series)
    for name in {s.patient for s in series}:
        assert len({int(f) for s, f in zip(series, fold, strict=True) if s.patient == name}) == 1
    assert np.bincount(fold).min() >= 2


def test_no_interval_below_nine_patients() -> None:
    for patients in (8, 9):
        series = rated(patients, bent)
        assert np.isfinite(half_width(series, np.zeros(len(series)))) == (patients == 9)


@pytest.mark.parametrize(("separator", "header"), [(",", "series,score,rater"), (";", "Series Instance UID;Rating;Reader"), ("\t", "path\tMOS\tobserver")])
def test_tables_of_many_makes(tmp_path: Path, separator: str, header: str) -> None:
    file = tmp_path / "ratings.csv"
    rows = [separator.join(row) for row in (("a", "3", "X"), ("a", "4", "X"), ("", ""), ("b", "2.5" if separator == "," else "2,5", "Y"))]
    file.write_text("\ufeff" + "\n".join([header, *rows]) + "\n", encoding="utf-8")
    assert read_labels(file) == [Label("a", "X", 3.5), Label("b", "Y", 2.5)]


@pytest.mark.parametrize(("content", "said"), [("uid,points\n", "holds no ratings"), ("name,points\na,1\n", "needs a column"), ("", "needs a column"),
                                               ("series,score\na,good\n", "line 2"), ("series,score\na,1\n,2\n", "line 3"), ("series,score\na\n", "line 2"),
                                               ("series,score\na,nan\n", "line 2")])
def test_tables_that_are_none(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text(content)
    with pytest.raises(RatingsRefused, match=said):
        read_labels(file)


def test_one_scale() -> None:
    labels = [Label("a", "", 1.0), Label("b", "", 3.0)]
    assert [scale_of(labels, None, False).points(v) for v in (1, 3)] == [0, 100]
    assert [scale_of(labels, (1, 5), True).points(v) for v in (1, 3, 5)] == [100, 50, 0]
    with pytest.raises(RatingsRefused, match="outside the scale"):
        scale_of(labels, (2, 5), False)
    with pytest.raises(RatingsRefused, match="the same"):
        scale_of(labels[:1], (1, 5), False)


def test_agreement_of_raters() -> None:
    same = {f"s{k}": {"A": float(k), "B": float(k), "C": float(k)} for k in range(8)}
    assert agreement(same) == {"raters": 3, "rated_twice": 8, "alpha": 1.0, "srcc_of_raters": 1.0}
    alone = agreement({"s": {"A": 1.0}})
    assert alone["alpha"] is None and alone["srcc_of_raters"] is None
    # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", data C without the unit of one rating: interval alpha 0.849
    table = {"A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None], "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
             "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None], "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]}
    units = {f"u{k}": {r: float(v[k]) for r, v in table.items() if v[k] is not None} for k in range(12)}
    assert agreement(units)["alpha"] == pytest.approx(0.849, abs=1e-3)


def test_series_are_found_by_path_and_by_uid_and_patients_are_hidden(tmp_path: Path) -> None:
    names = {}
    for k, patient in product(range(2), ("NEVER-A", "NEVER-B")):
        objects = axial(2, PatientID=patient)
        write_all(objects, tmp_path / "data" / f"{patient[-1]}{k}")
        names[f"{patient[-1]}{k}"] = str(objects[0].SeriesInstanceUID)
    found, lost = find_series(["data/A0", "B0", names["A1"], names["B1"], "data", "7.7"], tmp_path, tmp_path / "data", b"key")
    assert {name: one.uid for name, one in found.items()} == {"data/A0": names["A0"], "B0": names["B0"], names["A1"]: names["A1"], names["B1"]: names["B1"]}
    assert found["data/A0"].patient == found[names["A1"]].patient != found["B0"].patient == found[names["B1"]].patient
    assert "NEVER" not in str({n: (o.uid, o.patient) for n, o in found.items()})
    other, _ = find_series(["data/A0"], tmp_path, None, b"other key")
    assert other["data/A0"].patient != found["data/A0"].patient
    assert lost == {"data": "4 series, name one of them", "7.7": "neither a path nor a Series Instance UID below --data"}


@pytest.mark.data
def test_the_interval_holds_for_real_readers() -> None:
    """MR-ART: scores of neuroradiologists beside measures of the same scans (ranks of three stand for the axes); half of the subjects fit."""
    folder = data_folder() / "labels"
    scores = {row["bids_name"]: float(row["score"]) for row in csv.DictReader((folder / "mrart_ds004173_scores.tsv").open(), delimiter="\t")}
    rows = [r for r in csv.DictReader((folder / "mrart_ds004173_mriqc_group_T1w.tsv").open(), delimiter="\t") if r["bids_name"] in scores]
    axes = np.stack([100 * (ranks(sign * np.array([float(r[name]) for r in rows])) + 1) / (len(rows) + 1)
                     for name, sign in (("snr_total", 1), ("fber", 1), ("efc", -1))], 1)
    series = [Rated(r["bids_name"].partition("_")[0], axes[k:k + 1].mean(1), axes[k:k + 1], np.ones(1), 50 * (3 - scores[r["bids_name"]]))
              for k, r in enumerate(rows)]
    names = np.random.default_rng(0).permutation(sorted({s.patient for s in series}))
    ours = set(names[: len(names) // 2])
    fitting, others = [s for s in series if s.patient in ours], [s for s in series if s.patient not in ours]
    predicted, constant = out_of_fold(fitting, candidates())
    truth = np.array([s.rating for s in fitting])
    assert np.abs(predicted - truth).mean() < 0.6 * np.abs(constant - truth).mean()
    width = half_width(fitting, predicted)
    covered = np.abs(fit_map(choose(fitting, candidates()), fitting).predict(others) - np.array([s.rating for s in others])) <= width
    assert 0.85 < covered.mean() < 0.96, (width, covered.mean())
