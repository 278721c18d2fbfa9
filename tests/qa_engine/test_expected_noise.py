"""The noise that a CT protocol suggests: the laws that it follows, what it needs, and that its constants come from the data."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from qa_engine.assessment import Quantity
from qa_engine.body import find_body, water_equivalent_diameter
from qa_engine.expected_noise import TABLE, Exposure, constants, expected_noise, exposure_of, kernel_number
from tests.support.data import data_folder

SCAN = Exposure(150.0, 5.0, 120.0, 30.0, 280.0)
FULL = {"EffectiveTubeCurrentTimeProduct": Quantity(150, "mA.s"), "SliceThickness": Quantity(5, "mm"), "KVP": Quantity(120, "kV"),
        "ConvolutionKernel": Quantity("B30f", "")}


def test_quantum_noise_falls_with_the_root_of_what_is_counted() -> None:
    noise = expected_noise(SCAN, constants())
    assert 5 < noise < 15, "HU of a routine body scan"
    for field in ("mas", "thickness_mm"):
        assert expected_noise(replace(SCAN, **{field: 4 * getattr(SCAN, field)}), constants()) == pytest.approx(noise / 2)
    assert expected_noise(replace(SCAN, kv=100.0), constants()) > noise
    assert expected_noise(replace(SCAN, diameter_mm=340.0), constants()) > 1.2 * noise
    assert expected_noise(replace(SCAN, kernel=50.0), constants()) > 1.2 * noise


@pytest.mark.parametrize(("kernel", "number"), [
    ("B30f", 30), ("Br38f\\3", 38), ("59 .10.AB50", 50), ("Bv40d/3", 40), ("B60f", None), ("STANDARD", None), ("Hr40", None), ("31", None), ("", None)])
def test_number_of_a_kernel(kernel: str, number: float | None) -> None:
    assert kernel_number(kernel) == number


def test_nothing_is_expected_without_all_that_counts() -> None:
    assert exposure_of(FULL, 280.0) == SCAN
    assert exposure_of(FULL, None) is None
    for name in FULL:
        assert exposure_of({k: v for k, v in FULL.items() if k != name}, 280.0) is None
    product = {k: v for k, v in FULL.items() if k != "EffectiveTubeCurrentTimeProduct"} | {"TubeCurrentTimeProduct": Quantity(75, "mA.s")}
    assert exposure_of(product, 280.0) == replace(SCAN, mas=75.0)
    assert exposure_of(FULL | {"TubeCurrentTimeProduct": Quantity(75, "mA.s")}, 280.0) == SCAN, "mAs over pitch is what a slice gets"


def test_diameter_of_water_is_its_own_and_a_cut_off_body_has_none() -> None:
    y, x = np.mgrid[:256, :256] - 127.5
    disc = np.where(np.hypot(x, y) < 100, 0.0, -1000.0).astype(np.float32)
    body = find_body(disc, (1.5, 1.5), "CT")
    assert water_equivalent_diameter([body]) == pytest.approx(300, rel=0.02)
    lung = find_body(np.where(np.hypot(x, y) < 60, -750.0, disc).astype(np.float32), (1.5, 1.5), "CT")
    assert water_equivalent_diameter([lung]) == pytest.approx(300 * math.sqrt(1 - 0.36 * 0.75), rel=0.02)
    cut = find_body(np.where(np.hypot(x, y) < 140, 0.0, -1000.0).astype(np.float32), (1.5, 1.5), "CT")
    assert water_equivalent_diameter([cut]) is None and water_equivalent_diameter([body, cut, None]) is None
    assert water_equivalent_diameter([]) is None


@pytest.mark.data
def test_constants_come_from_the_real_scans() -> None:
    from qa_engine.training.fit_expected_noise import fit, rows

    kept = json.loads(TABLE.read_text(encoding="utf-8"))
    found = rows(data_folder())
    assert fit(found) == pytest.approx(kept, rel=0.02)
    assert kept["subjects"] >= 30 and kept["median_error"] < 0.25 and kept["factor"] < 1.6
    doubled = [(s, replace(scan, mas=scan.mas * np.exp(np.random.default_rng(k).normal(0, 1))), noise) for k, (s, scan, noise) in enumerate(found)]
    assert fit(doubled)["factor"] > 1.3 * kept["factor"], "the recorded dose is what explains the noise"


def test_a_simulated_dose_ladder_lies_within_the_factor() -> None:
    """Simulated patients were not fitted: their noise is measured like that of any scan."""
    import torch

    from qa_engine.measures import measure
    from qa_engine.measures.physics import WITNESS
    from qa_engine.simulation import patient_ct
    from qa_engine.simulation.dicom_series import CURRENT_MA, TIME_MS, simulate_arrays

    doses, size = (1.0, 0.4), 192
    pixel = patient_ct.FIELD_MM / size
    for dose, images in zip(doses, simulate_arrays("ct", doses, slices=3, size=size, views=360, seed=5), strict=True):
        slices = np.ascontiguousarray(images, np.float32)
        diameter = water_equivalent_diameter([find_body(image, (pixel, pixel), "CT") for image in slices])
        assert diameter is not None
        seen = float(measure(torch.from_numpy(slices), torch.full((3, 2), pixel), "CT").physics.noise.median()) * WITNESS
        suggested = expected_noise(Exposure(dose * CURRENT_MA * TIME_MS / 1000, patient_ct.THICKNESS_MM, 120.0, 50.0, diameter), constants())
        assert 1 / 1.6 < seen / suggested < 1.6, (dose, seen, suggested)
