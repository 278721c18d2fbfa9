"""HaarPSI and VIF give the published check values; both fall with damage of one slice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qa_engine.measures.full_reference import haarpsi, vif, windowed

W = 2 * math.pi / 256


def pattern() -> np.ndarray:
    """In double precision: the sign of a sine at its zeros is a matter of the last bit."""
    y, x = np.mgrid[:256, :256].astype(float)
    a = 0.5 + 0.3 * np.sin(3 * W * x) * np.cos(5 * W * y) + 0.15 * np.sign(np.sin(8 * W * x) * np.sin(8 * W * y))
    return a.clip(0, 1)


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float32))[None]


def second(name: str) -> Tensor:
    a, (y, x) = pattern(), np.mgrid[:256, :256].astype(float)
    return tensor({"wave": (a + 0.05 * np.cos(W * (40 * x + 23 * y))).clip(0, 1), "contrast": 0.9 * a + 0.02, "shift": np.roll(a, 1, 1)}[name])


@pytest.mark.parametrize(("name", "medical", "natural", "fidelity"), [
    ("wave", 0.65495, 0.77605, 0.53611), ("contrast", 0.99009, 0.99093, 0.96633), ("shift", 0.74787, 0.78576, 0.30646)])
def test_check_values(name: str, medical: float, natural: float, fidelity: float) -> None:
    a, b = tensor(pattern()), second(name)
    assert float(haarpsi(b, a)) == pytest.approx(medical, abs=1e-5)
    assert float(haarpsi(a, b)) == pytest.approx(medical, abs=1e-5), "symmetric"
    assert float(haarpsi(b, a, 30.0, 4.2)) == pytest.approx(natural, abs=1e-5)
    assert float(vif(b, a)) == pytest.approx(fidelity, abs=1e-5)


@pytest.mark.parametrize(("name", "fidelity"), [("wave", 0.53064), ("contrast", 1.03447), ("shift", 0.30651)])
def test_fidelity_is_not_symmetric(name: str, fidelity: float) -> None:
    # the value for contrast was computed in single precision, which costs four in the fourth digit
    assert float(vif(tensor(pattern()), second(name))) == pytest.approx(fidelity, abs=5e-4)


def test_the_same_slice_is_like_itself() -> None:
    a = tensor(pattern())
    flat = torch.zeros(1, 64, 64)
    assert float(haarpsi(a, a)) == pytest.approx(1.0, abs=1e-4) and float(vif(a, a)) == pytest.approx(1.0, abs=1e-4)
    assert float(haarpsi(flat, flat)) == pytest.approx(1.0, abs=1e-4) and float(vif(flat, flat)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_more_noise_is_less_like(modality: str) -> None:
    clean = (tensor(pattern()) - 0.5) * 400 if modality == "CT" else tensor(pattern()) * 900
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    found = []
    for amount in (5.0, 15.0, 45.0):
        image, reference = windowed(clean + amount * noise, clean, modality)
        assert float(image.min()) >= 0 and float(image.max()) <= 1
        found.append((float(haarpsi(image, reference)), float(vif(image, reference))))
    assert found == sorted(found, reverse=True) and found[0][1] > 2 * found[2][1]
