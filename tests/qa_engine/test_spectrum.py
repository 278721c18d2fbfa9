"""Waves over a slice: single points of k-space are told from noise, and their amount in the units of the slice."""

from __future__ import annotations

import math

import pytest
import torch

from qa_engine.measures.spectrum import SPECTRUM_NAMES, spectrum_measures

MAX, WAVE = SPECTRUM_NAMES.index("point_max"), SPECTRUM_NAMES.index("point_wave")


def measured(image: torch.Tensor) -> torch.Tensor:
    return spectrum_measures(image, torch.ones_like(image, dtype=torch.bool))


def noise(size: int, sd: float) -> torch.Tensor:
    return sd * torch.randn((4, size, size), generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("size", [96, 256, 512])
def test_white_noise_has_no_wave(size: int) -> None:
    found = measured(noise(size, 20.0))
    assert float(found[:, MAX].max()) < math.log(20.0) and found[:, WAVE].tolist() == [0.0] * 4


@pytest.mark.parametrize("amplitude", [20.0, 50.0, 150.0])
@pytest.mark.parametrize(("down", "across"), [(0.07, 0.11), (0.0, 0.25), (0.3, 0.013)])
def test_a_wave_is_measured_by_its_root_mean_square(amplitude: float, down: float, across: float) -> None:
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    found = measured(noise(256, 20.0) + amplitude * torch.sin(2 * math.pi * (down * y + across * x)))
    assert found[:, WAVE].expm1().tolist() == pytest.approx([amplitude / math.sqrt(2)] * 4, rel=0.03)
    assert float(found[:, MAX].min()) > math.log(100.0)


def test_an_edge_is_no_wave() -> None:
    image = torch.zeros((1, 256, 256))
    image[:, 60:200, 80:180] = 1000.0
    assert float(measured(image + noise(256, 10.0)[:1])[0, WAVE].expm1()) < 15.0
