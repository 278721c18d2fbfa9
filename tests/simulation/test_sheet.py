"""`mediqa train simulate --picture`: every kind is drawn, the wrong use of an option is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from node.cli.train import app
from qa_engine.simulation import sheet
from qa_engine.simulation.degradations import KINDS


def test_every_kind_has_three_severities_to_show() -> None:
    assert set(sheet.SHOWN) == set(KINDS)


def test_every_kind_stands_in_the_manual_with_its_unit() -> None:
    lines = (Path(__file__).resolve().parents[2] / "docs" / "degradations.md").read_text(encoding="utf-8").splitlines()
    for (modality, kind), unit in KINDS.items():
        assert any(line.startswith(f"| {modality} |") and f"`{kind}`" in line and unit in line for line in lines), (modality, kind)


@pytest.mark.parametrize(("modality", "kind"), [("CT", "ring"), ("MR", "ghost"), ("PT", "counts")])
def test_one_kind_is_drawn_stronger_from_left_to_right(tmp_path: Path, modality: str, kind: str) -> None:
    path = tmp_path / "sheet.png"
    found = CliRunner().invoke(app, ["simulate", "--picture", str(path), "--modality", modality, "--kind", kind])
    assert found.exit_code == 0, found.output
    grey = np.asarray(Image.open(path).convert("L")).astype(float)
    cell = (grey.shape[1] - sheet.GAP) // 4 - sheet.GAP
    top = sheet.GAP + sheet.HEAD
    cells = [grey[top:top + cell, sheet.GAP + k * (cell + sheet.GAP):][:, :cell] for k in range(4)]
    change = [np.abs(one - cells[0]).mean() for one in cells]
    assert cells[0].std() > 20 and change[0] == 0 and 0 < change[1] < change[2] < change[3]


@pytest.mark.parametrize(("words", "says"), [(["--modality", "CT", "--kind", "ghost"], "there are"), (["--modality", "both"], "one modality"),
                                             (["--modality", "CT", "--severity", "3"], "needs --kind")])
def test_wrong_use_is_named(tmp_path: Path, words: list[str], says: str) -> None:
    found = CliRunner().invoke(app, ["simulate", "--picture", str(tmp_path / "no.png"), *words])
    assert found.exit_code == 2 and says in found.output and not (tmp_path / "no.png").exists()


def test_caches_need_a_folder_and_data() -> None:
    found = CliRunner().invoke(app, ["simulate"])
    assert found.exit_code == 2 and "OUT" in found.output
