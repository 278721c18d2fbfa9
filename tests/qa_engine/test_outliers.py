"""Outlier slices: damage between the seven salient slices is found by its kind, clean stacks have hardly any, and none weighs beyond its share."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_engine.outliers import (
    MOST,
    Outlier,
    departures,
    find_outliers,
    limited_weights,
    outlier_findings,
    slice_measures,
)
from qa_engine.salience import hollow_slices, relevant_slices, salient_slices
from qa_engine.simulation.degradations import degrade
from qa_engine.simulation.dicom_series import simulate_arrays
from qa_engine.volume import FrameRef, Volume

SLICES, SIZE = 42, 160
SPACING = {"CT": 2.2, "MR": 1.6}


def volume(pixels: np.ndarray, modality: str) -> Volume:
    frames = tuple(FrameRef(Path("x"), "1.2", f"1.2.{k}", None, k + 1) for k in range(len(pixels)))
    return Volume(modality, np.ascontiguousarray(pixels, np.float32), "1", (SPACING[modality],) * 2, 5.0 * np.arange(len(pixels)), (0.0, 0.0, 1.0), None,
                  frames)


def outliers(v: Volume) -> list[Outlier]:
    relevant = relevant_slices(v)
    return find_outliers(v, relevant, salient_slices(v, relevant))


@pytest.fixture(scope="module")
def patients() -> dict[str, np.ndarray]:
    return {m: np.round(simulate_arrays(m.lower(), (1.0,), slices=SLICES, size=SIZE, seed=11)[0]).astype(np.float32) for m in SPACING}


def slab_of(v: Volume) -> list[int]:
    """Slices between the third and the fourth salient one."""
    third, fourth = salient_slices(v)[2:4]
    return list(range(third + 1, fourth))


def damaged(v: Volume, kind: str, amount: float, slab: list[int]) -> np.ndarray:
    image = torch.from_numpy(v.pixels[slab])
    return degrade(kind, image, torch.tensor([v.spacing_mm] * len(slab)), torch.full((len(slab),), amount), torch.Generator().manual_seed(4),
                   v.modality)[0].numpy()


@pytest.mark.parametrize("modality", SPACING)
def test_a_clean_stack_has_at_most_one(patients: dict[str, np.ndarray], modality: str) -> None:
    assert len(outliers(volume(patients[modality], modality))) <= 1


@pytest.mark.parametrize(("modality", "kind", "amount", "named"), [
    ("CT", "noise", 60.0, {"noise", "structure"}), ("CT", "streak", 25.0, {"structure", "noise"}), ("CT", "blur", 6.0, {"blur"}),
    ("MR", "noise", 0.12, {"noise", "structure"}), ("MR", "motion", 0.16, {"structure", "noise", "blur"}), ("MR", "blur", 4.0, {"blur"})])
def test_a_damaged_slab_between_salient_slices_is_found(patients: dict[str, np.ndarray], modality: str, kind: str, amount: float,
                                                        named: set[str]) -> None:
    v = volume(patients[modality].copy(), modality)
    slab = slab_of(v)
    v.pixels[slab] = damaged(v, kind, amount, slab)
    first = outliers(v)[0]
    assert first.index in slab and first.kind in named
    assert first.first >= slab[0] - 1 and first.last <= slab[-1] + 1 and first.share <= (len(slab) + 2) / SLICES


@pytest.mark.parametrize("modality", SPACING)
def test_damage_made_without_the_simulator_is_found(patients: dict[str, np.ndarray], modality: str) -> None:
    """Stripes, as of a spike in k-space or a failing detector."""
    v = volume(patients[modality].copy(), modality)
    slab = slab_of(v)
    height = 30.0 if modality == "CT" else 0.1 * float(np.quantile(v.pixels, 0.95))
    v.pixels[slab] += (height * np.sin(np.arange(SIZE) * 0.8)).astype(np.float32)
    assert outliers(v)[0].index in slab and outliers(v)[0].kind == "structure"


def test_a_salient_slice_is_never_an_outlier_and_three_are_the_most(patients: dict[str, np.ndarray]) -> None:
    v = volume(patients["CT"].copy(), "CT")
    salient = salient_slices(v)
    for k in salient:
        v.pixels[k] += np.random.default_rng(k).normal(0, 120, (SIZE, SIZE)).astype(np.float32)
    assert not {one.index for one in outliers(v)} & set(salient)
    for k in [(a + b) // 2 for a, b in pairwise(salient)]:
        v.pixels[k] += np.random.default_rng(k).normal(0, 240, (SIZE, SIZE)).astype(np.float32)
    assert len(outliers(v)) == MOST


def test_short_and_even_stacks_have_none() -> None:
    pixels = np.full((20, 64, 64), 40.0, np.float32)
    assert outliers(volume(pixels[:7], "CT")) == [] and outliers(volume(pixels, "CT")) == []


def test_a_trend_along_the_body_is_no_departure() -> None:
    trend = np.linspace(0, 3, 40)[:, None].repeat(6, 1)
    away, z = departures(trend)
    assert np.abs(away).max() < 1e-9 and np.abs(z).max() < 1e-6
    trend[3] += 1.0  # also near the end
    assert np.abs(departures(trend)[0]).argmax() // 6 == 3


def test_what_is_not_measured_is_no_outlier() -> None:
    measures = np.zeros((20, 6))
    measures[4] = np.nan
    assert np.isfinite(departures(measures)[1]).all() and not departures(measures)[0].any()
    measures[:15] = np.nan
    assert not departures(measures)[0].any()


def test_a_lost_image_inside_the_stack(patients: dict[str, np.ndarray]) -> None:
    v = volume(patients["CT"].copy(), "CT")
    v.pixels[20] = -1000.0
    assert hollow_slices(v, relevant_slices(v)) == [20]
    assert hollow_slices(volume(patients["CT"], "CT"), relevant_slices(volume(patients["CT"], "CT"))) == []


def test_an_outlier_weighs_no_more_than_its_share() -> None:
    even = limited_weights(np.full(8, 1 / 8), np.array([0.0, 0, 0, 0.05, 0, 0, 0, 0]))
    assert even[3] == pytest.approx(0.05) and even.sum() == pytest.approx(1) and even[0] == pytest.approx(0.95 / 7)
    keen = limited_weights(np.array([0.01] * 7 + [0.93]), np.array([0.0] * 7 + [0.1]))
    assert keen[7] == pytest.approx(0.1) and keen[:7] == pytest.approx([0.9 / 7] * 7)
    calm = limited_weights(np.array([0.14] * 7 + [0.02]), np.array([0.0] * 7 + [0.1]))
    assert 0 < calm[7] < 0.1 and calm.sum() == pytest.approx(1)
    plain = np.array([0.5, 0.3, 0.2])
    assert limited_weights(plain, np.zeros(3)) is plain


def test_only_what_scores_lower_than_its_neighbours_is_told() -> None:
    found = {5: Outlier(5, "noise", 4, 6, 0.1), 9: Outlier(9, "blur", 9, 9, 0.03), 12: Outlier(12, "structure", 12, 13, 0.05)}
    told = outlier_findings(found, {2: 80.0, 5: 30.0, 7: 60.0, 9: 58.0, 11: 70.0, 12: 20.0})
    assert [f.text for f in told] == [
        "Slices 13 to 14 differ from those around (more streaks or ghosts): slice 13 scores 20, the evenly spaced one beside it 70.",
        "Slices 5 to 7 differ from those around (noisier): slice 6 scores 30, the evenly spaced ones beside it 80 and 60."]
    assert {f.code for f in told} == {"outlier-slices"}


def test_three_hundred_slices_cost_little() -> None:
    """0.15 s of one core on a quiet machine, counted in processor time; others that share caches and memory may make it several times that."""
    pixels = np.random.default_rng(0).normal(0, 20, (60, 512, 512)).astype(np.float32)
    slice_measures(pixels, "CT")
    seconds = []
    for _ in range(3):
        began = time.process_time()
        slice_measures(pixels, "CT")
        seconds.append(time.process_time() - began)
    departing = np.random.default_rng(0).normal(size=(300, 6))
    began = time.process_time()
    departures(departing)
    assert 5 * min(seconds) + time.process_time() - began < 0.6
