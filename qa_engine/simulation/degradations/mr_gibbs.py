"""MR Gibbs ringing: k-space is cut off and zero-filled, edges overshoot by 9 % of their step and ring (Gibbs 1899; Czervionke 1988)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.acquired import acquired_limits, band
from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.blur import gaussian_transfer
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import base

SINC_FWHM = 1.207
"""Full width at half maximum of sin(pi x)/(pi x)."""


def gibbs(image: Tensor, spacing_mm: Tensor, kept: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Keep the share `kept` (B,) of the acquired k-space of (B,H,W) along both axes.

    Width: what the longer point spread adds in quadrature. Artefact: what is left against a Gaussian blur of that width, the ringing.
    """
    mask = tissue_mask(image, modality)
    limits = acquired_limits(image)
    share = kept.to(image.dtype).clamp(0.05, 1.0)
    field = torch.fft.fft2(image - base(image))
    result = torch.fft.ifft2(field * band(limits * share[:, None], (image.shape[1], image.shape[2])))
    result = result.abs() + base(image)
    pixel = (spacing_mm.to(image.device) / limits).prod(1).sqrt().to(image.dtype)
    width = SINC_FWHM * pixel * (1 / share.square() - 1).sqrt()
    smooth = torch.fft.irfft2(torch.fft.rfft2(image) * gaussian_transfer((image.shape[1], image.shape[2]), spacing_mm.to(image.device), width),
                              s=image.shape[1:])
    damage = AddedDamage.none(tissue_signal(image, modality, mask))
    return finish(image, result, modality), replace(damage, width_mm=width, artefact=rms(result - smooth, mask))
