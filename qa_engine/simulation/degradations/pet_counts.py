"""PET with fewer counts: counts are thinned binomially before a reconstruction-like smoothing (Schaefferkoetter 2019; noise law: Barrett 1994).

The number of counts is not in the picture: it is chosen so that the noise which it makes is the slice's own. What the thinned counts say beyond
all of them is reconstructed (filtered back-projection, Gaussian post filter) and follows the local activity, as iterative reconstruction does.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.noise import local_std
from qa_engine.measures.tissue import masked_quantile, rms, smooth, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.blur import FWHM_PER_SIGMA
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.ct_rays import rays
from qa_engine.simulation.degradations.damage import AddedDamage

VIEWS = 180
FILTER_MM = 6.0
"""Full width at half maximum of the post filter."""
OWN_NOISE = (0.03, 0.15)
"""Bounds of a slice's own noise over tissue signal: above 15 % in the liver a scan is not accepted (EANM), what is measured is anatomy."""
CALM = 0.2
"""Quantile of the local standard deviation that counts as noise."""
CALMEST, WILDEST = 0.2, 3.0
"""Bounds of the local noise over the mean one."""


def counts(image: Tensor, spacing_mm: Tensor, factor: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """(B,H,W) activity of which only one in `factor` (B,) of the counts was seen; attenuation is left out. Reports the noise that was added."""
    height, width = image.shape[1:]
    side = max(height, width) + max(height, width) % 2
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    fan = rays(side, VIEWS, 2 * side, str(image.device))
    top, left = (side - height) // 2, (side - width) // 2
    square = torch.nn.functional.pad(image.clamp(min=0), (left, side - width - left, top, side - height - top))
    expected = fan.samples(fan.project(square)).clamp(min=0)
    frequency = torch.fft.rfftfreq(2 * side, device=image.device)[None] / spacing_mm.to(image.device).amin(1, keepdim=True)
    filter_ = fan.ramp() * torch.exp(-2 * (torch.pi * FILTER_MM / FWHM_PER_SIGMA * frequency).square())
    energy = (filter_.square() * fan.doubled).sum(1) / (2 * side)

    def cropped(square_image: Tensor) -> Tensor:
        return square_image[:, top:top + height, left:left + width]

    spread = cropped(fan.back_project(fan.spectra(expected))) * (torch.pi / VIEWS)
    own = (masked_quantile(local_std(image, 7), mask, CALM) / signal).clamp(*OWN_NOISE) * signal
    scale = (masked_quantile(spread, mask, 0.5) * energy / own.square().clamp(min=1e-12))[:, None, None]  # counts per activity and pixel
    seen = torch.poisson(scale * expected, generator=generator)
    times = factor.to(image.dtype).clamp(min=1.0)[:, None, None]
    kept = torch.binomial(seen, (1 / times).expand_as(seen).contiguous(), generator=generator)
    noise = cropped(fan.back_project(fan.spectra((kept * times - seen) / scale) * filter_[:, None]))
    level = smooth(image.clamp(min=0), 3) / signal[:, None, None]
    amount = rms(noise, mask)
    noise = noise * level.clamp(CALMEST, WILDEST)
    noise = noise * (amount / rms(noise, mask).clamp(min=1e-12))[:, None, None]
    return finish(image, image + noise, modality), replace(AddedDamage.none(signal), noise_sd=amount)
