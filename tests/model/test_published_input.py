"""What the published network is shown: the resize of skimage 0.26 (order 2, values from it), its rule for types, the released choice of slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qa_engine.network.published_input import SIDE, as_released, released_slices, resized, windowed


def picture() -> np.ndarray:
    y, x = np.mgrid[:512, :512]
    return np.round(1000 * np.sin(x / 3.7) * np.cos(y / 2.3) + 40 * ((x * 7919 + y * 104729) % 101)) - 1024 * (x > 400)


@pytest.mark.parametrize(("stored", "expected"), [  # mean, standard deviation, values at (0,0) (0,223) (100,57) (223,223)
    (picture().astype(np.int16), (0.0542561817, 0.0230317538, 0.0626041371, 0.0252294542, 0.0360090117, 0.0331909233)),
    ((picture()[:300, :256] + 3000).astype(np.uint16), (0.0762950751, 0.0170351948, 0.0486873179, 0.0740436587, 0.0919531504, 0.0981500135)),
    ((picture()[:200, :180] + 3000).astype(np.uint16), (0.076291623, 0.0170004569, 0.0464132804, 0.0716721293, 0.0766045633, 0.0992598733)),
    (picture()[:, :400].astype(np.float32), (1999.99493, 896.249654, 2073.72168, 4019.58838, 1579.63892, 1353.10254)),
])
def test_as_released(stored: np.ndarray, expected: tuple[float, ...]) -> None:
    """Shrunk with anti-aliasing, enlarged without; whole numbers over what their type holds, floats as they are."""
    image = as_released(stored)
    assert image.shape == (3, SIDE, SIDE) and image.dtype == torch.float32 and torch.equal(image[0], image[2])
    one = image[0].double()
    found = [float(v) for v in (one.mean(), one.std(correction=0), one[0, 0], one[0, 223], one[100, 57], one[223, 223])]
    assert found == pytest.approx(expected, rel=2e-6)


def test_shrinking_halves_white_noise() -> None:
    noise = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    assert float(resized(noise).std()) == pytest.approx(0.434, abs=0.01)


def test_slices_by_name() -> None:
    assert released_slices(300) == [0, 50, 100, 150, 200, 250, 299] and released_slices(7) == [0, 1, 2, 3, 4, 5, 6]
    assert released_slices(1) == [0] * 7 and released_slices(3) == [0, 1, 2, 0, 1, 2, 0]


def test_windowed_input_is_bounded_and_shows_each_window() -> None:
    ct = torch.full((300, 300), -1000.0)
    ct[100:, :] = 40.0
    seen = windowed(ct, "CT")
    assert seen.shape == (3, SIDE, SIDE) and float(seen.abs().max()) <= 1.0
    assert seen[:, 200, 100].tolist() == pytest.approx([0.0, 2 * 1390 / 1500 - 1, 2 * 1064 / 2048 - 1], abs=0.02)
    assert windowed(torch.rand(256, 256) * 900, "MR").abs().max() <= 1.0 and windowed(torch.zeros(64, 64), "MR").isfinite().all()
