"""Projection and filtered back-projection against what is known on paper: discs, the mean, noise spectra of the kernels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from qa_engine.simulation.ct_projection import KERNELS, back_project, filter_projections, project, transfer


def disc(size: int, cx: float, cy: float, radius: float) -> Tensor:
    """A disc of 1 with a soft rim, centre in pixels from the middle."""
    axis = torch.arange(size) + 0.5 - size / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return (radius + 0.5 - torch.hypot(x - cx, y - cy)).clamp(0, 1)


def test_line_integrals_of_a_disc() -> None:
    """A chord of a circle: 2 sqrt(r^2 - d^2), at every angle, also of a disc away from the middle."""
    size, views, cx, cy, radius = 128, 90, 14.0, -9.0, 30.0
    found = project(disc(size, cx, cy, radius)[None], views)[0]
    line = torch.arange(size) + 0.5 - size / 2
    for k in range(views):
        theta = math.pi * k / views
        away = line - (cx * math.cos(theta) + cy * math.sin(theta))
        chord = 2 * (radius**2 - away.square()).clamp(min=0).sqrt()
        middle = away.abs() < radius - 3
        assert (found[k] - chord)[middle].abs().max() < 0.7
        assert found[k][away.abs() > radius + 2].abs().max() == 0
    assert found.sum(1) == pytest.approx(torch.full((views,), math.pi * radius**2), rel=0.002)  # each view sees all of it


def test_slices_are_independent_and_projection_is_linear() -> None:
    torch.manual_seed(1)
    a, b = torch.rand(2, 48, 48)
    both = project(torch.stack([a, b, 2 * a - b]), 40)
    assert torch.allclose(both[0], project(a[None], 40)[0], atol=1e-4)
    assert torch.allclose(both[2], 2 * both[0] - both[1], atol=1e-3)


def test_what_lies_outside_the_image_is_air() -> None:
    found = project(torch.ones(1, 32, 32), 8)[0]
    assert found[0] == pytest.approx(torch.full((32,), 32.0))
    assert found[2].max() == pytest.approx(32 * math.sqrt(2), rel=0.05)  # along the diagonal
    assert found[2][0] < 26


@pytest.mark.parametrize("kernel", KERNELS)
def test_reconstruction_gives_back_values_and_places(kernel: str) -> None:
    size = 128
    image = disc(size, 0, 0, 50) + 0.5 * disc(size, 20, -12, 8) - 0.8 * disc(size, -22, 10, 8)
    found = back_project(filter_projections(project(image[None], 240), kernel), size)[0]
    for cx, cy, value in ((0, 30, 1.0), (20, -12, 1.5), (-22, 10, 0.2), (0, -30, 1.0)):
        inside = disc(size, cx, cy, 4) > 0.9
        assert float(found[inside].mean()) == pytest.approx(value, abs=0.012), (kernel, cx, cy)
    assert float(found[(disc(size, 0, 0, 55) == 0) & (disc(size, 0, 0, 60) > 0)].abs().mean()) < 0.02


def test_a_coarser_image_shows_the_same() -> None:
    image = disc(128, 12, 6, 30)
    filtered = filter_projections(project(image[None], 180), "cosine", 0.5)
    assert float(back_project(filtered, 64)[0][disc(64, 6, 3, 10) > 0.9].mean()) == pytest.approx(1.0, abs=0.01)


def test_the_kernels_are_ordered_and_known() -> None:
    curves = [transfer(256, kernel) for kernel in ("hann", "cosine", "shepp-logan", "ramp")]
    for softer, sharper in itertools.pairwise(curves):
        assert bool((softer[1:] <= sharper[1:] + 1e-6).all()) and float((sharper - softer)[64:].min()) > -1e-6
    assert transfer(256, "ramp", 0.5)[65:].abs().max() == 0  # nothing beyond the cut-off
    with pytest.raises(ValueError, match="kernel is one of"):
        transfer(64, "bone")


def test_the_image_may_span_less_than_the_detector() -> None:
    """Air on both sides of the detector: the same image, and clean corners, which the inscribed circle does not reach."""
    image = disc(96, 10, 5, 30)
    rays = torch.nn.functional.pad(project(image[None], 180), (20, 20))
    found = back_project(filter_projections(rays, "cosine"), 96, span=96)[0]
    assert float(found[disc(96, 10, 5, 20) > 0.9].mean()) == pytest.approx(1.0, abs=0.01)
    assert float(found[:12, :12].abs().max()) < 0.02 and float(found[-12:, -12:].abs().max()) < 0.02


def radial_nps(noise: Tensor, pixel_mm: float) -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies (1/mm), radial mean of the noise power spectrum of (B,N,N), and how many frequencies each mean is over."""
    n = noise.shape[-1]
    power = torch.fft.fft2(noise - noise.mean((1, 2), keepdim=True)).abs().square().mean(0) * pixel_mm**2 / n**2
    f = torch.fft.fftfreq(n, pixel_mm)
    radius = torch.hypot(f[:, None], f[None, :])
    which = (radius * n * pixel_mm).round().long()
    inside = radius < 0.5 / pixel_mm
    count = torch.bincount(which[inside])
    return torch.arange(len(count)) / (n * pixel_mm), torch.bincount(which[inside], weights=power[inside]) / count, count


PUBLISHED = {"hann": (0.19, 0.29, 9.2), "cosine": (0.21, 0.34, 12.6), "shepp-logan": (0.37, 0.44, 19.5), "ramp": (0.41, 0.47, 24.2)}
"""Peak and mean of the noise power spectrum (1/mm) and noise (HU) of a water disc at 0.7 mm, 512 x 512, 720 views."""


def test_noise_spectra_of_the_kernels() -> None:
    """White noise of the detector through each kernel, at the pixel of the published table: peak, mean and amount of noise."""
    rays = torch.randn((4, 360, 256), generator=torch.Generator().manual_seed(3))
    images = back_project(torch.cat([filter_projections(rays, kernel) for kernel in PUBLISHED]), 256)[:, 64:192, 64:192]
    peaks, means, amounts = {}, {}, {}
    for kernel, noise in zip(PUBLISHED, images.split(4), strict=True):
        f, nps, count = radial_nps(noise, 0.7)
        calm = torch.nn.functional.avg_pool1d(nps[None, None], 7, 1, 3, count_include_pad=False)[0, 0]
        peaks[kernel], means[kernel] = float(f[calm.argmax()]), float((f * nps * count).sum() / (nps * count).sum())
        amounts[kernel] = float(noise.std())
        assert calm[0] < 0.25 * calm.max()  # the ramp leaves little at low frequencies
    order = list(PUBLISHED)
    assert order == sorted(order, key=peaks.get) == sorted(order, key=means.get) == sorted(order, key=amounts.get)
    for kernel, (peak, mean, amount) in PUBLISHED.items():
        assert peaks[kernel] == pytest.approx(peak, abs=0.09), kernel
        assert means[kernel] == pytest.approx(mean, abs=0.02), kernel
        assert amounts[kernel] / amounts["ramp"] == pytest.approx(amount / 24.2, rel=0.05), kernel
