"""Resampling in physical space with SimpleITK, for pictures only: the pixels that are scored are never resampled."""

from __future__ import annotations

import numpy as np


def square_pixels(image: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """(H,W) float32 with row and column spacing in mm -> the same field with square pixels of the smaller spacing."""
    row, column = spacing_mm
    if abs(row - column) < 0.01 * max(row, column):
        return image
    import SimpleITK as sitk

    fine = min(row, column)
    source = sitk.GetImageFromArray(np.ascontiguousarray(image, dtype=np.float32))
    source.SetSpacing((column, row))
    size = [max(1, min(4096, round(image.shape[1] * column / fine))), max(1, min(4096, round(image.shape[0] * row / fine)))]
    # nearest: interpolation would smooth the noise away
    out = sitk.Resample(source, size, sitk.Transform(), sitk.sitkNearestNeighbor, (0.0, 0.0), (fine, fine), (1.0, 0.0, 0.0, 1.0), float(image.min()))
    return sitk.GetArrayFromImage(out)
