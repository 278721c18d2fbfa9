"""Cells of the envelope, and content that is plainly no picture of a body."""

from __future__ import annotations

import numpy as np
import pytest

from qa_engine import envelope
from qa_engine.volume import Volume

TABLE = {"CT/trunk/3D": 50, "CT/head/3D": 4, "MR/head/3D": 5, "MR/spine/3D": 0}


@pytest.mark.parametrize(("modality", "regions", "dimension", "inside"), [
    ("CT", ("chest", "chest", "abdomen"), "3D", True), ("CT", ("chest",), "2D", False), ("CT", ("head",) * 7, "3D", False), ("MR", ("head",) * 7, "3D", True),
    ("MR", (None,) * 4 + ("head",) * 3, "3D", False), ("MR", (None,) * 3 + ("head",) * 4, "3D", True), ("CT", ("head", "head", "chest"), "3D", False),
    ("CT", ("chest", "head"), "3D", False), ("MR", ("abdomen",), "3D", False), ("CT", (), "3D", False), ("CT", (None,), "3D", False),
])
def test_most_of_a_series_lies_in_cells_of_five_subjects(modality: str, regions: tuple[str | None, ...], dimension: str, inside: bool) -> None:
    assert envelope.inside(modality, regions, dimension, TABLE) is inside


def content(pixels: np.ndarray, modality: str) -> str | None:
    stack = np.repeat(pixels[None].astype(np.float32), 3, axis=0)
    return envelope.content_problem(Volume(modality, stack, "1", (1.0, 1.0), None, None, None, ()), [0, 1, 2])


def body(modality: str) -> np.ndarray:
    y, x = np.mgrid[:128, :128] - 63.5
    inside = np.hypot(x, y * 1.3) < 45
    noise = np.random.default_rng(0).standard_normal((128, 128))
    tissue = 40 + 30 * np.sin(x / 8) + 10 * noise if modality == "CT" else 800 + 200 * np.sin(x / 8) + 30 * noise
    return np.where(inside, tissue, -1000 + 5 * noise if modality == "CT" else 10 + 5 * np.abs(noise))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_content(modality: str) -> None:
    picture = body(modality)
    noise = np.random.default_rng(1).standard_normal((128, 128)) * 300
    assert content(picture, modality) is None
    assert content(np.full((128, 128), 40.0), modality) == "blank"
    assert content(np.where(picture > (0 if modality == "CT" else 400), 0.0, -1000.0), modality) == "few grey values"
    assert content(picture.max() - picture, modality) == "bright outside the body"
    assert content(noise, modality) is not None


def test_a_simulated_patient_is_known_by_its_manufacturer_alone() -> None:
    assert envelope.simulated({"Manufacturer": "MedIQA Node simulation"}) and not envelope.simulated({"SeriesDescription": "MedIQA Node simulation"})
