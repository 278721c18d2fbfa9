"""Damage that neither the ladder nor the simulator makes: plain numpy and Pillow, each in two steps, the second one worse.

A score that only knows its simulator's fingerprints does not fall here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image


def _span(image: np.ndarray, modality: str) -> tuple[float, float]:
    """Level of the dark and range of the values that matter: soft-tissue to bone window, or up to the 99.5 % quantile (MR)."""
    return (-1000.0, 2000.0) if modality == "CT" else (0.0, max(1e-6, float(np.quantile(image, 0.995))))


def _coarser(image: np.ndarray, factor: int) -> np.ndarray:
    """Every `factor` x `factor` block averaged, back by linear interpolation (a larger reconstruction pixel)."""
    height, width = image.shape
    small = Image.fromarray(image).resize((max(8, width // factor), max(8, height // factor)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _jpeg(image: np.ndarray, quality: int, low: float, span: float) -> np.ndarray:
    eight = ((image - low) / span * 255).clip(0, 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(eight).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(file.getvalue())), np.float32) / 255 * span + low


def _ghost(image: np.ndarray, share: float, low: float) -> np.ndarray:
    """A displaced faint copy along the columns, half the field away (as of a second echo or a pulsating vessel)."""
    return image + share * (np.roll(image, image.shape[0] // 2, 0) - low)


def foreign_versions(image: np.ndarray, modality: str) -> Iterator[tuple[str, int, np.ndarray]]:
    """(kind, step, image (H,W) float32): the slice as it is ("", 0), then each kind at steps 1 and 2."""
    low, span = _span(image, modality)
    random = np.random.default_rng(image.size)
    white = random.normal(0, 1, image.shape).astype(np.float32)
    lines = np.sin(np.arange(image.shape[1]) * 2 * np.pi / 7.3).astype(np.float32)[None]
    amount = {"CT": (25.0, 80.0), "MR": (0.05 * span, 0.15 * span)}[modality]
    made = {
        "white noise": [image + a * white for a in amount],
        "larger pixels": [_coarser(image, f) for f in (2, 4)],
        "stripes": [image + a * lines for a in amount],
        "ghost": [_ghost(image, s, low) for s in (0.06, 0.2)],
        "jpeg": [_jpeg(image, quality, low, span) for quality in (25, 5)],
    }
    yield "", 0, _stored(image, modality)
    for kind, images in made.items():
        for step, pixels in enumerate(images, 1):
            yield kind, step, _stored(pixels, modality)


def _stored(image: np.ndarray, modality: str) -> np.ndarray:
    return (np.round(image) if modality == "CT" else np.maximum(image, 0)).astype(np.float32)
