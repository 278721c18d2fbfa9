"""Features of the baselines on inputs whose statistics are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.iqms import IQM_NAMES, edge_strength, iqms, otsu, tenengrad
from benchmarks.natural_scene import PATCH, asymmetric_fit, brisque, gaussian_fit, niqe_distance, niqe_patches, normalised_pixels
from qa_engine.measures.tissue import smooth


def test_fits_find_the_distribution_that_was_drawn() -> None:
    random = np.random.default_rng(0)
    drawn = torch.from_numpy(np.stack([random.normal(0, 3, 200_000), random.laplace(0, 1.5, 200_000)]))
    shape, variance = gaussian_fit(drawn).T
    assert shape.tolist() == pytest.approx([2.0, 1.0], abs=0.03) and variance.tolist() == pytest.approx([9.0, 4.5], rel=0.02)
    # half-Gaussians of scale 1 on the left, 3 on the right, in the share of their scales
    right = random.random(400_000) < 0.75
    values = np.where(right, 3 * np.abs(random.normal(size=400_000)), -np.abs(random.normal(size=400_000)))
    shape, mean, left_variance, right_variance = asymmetric_fit(torch.from_numpy(values)[None])[0].tolist()
    assert shape == pytest.approx(2.0, abs=0.05) and math.sqrt(left_variance) == pytest.approx(1.0, rel=0.02)
    # with moments of a Gaussian, (right - left) Gamma(2/a) / sqrt(Gamma(1/a) Gamma(3/a)) = (3 - 1) sqrt(2 / pi)
    assert math.sqrt(right_variance) == pytest.approx(3.0, rel=0.02) and mean == pytest.approx(2 * math.sqrt(2 / math.pi), rel=0.03)


def test_normalised_noise_is_gaussian_again() -> None:
    noise = 128 + 20 * torch.randn(256, 256, generator=torch.Generator().manual_seed(1))
    pixels, deviation = normalised_pixels(noise)
    assert float(deviation.mean()) == pytest.approx(20 * math.sqrt(1 - 1 / (4 * math.pi * (7 / 6) ** 2)), rel=0.03)
    features = brisque((noise / 255).clamp(0, 1))
    assert len(features) == 36 and float(features[1]) == pytest.approx(float(pixels.square().mean()), rel=0.02)
    means = features[3:18:4]
    assert (means.abs() < 0.12).all(), "products of white noise have no preferred sign"
    smoothed = brisque(smooth(noise[None], 5)[0] / 255)
    assert (smoothed[3:11:4] > features[3:11:4] + 0.1).all(), "those of neighbours in a smooth image are mostly positive"


def test_distance_grows_with_damage_of_natural_texture() -> None:
    generator = torch.Generator().manual_seed(2)

    def texture() -> torch.Tensor:
        return (0.5 + 1.5 * smooth(smooth(torch.randn(1, 256, 256, generator=generator), 5), 5)[0]).clamp(0, 1)

    sound = torch.cat([niqe_patches(texture()) for _ in range(6)]).double()
    mean, covariance = sound.mean(0), torch.cov(sound.T)
    one = texture()
    noise = torch.randn(one.shape, generator=generator)
    found = [niqe_distance(niqe_patches((one + amount * noise).clamp(0, 1)), mean, covariance) for amount in (0.0, 0.03, 0.1)]
    assert found == sorted(found) and found[2] > 2 * found[0]
    assert niqe_patches(one[:PATCH, :PATCH]).shape == (1, 36)


@pytest.mark.parametrize("wanted", [2.0, 3.0, 4.0])
def test_width_of_smoothed_noise(wanted: float) -> None:
    x = torch.arange(-12.0, 13.0)
    line = torch.exp(-x.square() * 4 * math.log(2) / wanted ** 2)[None, None]
    noise = torch.randn(1, 1, 300, 300, generator=torch.Generator().manual_seed(3))
    noise = torch.nn.functional.conv2d(torch.nn.functional.conv2d(noise, line[..., None]), line[:, :, None])[0, 0]
    unit = 1000 + 100 * noise / noise.std()
    found = dict(zip(IQM_NAMES, iqms(unit, torch.ones_like(unit, dtype=torch.bool), (1.0, 0.5), "MR"), strict=True))
    assert found["fwhm_y"] == pytest.approx(wanted, rel=0.04) and found["fwhm_x"] == pytest.approx(wanted / 2, rel=0.04)


def test_measures_of_a_made_head() -> None:
    y, x = np.mgrid[-128:128, -128:128]
    body, core = x ** 2 + y ** 2 < 100 ** 2, x ** 2 + y ** 2 < 60 ** 2
    random = np.random.default_rng(4)
    image = np.where(core, 1200.0, np.where(body, 800.0, 0.0)) + np.where(body, random.normal(0, 20, x.shape), np.abs(random.normal(0, 5, x.shape)))
    found = dict(zip(IQM_NAMES, iqms(torch.from_numpy(image.astype(np.float32)), torch.from_numpy(body), (1.0, 1.0), "MR"), strict=True))
    assert found["snr_low"] == pytest.approx(math.log(800 / 20), abs=0.05) and found["snr_high"] == pytest.approx(math.log(1200 / 20), abs=0.05)
    assert found["cjv"] == pytest.approx(math.log(40 / 400), abs=0.1) and found["wm2max"] == pytest.approx(math.log(1200 / 1262), abs=0.02)
    assert 0.4 < found["air_share"] < 0.55 and np.isfinite(list(found.values())).all()
    assert 860 < otsu(image[body]) < 1140


def test_gradients_of_a_ramp_and_a_step() -> None:
    ramp = torch.arange(50.0)[None].repeat(40, 1) * 3
    assert tenengrad(ramp) == pytest.approx((8 * 3) ** 2)
    step = torch.zeros(60, 60)
    step[:, 30:] = 100
    soft = smooth(smooth(step[None], 7), 7)[0]
    assert edge_strength(step) > 2 * edge_strength(soft) > 0 and edge_strength(torch.zeros(40, 40)) == 0.0
