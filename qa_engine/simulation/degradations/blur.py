"""Blur with a Gaussian point spread of a given full width at half maximum in mm, CT and MR (model of a softer kernel or coarser matrix)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.texture import spectrum_frequencies

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


def gaussian_transfer(shape: tuple[int, int], spacing_mm: Tensor, fwhm_mm: Tensor) -> Tensor:
    """Modulation transfer (B,H,W//2+1) of a Gaussian of `fwhm_mm` (B,) on the half spectrum of rfft2."""
    fy, fx = spectrum_frequencies(shape, spacing_mm)
    sigma = (fwhm_mm / FWHM_PER_SIGMA)[:, None, None]
    return torch.exp(-2.0 * (math.pi * sigma) ** 2 * (fy.square() + fx.square()))


def blur(image: Tensor, spacing_mm: Tensor, fwhm_mm: Tensor, generator: torch.Generator,
         modality: str) -> tuple[Tensor, AddedDamage]:
    """Blur (B,H,W) by `fwhm_mm` (B,); edges are mirrored so that nothing wraps."""
    height, width = image.shape[1:]
    margin = min(16, height - 1, width - 1)
    padded = torch.nn.functional.pad(image[:, None], (margin,) * 4, mode="reflect")[:, 0]
    transfer = gaussian_transfer(tuple(padded.shape[1:]), spacing_mm, fwhm_mm)
    soft = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=padded.shape[1:])
    soft = soft[:, margin:margin + height, margin:margin + width]
    return finish(image, soft, modality), replace(AddedDamage.none(tissue_signal(image, modality)), width_mm=fwhm_mm.to(image.dtype))
