"""Damage made without the simulator, by plain NumPy and Pillow, lowers the number of every real series that is scored."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image

from tests.model.test_reaction import REFERENCE_PIXEL_MM, reading, score_of, scored

pytestmark = [pytest.mark.data, pytest.mark.model]

Damage = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""One slice (H,W) float32, an amount, random numbers -> the slice as damaged."""


def contrast(image: np.ndarray) -> float:
    """What amounts are relative to: 1000 HU where there is air below zero (CT), else a bright quantile (MR)."""
    return 1000.0 if image.min() < -500 else float(np.quantile(image, 0.95))


def gaussian_noise(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """White noise, of a share of the contrast; magnitude images stay positive."""
    noisy = image + random.normal(0.0, amount * contrast(image), image.shape)
    return noisy if image.min() < 0 else np.abs(noisy)


def speckled(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """Pixels that jump up or down: a share `amount` of them, by a third of the contrast."""
    return image + contrast(image) / 3 * random.choice([-1.0, 1.0], image.shape) * (random.random(image.shape) < amount)


def box_blur(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """Mean over a square of `amount` pixels (odd) a side."""
    n = int(amount)
    padded = np.pad(image.astype(np.float64), n // 2, mode="edge")
    for axis in (0, 1):
        total = np.cumsum(np.insert(padded, 0, 0.0, axis), axis)
        size = total.shape[axis]
        padded = (np.take(total, range(n, size), axis) - np.take(total, range(size - n), axis)) / n
    return padded


def coarse(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """Shrunk by `amount` and enlarged again by Pillow."""
    height, width = image.shape
    small = Image.fromarray(image.astype(np.float32)).resize((round(width / amount), round(height / amount)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def jpeg(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """Through an 8-bit JPEG of that quality, over the usual window of CT or the range of MR."""
    low, high = (-200.0, 300.0) if image.min() < -500 else (float(image.min()), float(np.quantile(image, 0.998)))
    grey = np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    kept = io.BytesIO()
    Image.fromarray(grey).save(kept, format="JPEG", quality=int(amount))
    back = np.asarray(Image.open(kept)).astype(np.float64) / 255 * (high - low) + low
    return np.where((image > low) & (image < high), back, image)


def lost_lines(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """A share `amount` of the lines of its Fourier transform is zero, but for the middle."""
    k = np.fft.fft2(image)
    order = np.abs(np.fft.fftfreq(image.shape[0]))
    k[(random.random(len(order)) < amount) & (order > 0.03)] = 0.0
    return np.fft.ifft2(k).real if image.min() < 0 else np.abs(np.fft.ifft2(k))


def doubled(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """A second picture of a share `amount` lies eight pixels beside, as after a jerk."""
    return (1 - amount) * image + amount * np.roll(image, 8, 0)


def herringbone(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """A slanted wave of `amount` of the contrast all over the picture."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    waved = image + amount * contrast(image) * np.sin(2 * np.pi * (0.11 * x + 0.07 * y))
    return waved if image.min() < 0 else np.abs(waved)


def stripes(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """Each row is brighter or darker by its own amount."""
    return image + amount * contrast(image) * random.normal(0, 1, (image.shape[0], 1))


KINDS: dict[str, tuple[Damage, tuple[float, float], tuple[float, float]]] = {
    "gaussian_noise": (gaussian_noise, (0.025, 0.06), (0.06, 0.15)), "speckled": (speckled, (0.02, 0.1), (0.02, 0.1)),
    "box_blur": (box_blur, (3, 7), (5, 9)), "coarse": (coarse, (2.5, 5.0), (3.0, 6.0)), "jpeg": (jpeg, (15, 4), (15, 4)),
    "lost_lines": (lost_lines, (0.3, 0.6), (0.3, 0.6)), "doubled": (doubled, (0.2, 0.4), (0.2, 0.4)),
    "herringbone": (herringbone, (0.02, 0.05), (0.06, 0.15)), "stripes": (stripes, (0.02, 0.05), (0.06, 0.15)),
}
"""Kind -> what makes it, a clear and a strong amount for CT, and for MR."""


LOWEST = 10.0
"""Below this a score is at the end of the scale, where the order of the worst is not told."""


@cache
def clean_score(name: str) -> float:
    one = reading(name)
    assert one.volume is not None
    found = score_of(one, one.volume.pixels)
    assert found is not None
    return found


def scores_of(name: str, kind: str) -> list[float | None]:
    """For both amounts. What averages away is stated for pixels of REFERENCE_PIXEL_MM: finer ones show more of the same noise."""
    one = reading(name)
    volume = one.volume
    assert volume is not None
    make, ct, mr = KINDS[kind]
    finer = max(1.0, REFERENCE_PIXEL_MM / volume.spacing_mm[0]) if volume.modality == "MR" and kind in ("gaussian_noise", "speckled") else 1.0
    found = []
    for amount in ct if volume.modality == "CT" else mr:
        random = np.random.default_rng(11)
        damaged = np.stack([make(image, amount if finer == 1.0 else min(amount * finer, 0.4), random) for image in volume.pixels]).astype(np.float32)
        found.append(score_of(one, np.clip(damaged, volume.pixels.min(), None)))
    return found


MASKED = {("wrist-t1-ge-1p5t", "speckled"): 5.0}
"""What may rise at the clear amount, by so many points at most: fine grain of bone, read as a little artefact, goes under in faint noise."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", scored())
def test_damage_from_outside_never_raises_the_score(name: str, kind: str) -> None:
    clean, (clear, strong) = clean_score(name), scores_of(name, kind)
    assert strong is None or strong < 0.9 * clean or strong < LOWEST, (clean, clear, strong)
    if clear is not None and clean < clear <= clean + MASKED.get((name, kind), 0.0):
        pytest.xfail(f"{clean:.0f} became {clear:.0f}")
    assert clear is None or clear < clean or clean < LOWEST > clear, (clean, clear, strong)


@pytest.mark.parametrize("name", scored())
def test_most_of_it_gets_a_lower_number_not_none(name: str) -> None:
    told = [clear for kind in KINDS if (clear := scores_of(name, kind)[0]) is not None]
    assert len(told) >= len(KINDS) - 3 and float(np.median(told)) <= clean_score(name)
