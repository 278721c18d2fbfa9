"""Cells of the envelope, and content that is plainly no picture of a body."""

from __future__ import annotations

import numpy as np
import pytest

from qa_engine import envelope
from qa_engine.acquisition import read_acquisition
from qa_engine.assessment import Degradation, Quantity, SliceScore
from qa_engine.description import describe_assessed, poor_slices
from qa_engine.outcome import Severity
from qa_engine.volume import Volume
from tests.support.small_objects import CT, image

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


def test_sentences_tell_recorded_parameters_with_their_units() -> None:
    acquisition = dict(read_acquisition([(image(CT, XRayTubeCurrent=333, ExposureTime=500, ConvolutionKernel="B30f", SliceThickness=1.23456), None)]).values)
    text = describe_assessed("CT", "chest", (Degradation("noise", Severity.SEVERE, 0.9, 55.5, "[hnsf'U]"),), acquisition, "Reject", 3, 20)
    assert "Recorded: tube current-time product 166.5 mAs, slice thickness 1.235 mm, kernel B30f." in text
    text = describe_assessed("MR", "head", (Degradation("blur", Severity.MILD, 0.9, 2.0, "mm"),), {"EchoTrainLength": Quantity(15, "1")}, "Usable", 3, 20)
    assert "Recorded: echo train 15." in text


def slice_score(score: float, ordinal: int) -> SliceScore:
    return SliceScore("1.2", "1.3", None, None, score, 0.5, ordinal, 50.0, 50.0, 50.0)


@pytest.mark.parametrize(("scores", "total", "said"), [
    ([80.0, 20.0], 60.0, "1 of 2 scored slices lies below 35: look at slice 2."), ([30.0, 20.0, 90.0], 50.0, "2 of 3 scored slices lie below 35"),
    ([80.0, 40.0], 60.0, ""), ([30.0, 20.0], 25.0, "")])
def test_a_good_total_hides_no_poor_slice(scores: list[float], total: float, said: str) -> None:
    found = poor_slices([slice_score(s, k + 1) for k, s in enumerate(scores)], total, 35.0)
    assert found.startswith(said) and bool(found) == bool(said)
    mild = (Degradation("noise", Severity.MILD, 0.9, 20.0, "[hnsf'U]"),)
    text = describe_assessed("CT", "chest", mild, {}, "Good", 2, 20, found)
    assert (found in text and "No action" not in text) if found else text.endswith("No action needed.")
