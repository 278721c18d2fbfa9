"""Ratings without images: tables are read, no site judges itself, the figures come out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ratings import SHARED, left_out, read_table
from tests.support.data import data_folder

ROOT = Path(__file__).resolve().parents[2]


def test_tables_know_numbers_from_words(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("site\trater_1\tcnr\nA\tn/a\t1.5\nB\t-1.0\t2.5\n", encoding="utf-8")
    table = read_table(tmp_path / "t.tsv")
    assert table["site"].tolist() == ["A", "B"] and np.isnan(table["rater_1"][0]) and table["cnr"].tolist() == [1.5, 2.5]


def test_a_site_is_judged_by_others_alone() -> None:
    random = np.random.default_rng(0)
    features, site = random.normal(size=(300, 4)), np.repeat(["A", "B", "C"], 100)
    target = features[:, 0] + 0.1 * random.normal(size=300)
    before = left_out(features, target, site)
    assert np.corrcoef(before, target)[0, 1] > 0.9
    target = np.where(site == "A", -target, target)
    assert np.array_equal(left_out(features, target, site)[site == "A"], before[site == "A"])


@pytest.mark.data
def test_anchors() -> None:
    folder = data_folder()
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "ratings.py", "--json", "--labels", folder / "labels", "--data", folder / "train"],
                          capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0.7 < found["anchors"]["MR-ART, people left out, all"]["srcc"] < 0.95
    # sites that were never seen: nobody should believe a figure near that of one scanner
    assert 0.3 < found["anchors"]["ABIDE, sites left out, all"]["srcc"] < 0.7
    assert set(SHARED) <= set(found["closeness"]) and found["closeness"]["heads"] > 10
