"""Which slices are looked at, and where missing ones lie among the seven regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qa_engine.salience import foreground_share, regions_hit, relevant_slices, salient_slices
from qa_engine.volume import FrameRef, Volume


def volume(shares: list[float], places: list[float] | None = None, modality: str = "CT") -> Volume:
    """Slices that show something on a share of their 64 x 64 pixels."""
    empty, full = (-1000.0, 40.0) if modality == "CT" else (2.0, 900.0)
    pixels = np.full((len(shares), 64, 64), empty, np.float32)
    for image, share in zip(pixels, shares, strict=True):
        image.ravel()[: round(share * 4096)] = full
    positions = np.array(places if places is not None else [5.0 * k for k in range(len(shares))])
    frames = tuple(FrameRef(Path("x"), "1.2", f"1.2.{k}", None, k + 1) for k in range(len(shares)))
    return Volume(modality, pixels, "1", (1.0, 1.0), positions, (0.0, 0.0, 1.0), None, frames)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_share_of_the_foreground(modality: str) -> None:
    assert foreground_share(volume([0.0, 0.25, 0.5], modality=modality)) == pytest.approx([0, 0.25, 0.5], abs=0.01)


def test_air_and_the_edge_of_the_body_are_irrelevant() -> None:
    shares = [0.0, 0.02, 0.1, 0.5, 0.6, 0.5, 0.15, 0.0]
    assert relevant_slices(volume(shares)).tolist() == [3, 4, 5]
    assert relevant_slices(volume([0.0, 0.0])).tolist() == [0, 1]  # rather all than none


def test_noisy_slices_do_not_make_the_others_irrelevant() -> None:
    """Noise lifts the air of an MR slice above what counts as air."""
    shares = [0.0, 0.1, *[0.25] * 10, *[1.0] * 2, *[0.25] * 7]
    assert relevant_slices(volume(shares, modality="MR")).tolist() == list(range(1, 21))


@pytest.mark.parametrize(("count", "chosen"), [
    (1, [0]), (5, [0, 1, 2, 3, 4]), (7, list(range(7))), (21, [1, 4, 7, 10, 13, 16, 19]), (70, [5, 15, 25, 34, 44, 54, 64])])
def test_the_middle_of_each_of_seven_regions(count: int, chosen: list[int]) -> None:
    found = salient_slices(volume([0.5] * count))
    assert len(found) == len(chosen) and all(abs(a - b) <= 1 for a, b in zip(found, chosen, strict=True))


def test_regions_are_equal_in_millimetres_not_in_slices() -> None:
    places = [float(k) for k in range(30)] + [30.0 + 10 * k for k in range(1, 28)]
    found = salient_slices(volume([0.5] * len(places), places))
    assert len(found) == 7 and np.diff([places[k] for k in found]) == pytest.approx([300 / 7] * 6, abs=11)


def test_seven_slices_whatever_their_spacing() -> None:
    places = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 100.0]
    found = salient_slices(volume([0.5] * 10, places))
    assert len(found) == 7 and found == sorted(set(found)) and 9 in found


def test_regions_hit_by_missing_slices() -> None:
    v = volume([0.5] * 71)
    assert [regions_hit(v, m) for m in ((), (10.0,), (10.0, 12.0), (10.0, 340.0), tuple(50.0 * k + 25 for k in range(7)))] == [0, 1, 1, 2, 7]
    assert regions_hit(volume([0.5]), (3.0,)) == 0
