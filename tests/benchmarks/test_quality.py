"""The quality benchmark end to end: rows, folds, methods beside ours, figures, the JSON that others read."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines import METHODS
from benchmarks.figures import counted, fixed_coverage, foreign_order, left_out_coverage, method_figures, series_scores
from benchmarks.folds import deal
from benchmarks.foreign import foreign_versions
from benchmarks.judges import our_judge
from benchmarks.metrics import srcc
from benchmarks.networks import plain_convolution, published_from_scratch
from benchmarks.ours import Answer
from benchmarks.quality import OURS, compare, contract, our_figures, out_of_fold
from benchmarks.rows import FOREIGN, Rows, make_rows, mild_rungs
from qa_engine.calibration import Calibration
from qa_engine.training.calibrate import SeriesScores
from qa_engine.training.dataset import simulated_series
from qa_engine.training.fold_names import SPLITS
from qa_engine.training.ladder import LADDERS
from tests.support.data import data_folder

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ("srcc", "auc_mild", "baselines", "coverage", "pairs")


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Two slices of each of three simulated patients of two sources, under names that no training knows."""
    series = [replace(one, name=f"case-{k}", subject=f"case-{k}", source=f"site-{k % 2}", pixels=one.pixels[1:3], z_mm=one.z_mm[1:3])
              for k, one in enumerate(simulated_series("MR", 3, doses=(1.0,), seed=71_000))]
    found = make_rows(series, "MR", 2, 1, lambda k, n: None)
    assert found is not None
    return found


def test_rows_hold_the_ladder_and_foreign_damage(rows: Rows) -> None:
    assert len(rows) == 3 * (2 * len(LADDERS["MR"]) + 11) and len(set(rows.slice)) == 9
    ladder = rows.rung != FOREIGN
    assert np.isfinite(rows.q[ladder]).all() and np.isnan(rows.q[~ladder]).all() and np.isfinite(rows.iqms).all() and np.isfinite(rows.brisque).all()
    assert np.isfinite(rows.niqe[:, 0]).all() and rows.views.dtype == np.float16
    for name in np.unique(rows.slice[ladder]):
        own = rows.take(rows.slice == name)
        assert own.q[own.rung == 0] == own.q.max(), "the undegraded version is the best of its slice"
    likeness = rows.likeness[np.isfinite(rows.likeness[:, 0])]
    assert len(likeness) == 3 * (len(LADDERS["MR"]) - 1) and (likeness[:, 0] < 1).all()


def test_mild_is_one_rung_of_each_axis() -> None:
    for modality, ladder in LADDERS.items():
        mild = [ladder[r] for r in sorted(mild_rungs(modality))]
        assert len(mild) == 3 and all(len(steps) == 1 for steps in mild)
        assert {steps[0][0] for steps in mild} == {"noise", "blur", {"CT": "streak", "MR": "motion"}[modality]}


def test_folds_split_subjects_and_sources() -> None:
    subject = np.repeat([f"s{k}" for k in range(30)], 3)
    source = np.repeat([f"site{k % 7 if k < 20 else 0}" for k in range(30)], 3)
    by_subject, by_source = deal(subject, source, "subject"), deal(subject, source, "source")
    assert len(set(by_subject)) == SPLITS["subject"] and len(set(by_source)) == SPLITS["source"]
    for fold, unit in ((by_subject, subject), (by_source, source)):
        assert all(len(set(fold[unit == one])) == 1 for one in np.unique(unit))
    sizes = np.bincount(by_subject) / 3
    assert sizes.max() - sizes.min() <= 1
    assert (deal(subject, np.full(90, "one"), "source") == -1).all(), "one source cannot be left out"


@pytest.mark.parametrize("name", list(METHODS))
def test_methods_never_see_what_they_score(rows: Rows, name: str) -> None:
    fold = deal(rows.subject, rows.source, "subject")
    before = out_of_fold(METHODS[name], rows, fold)
    assert before is not None and np.isfinite(before).all()
    other = rows.q.copy()
    own = (fold == 0) & (rows.rung != FOREIGN)
    other[own] = other[own][::-1]
    after = out_of_fold(METHODS[name], replace(rows, q=other), fold)
    assert after is not None and np.array_equal(before[fold == 0], after[fold == 0])


def test_rows_of_the_same_subject_never_follow(rows: Rows) -> None:
    one, all_but = rows.take(rows.subject == "case-0"), rows.subject != "case-0"
    both = one.followed_by(rows)
    assert len(both) == len(rows) and np.array_equal(both.q[len(one):], rows.q[all_but], equal_nan=True)
    fold = np.where(np.arange(len(both)) < len(one), 0, -1)
    score = out_of_fold(METHODS["global noise level"], both, fold)
    assert score is not None and np.isfinite(score[:len(one)]).all() and np.isnan(score[len(one):]).all()


def test_figures_of_a_perfect_and_a_blind_method(rows: Rows) -> None:
    truth = rows.q.copy()
    perfect, blind = method_figures(truth, rows, "MR", 20), method_figures(np.where(np.isfinite(truth), 3.0, np.nan), rows, "MR", 0)
    assert perfect["srcc"] == perfect["pairs"] == perfect["auc_mild"] == 1.0 and perfect["subjects"] == 3
    assert blind["pairs"] == 0.0 and blind["auc_mild"] == 0.5
    order = np.where(rows.rung == FOREIGN, -rows.step, 0).astype(float)
    assert set(foreign_order(order, rows).values()) == {1.0} and set(foreign_order(-order, rows).values()) == {0.0}
    answer = Answer(rows.physics, truth, np.zeros(len(rows)), np.stack([truth + 3.0, truth], 1))
    s = series_scores(answer, rows)
    assert len(s.score) == 3 * len(LADDERS["MR"]) and np.corrcoef(s.score, s.truth)[0, 1] > 0.99 and len(set(s.subject)) == 3
    assert np.allclose(s.apart, 3.0)


