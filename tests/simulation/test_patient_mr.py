"""The simulated head: the signal equation, tissues in their places, noise that is Rician."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from qa_engine.simulation import head, patient_mr
from qa_engine.simulation.dicom_series import simulate_arrays
from qa_engine.simulation.head import Tissue
from qa_engine.simulation.patient_mr import NOISE, TISSUES, scan, spin_echo


def test_the_signal_equation_of_the_spin_echo() -> None:
    density, t1, t2 = TISSUES[Tissue.WHITE]
    assert spin_echo(Tissue.WHITE, 1e9, 0.0) == pytest.approx(patient_mr.SCALE * density)
    assert spin_echo(Tissue.WHITE, t1, 0.0) == pytest.approx(patient_mr.SCALE * density * (1 - math.exp(-1)))
    assert spin_echo(Tissue.WHITE, 1e9, t2) == pytest.approx(patient_mr.SCALE * density * math.exp(-1))


def test_contrast_is_that_of_a_t1_weighted_image_and_turns_with_tr_and_te() -> None:
    order = (Tissue.FAT, Tissue.MARROW, Tissue.WHITE, Tissue.DEEP, Tissue.GREY, Tissue.CSF, Tissue.BONE, Tissue.AIR)
    signals = [spin_echo(tissue) for tissue in order]
    assert signals == sorted(signals, reverse=True) and signals[-1] == 0
    assert 1.1 < spin_echo(Tissue.WHITE) / spin_echo(Tissue.GREY) < 1.35
    assert spin_echo(Tissue.CSF, 4000, 100) > spin_echo(Tissue.GREY, 4000, 100) > spin_echo(Tissue.WHITE, 4000, 100)


@pytest.mark.parametrize("tissue, density, t1, t2", [
    (Tissue.WHITE, (0.6, 0.75), (500, 900), (60, 90)), (Tissue.GREY, (0.75, 0.9), (900, 1200), (85, 115)),
    (Tissue.CSF, (0.95, 1.0), (2500, 4500), (1000, 2500)), (Tissue.FAT, (0.85, 1.0), (200, 320), (50, 100)),
    (Tissue.MUSCLE, (0.7, 1.0), (800, 1100), (30, 50))])
def test_tissues_have_published_times(tissue: Tissue, density: tuple[float, float], t1: tuple[float, float], t2: tuple[float, float]) -> None:
    for value, (low, high) in zip(TISSUES[tissue], (density, t1, t2), strict=True):
        assert low <= value <= high
    assert set(TISSUES) == set(Tissue)


@pytest.mark.parametrize("dose", [1.0, 0.25])
def test_noise_in_air_is_rayleigh(dose: float) -> None:
    """Mean sigma sqrt(pi/2), standard deviation sigma sqrt(2 - pi/2), and it is white."""
    sigma = NOISE / dose
    air = scan(torch.zeros(4, 128, 128), dose, 1)
    assert float(air.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert float(air.std()) == pytest.approx(sigma * math.sqrt(2 - math.pi / 2), rel=0.02)
    centred = air - air.mean()
    for axis in (1, 2):
        assert abs(float((centred * centred.roll(1, axis)).mean() / centred.square().mean())) < 0.02


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 5.0])
def test_noise_biases_weak_signal_as_rice_says(ratio: float) -> None:
    """E[M^2] = S^2 + 2 sigma^2, and the mean is sigma sqrt(pi/2) L(-S^2 / 2 sigma^2), above the signal."""
    signal = ratio * NOISE
    found = scan(torch.full((6, 128, 128), signal), 1.0, 2)
    assert float(found.square().mean()) == pytest.approx(signal**2 + 2 * NOISE**2, rel=0.01)
    k = torch.tensor(ratio**2 / 4)  # the Laguerre polynomial of order 1/2 by Bessel functions
    laguerre = float((1 + 2 * k) * torch.special.i0e(k) + 2 * k * torch.special.i1e(k))
    assert float(found.mean()) == pytest.approx(NOISE * math.sqrt(math.pi / 2) * laguerre, rel=0.01)
    assert float(found.mean()) > signal


def test_strong_signal_has_gaussian_noise_that_goes_with_one_over_the_signal_share() -> None:
    signal = torch.full((4, 128, 128), 3000.0)
    for dose in (1.0, 0.5, 0.25):
        assert float(scan(signal, dose, 3).std()) == pytest.approx(NOISE / dose, rel=0.02)
        assert float(scan(signal, dose, 3).mean()) == pytest.approx(3000.0, rel=0.001)


def test_doses_share_one_anatomy() -> None:
    full, quarter = simulate_arrays("mr", [1.0, 0.25], slices=2, size=96)
    strong = full > 200
    difference = (quarter - full)[strong]
    assert abs(difference.mean()) < 2 and difference.std() == pytest.approx(math.hypot(NOISE, 4 * NOISE), rel=0.05)


def test_the_same_arguments_make_the_same_head_and_another_seed_another() -> None:
    one, again, other = (simulate_arrays("mr", [1.0], slices=1, size=64, seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(one, again) and abs(one - other).mean() > 20


@pytest.mark.parametrize("z, x, y, tissue", [
    (11, 33, -72, Tissue.VITREOUS), (11, -33, -72, Tissue.VITREOUS), (11, 38, -50, Tissue.FAT), (11, 0, -60, Tissue.AIR),
    (20, 0, 14, Tissue.WHITE), (8, 22, 46, Tissue.WHITE), (62, 10.5, 16, Tissue.DEEP), (62, -28, -3, Tissue.DEEP), (74, 13, 8, Tissue.CSF),
    (74, -13, 8, Tissue.CSF), (58, 0, 4, Tissue.CSF), (74, 0, -20, Tissue.WHITE), (90, 0.0, 20, Tissue.BONE), (74, 34, 0, Tissue.WHITE),
    (2, 40, 15, Tissue.BONE), (74, 110, 0, Tissue.AIR)], ids=[
    "left eye", "right eye", "orbital fat", "ethmoid cells", "pons", "cerebellar white matter", "thalamus", "putamen", "left ventricle",
    "right ventricle", "third ventricle", "corpus callosum", "falx", "white matter", "petrous bone", "air"])
def test_tissues_are_where_they_belong(z: float, x: float, y: float, tissue: Tissue) -> None:
    person = head.Person.make(256, 0)
    plane = head.head_slice(person, 256, z * person.scale)
    axis = ((torch.arange(256) + 0.5) / 256 - 0.5) * head.FIELD_MM / person.scale
    # the head leans a little: look within 4 mm
    near = plane[torch.hypot(axis[None, :] - x, axis[:, None] - y) < 4.0]
    assert int(tissue) in near.tolist()


def test_layers_from_the_skin_inwards() -> None:
    """Along a ray to the left at the level of the ventricles: air, skin, fat, bone, marrow, bone, fluid, cortex, white matter."""
    person = head.Person.make(960, 0)
    row = head.head_slice(person, 960, 74 * person.scale)[480, 480:].flip(0).tolist()
    layers = [row[0]]
    for value in row:
        if value != layers[-1]:
            layers.append(value)
    outer = [Tissue.AIR, Tissue.SKIN, Tissue.FAT, Tissue.BONE, Tissue.MARROW, Tissue.BONE, Tissue.CSF]
    assert layers[:7] == outer and Tissue.GREY in layers[7:10] and Tissue.WHITE in layers


def test_the_cortex_is_folded() -> None:
    """Grey and white matter in plausible shares, sulci that reach into the brain."""
    person = head.Person.make(384, 2)
    plane = head.head_slice(person, 384, 80 * person.scale)
    grey, white, fluid = (float((plane == t).sum()) for t in (Tissue.GREY, Tissue.WHITE, Tissue.CSF))
    assert 0.4 < grey / white < 1.6 and 0.05 < fluid / (grey + white) < 0.5
    row = plane[192].tolist()
    assert sum(a != b for a, b in itertools.pairwise(row)) > 20


def test_slices_change_and_neighbours_are_alike() -> None:
    person = head.Person.make(128, 1)
    at = [head.head_slice(person, 128, z) for z in (60.0, 61.0, 66.0, 100.0)]
    changes = [float((other != at[0]).float().mean()) for other in at[1:]]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_any_number_of_slices_covers_the_same_head() -> None:
    assert patient_mr.spacing_mm(20) == 6.0
    coarse, fine = patient_mr.anatomy(2, 64, 0), patient_mr.anatomy(6, 64, 0)
    assert torch.equal(coarse[0], fine[1]) and torch.equal(coarse[1], fine[4])
