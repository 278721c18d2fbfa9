"""A round bottle that the coil shades is a test object; a round cross-section of a body is not."""

from __future__ import annotations

import numpy as np
import pytest

from qa_engine.phantom import is_phantom


def disc(shading: float, texture: float) -> np.ndarray:
    """(128,128) at 2 mm: radius 65 mm, signal 1000 in the middle rising by `shading` to the edge, tissue texture of that share."""
    y, x = np.mgrid[:128, :128] - 63.5
    radius = np.hypot(x, y) / 32.5
    rng = np.random.default_rng(7)
    coarse = np.kron(rng.standard_normal((32, 32)), np.ones((4, 4)))
    inside = 1000 * (1 + shading * radius ** 2) * (1 + texture * coarse)
    return np.where(radius <= 1, inside, 0).astype(np.float32) + 5 * rng.standard_normal((128, 128)).astype(np.float32)


@pytest.mark.parametrize(("shading", "texture", "phantom"), [(0.0, 0.0, True), (0.8, 0.0, True), (1.7, 0.0, True), (0.8, 0.2, False), (0.0, 0.2, False)])
def test_round_and_smooth(shading: float, texture: float, phantom: bool) -> None:
    assert is_phantom([disc(shading, texture)], (2.0, 2.0), "MR") is phantom