def test_coverage_counts_subjects() -> None:
    random = np.random.default_rng(5)
    subject, truth = np.repeat([f"s{k}" for k in range(50)], 8), random.uniform(30, 70, 400)
    fold = np.repeat(np.arange(50) % 4, 8)

    def made(pick: slice, error: np.ndarray) -> SeriesScores:
        n = len(error)
        return SeriesScores(subject[pick], np.zeros(n, bool), np.zeros(n, int), truth[pick] + error, truth[pick], np.zeros(n))

    whole = made(slice(None), random.normal(0, 5, 400))
    found = left_out_coverage(whole, fold)
    assert found["subjects"] == 50 and 0.85 <= found["observed"] <= 0.96 and found["upper_95"] > found["observed"]
    assert found["median_width"] == pytest.approx(2 * 5 * 1.645, rel=0.2)
    assert fixed_coverage(whole, Calibration(2.5, 1.0, 0.0, 50))["observed"] == pytest.approx(0.38, abs=0.08)
    assert left_out_coverage(made(slice(0, 40), np.zeros(40)), fold[:40])["median_width"] is None, "five subjects make no interval"
    assert counted(0.9, 50)["interval"] == [0.782, 0.967]


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_foreign_damage_grows(modality: str) -> None:
    y, x = np.mgrid[:128, :128]
    image = np.where((x - 64) ** 2 + (y - 64) ** 2 < 50 ** 2, 300.0 + 100 * np.sin(x / 5), 0.0).astype(np.float32)
    if modality == "CT":
        image -= 250.0
    found = {(kind, step): pixels for kind, step, pixels in foreign_versions(image, modality)}
    assert np.allclose(found["", 0], image, atol=0.5)
    for kind in {k for k, step in found if step}:
        one, two = (float(np.sqrt(np.mean((found[kind, step] - image) ** 2))) for step in (1, 2))
        assert 0 < one < two, kind


@pytest.mark.model
def test_networks_beside_ours(rows: Rows) -> None:
    ladder = np.flatnonzero(rows.rung != FOREIGN)
    fitted = plain_convolution(rows, ladder, ladder, "MR", 60)
    one, two = (plain_convolution(rows, ladder, ladder[:12], "MR", 2) for _ in range(2))
    assert np.array_equal(one, two), "seeded"
    assert srcc(fitted, rows.q[ladder]) > srcc(plain_convolution(rows, ladder, ladder, "MR", 0), rows.q[ladder]) + 0.05
    pictured = replace(rows, pictures=np.random.default_rng(0).integers(0, 255, (len(rows), 224, 224), np.uint8))
    assert np.isfinite(published_from_scratch(pictured, ladder, ladder[:2], "MR", 0, device="cpu")).all()


@pytest.mark.model
def test_comparison_and_contract(rows: Rows, tmp_path: Path) -> None:
    judge = our_judge(tmp_path, tmp_path, None)
    methods, answers = compare(rows, "MR", judge, True, 10)
    found = {"modalities": {"mr": {"methods": methods, **our_figures(rows, "MR", judge, answers)}},
             "pair_details": {"dose": {"right": 3, "total": 4, "axis": "noise"}}}
    contract(found)
    assert all(key in found for key in CONTRACT)
    assert found["srcc"]["ct"] is None and -1 <= found["srcc"]["mr"] <= 1 and 0 <= found["auc_mild"]["mr"] <= 1
    assert set(METHODS) <= set(found["baselines"]) and all(set(v) == {"ct", "mr"} for v in found["baselines"].values())
    assert found["coverage"]["mr"] == found["modalities"]["mr"]["coverage"]["observed"] is not None
    assert found["pairs"] == {"dose": 0.75}
    assert methods["source"][OURS]["versions"] == methods["subject"][OURS]["versions"] == np.sum(rows.rung != FOREIGN)


@pytest.mark.data
@pytest.mark.slow
def test_command_on_subjects_never_seen(tmp_path: Path) -> None:
    """Three subjects of each modality under other names: MR alone first, then both."""
    train = data_folder() / "train"
    for index, column in (("index.csv", "ct"), ("index-mr.csv", "mr")):
        with (train / index).open(encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        chosen, seen = [], set()
        for row in table:
            patient = row["file"].startswith(column) and row.get("role", "patient") == "patient" and row["ship"] == "yes"
            if patient and row["source_key"] not in seen and len(seen) < 3:
                seen.add(row["source_key"])
                chosen.append(row | {"subject": f"new-{len(seen)}", "source_key": f"elsewhere-{len(seen)}"})
        if column == "ct":
            chosen += [row for row in table if row["modality"] == "PT" or row["file"].startswith("pet")][:1]
        (tmp_path / column).symlink_to(train / column)
        with (tmp_path / index).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(chosen)
    command = [sys.executable, ROOT / "benchmarks" / "quality.py", "--quick", "--json", "--jobs", "1", "--data", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert all(key in found for key in CONTRACT) and found["srcc"]["ct"] > 0.5 and found["srcc"]["mr"] is not None
    assert any("none of these subjects was in the training" in note for note in found["notes"])
    assert found["modalities"]["ct"]["subjects"] == found["modalities"]["mr"]["subjects"] == 3
    assert all(row["numbered"] == 0 for row in found["abstention"].values()) and found["pairs"]["dose"] == 1.0


def test_wrong_folder_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "quality.py", "--data", tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "no index.csv" in done.stderr and len(done.stderr.strip().splitlines()) == 1
