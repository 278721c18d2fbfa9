"""Salient slices as people see them: one window for the whole series, square pixels, letters for the directions (PS3.3 C.11.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qa_engine.assessment import SlicePicture
from qa_engine.geometry import edge_letters
from qa_engine.resample import square_pixels
from qa_engine.volume import Volume

WINDOWS = {("lung", ""): (-1350.0, 150.0), ("bone", ""): (-600.0, 1400.0), ("soft tissue", "head"): (0.0, 80.0),
           ("soft tissue", "chest"): (-200.0, 300.0)}
SOFT = (-160.0, 240.0)
LARGEST = 512
"""Pixels a side of a picture."""


def ct_window(purpose: str, region: str | None) -> tuple[float, float]:
    """Lower and upper end in HU, fixed per purpose and first region."""
    first = (region or "").split(" ")[0]
    return WINDOWS.get((purpose, "")) or WINDOWS.get((purpose, first)) or SOFT


def mr_window(shown: np.ndarray) -> tuple[float, float]:
    """From the first percentile of all shown slices (N,H,W) to the 97th of what is no background: fat near a coil may saturate, tissue shows."""
    coarse = shown[:, ::2, ::2]
    low, bright = (float(v) for v in np.quantile(coarse, (0.01, 0.98)))
    tissue = coarse[coarse > 0.1 * bright]
    high = float(np.quantile(tissue, 0.97)) if tissue.size else bright
    return (low, high) if high > low else (low, low + 1.0)


def pictures(volume: Volume, indices: Sequence[int], purpose: str, region: str | None) -> tuple[SlicePicture, ...]:
    """One picture per index, at most LARGEST pixels a side (every n-th pixel: averaging would hide the noise)."""
    low, high = ct_window(purpose, region) if volume.modality == "CT" else mr_window(volume.pixels[list(indices)])
    found = []
    for k in indices:
        image = square_pixels(volume.pixels[k], volume.spacing_mm)
        step = -(-max(image.shape) // LARGEST)
        fine = min(volume.spacing_mm) * step
        grey = np.clip((image[::step, ::step] - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)
        found.append(SlicePicture(grey, (fine, fine), edge_letters(volume.orientation)))
    return tuple(found)
