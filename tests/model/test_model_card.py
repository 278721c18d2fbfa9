"""docs/model-card.md says what the card beside the weights says."""

from __future__ import annotations

import json
from pathlib import Path

from qa_engine import envelope
from qa_engine.measures import MEASURE_NAMES
from qa_engine.model import WEIGHTS, load_model
from qa_engine.policy import THRESHOLDS
from qa_engine.training.model_card import cells, figures

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "model-card.md").read_text(encoding="utf-8")
CARD = json.loads((WEIGHTS / "mediqa-compact.json").read_text(encoding="utf-8"))


def test_figures_and_cells_stand_in_the_page() -> None:
    assert figures(CARD) in PAGE
    assert cells(envelope.subjects()) in PAGE
    assert f"{len(MEASURE_NAMES)} classical measures" in PAGE and f"version {CARD['version']}" in PAGE


def test_thresholds_stand_in_the_page() -> None:
    for modality, (reject_below, good_from) in THRESHOLDS.items():
        assert f"{modality} {reject_below:g} and {good_from:g}" in PAGE


def test_every_calibrated_modality_has_subjects_enough() -> None:
    for row in CARD["calibration"].values():
        assert row["subjects"] >= 9 and 0 < row["interval"]["quantile"] < 50 and row["interval_left_out"]["median_width"] <= 40


def test_the_page_names_the_file() -> None:
    assert load_model().identity.sha256 in PAGE
