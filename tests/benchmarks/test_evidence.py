"""Which slices are neighbours, where noise can be read, and that a mean of neighbours is found calmer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.evidence import neighbours, soft_tissue
from qa_engine.training.dataset import TrainingSeries, simulated_series


def series(z_mm: tuple[float, ...], shapes: tuple[int, ...] | None = None) -> TrainingSeries:
    """A CT series with slices at these places."""
    (one,) = simulated_series("CT", 1, doses=(1.0,))
    sides = shapes or (32,) * len(z_mm)
    return replace(one, pixels=[np.zeros((n, n), np.float32) for n in sides], z_mm=z_mm)


@pytest.mark.parametrize(("z_mm", "runs"), [
    ((0.0, 1.0, 2.0, 40.0, 80.0), [[0, 1, 2]]), ((80.0, 40.0, 37.0, 34.0, 0.0), [[1, 2, 3]]), ((0.0, 10.0, 20.0), []), ((0.0, 0.0, 0.0), []), ((5.0,), []),
    ((0.0, 2.5, 50.0, 52.5, 55.0), [[0, 1], [2, 3, 4]])])
def test_neighbours_follow_at_the_smallest_distance(z_mm: tuple[float, ...], runs: list[list[int]]) -> None:
    assert neighbours(series(z_mm)) == runs


def test_neighbours_have_one_matrix() -> None:
    assert neighbours(series((0.0, 1.0, 2.0), (32, 32, 48))) == [[0, 1]]


def test_bone_alone_is_no_place_to_read_noise() -> None:
    rows, columns = np.mgrid[-64:64, -64:64]
    radius = np.hypot(rows, columns)
    head = np.where(radius < 50, 40.0, -1000.0).astype(np.float32)
    skull = np.where((radius < 50) & (radius > 40), 900.0, -1000.0).astype(np.float32)
    assert soft_tissue(head, "CT") and not soft_tissue(skull, "CT")
