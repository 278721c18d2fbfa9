"""Noise about a plane: white noise is read as it is, slopes are not read as noise, on any size of image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qa_engine.measures.noise import noise_mode, plane_std


def white(sd: float, shape: tuple[int, int] = (160, 150), seed: int = 0) -> torch.Tensor:
    return sd * torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [5, 7, 11, 15])
def test_it_is_the_residual_of_the_plane_of_least_squares(size: int) -> None:
    image = white(3.0, (24, 31))
    found, reach = plane_std(image, size)[0].numpy(), size // 2
    rows, columns = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    plane = np.stack([np.ones(size * size), rows.ravel(), columns.ravel()], 1)
    for r, c in ((reach, reach), (12, 14), (23 - reach, 30 - reach)):
        window = image[0, r - reach:r + reach + 1, c - reach:c + reach + 1].numpy().astype(float).ravel()
        residual = window - plane @ np.linalg.lstsq(plane, window, rcond=None)[0]
        assert found[r, c] == pytest.approx(np.sqrt((residual ** 2).sum() / (size * size - 3)), rel=1e-4)


@pytest.mark.parametrize("slope", [0.0, 3.0, 30.0])
def test_shading_is_no_noise(slope: float) -> None:
    ramp = slope * torch.arange(160.0)[None, :, None] + 2 * slope * torch.arange(150.0)[None, None]
    assert float(noise_mode(white(8.0) + ramp, torch.ones(1, 160, 150, dtype=torch.bool))) == pytest.approx(8.0, rel=0.06)


@pytest.mark.parametrize("side", [3, 4, 8, 14])
def test_windows_are_no_larger_than_the_image(side: int) -> None:
    found = plane_std(white(2.0, (side, 40)), 15)
    assert found.shape == (1, side, 40) and bool(torch.isfinite(found).all())
