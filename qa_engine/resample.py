"""Resampling in physical space with SimpleITK: square pixels for pictures, an upright stack for a tilted gantry."""

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
    out = sitk.Resample(source, size, sitk.Transform(), sitk.sitkLinear, (0.0, 0.0), (fine, fine), (1.0, 0.0, 0.0, 1.0), float(image.min()))
    return sitk.GetArrayFromImage(out)


def upright(pixels: np.ndarray, spacing_mm: tuple[float, float], positions_mm: np.ndarray, origins: np.ndarray,
            orientation: tuple[float, ...], fill: float) -> np.ndarray:
    """(N,H,W) of a tilted gantry with slice origins (N,3): each slice moved within its plane so that the stack stands upright.

    The in-plane shift is the part of the way between origins that the slice normal does not explain.
    """
    import SimpleITK as sitk

    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    out = np.empty_like(pixels)
    for k in range(len(pixels)):
        away = origins[k] - origins[0]
        source = sitk.GetImageFromArray(np.ascontiguousarray(pixels[k], dtype=np.float32))
        source.SetSpacing((spacing_mm[1], spacing_mm[0]))
        shift = sitk.TranslationTransform(2, (-float(away @ row), -float(away @ column)))
        out[k] = sitk.GetArrayFromImage(sitk.Resample(source, source, shift, sitk.sitkLinear, fill))
    return out
