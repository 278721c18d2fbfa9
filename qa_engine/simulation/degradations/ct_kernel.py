"""CT kernel change: the slice's spectrum times H_new(f) / H_old(f), radial (Ohkubo 2011; f50 of kernels in model terms: Sanders 2016).

H_old is the roll-off that the slice's own noise texture shows, H_new the same curve stretched by the ratio of the two f50.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.tissue import tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.own_noise import own_noise
from qa_engine.simulation.degradations.texture import FAMILY, amplitude, full_mean, own_member, spectrum_frequencies

FLOOR = 0.08
"""Transfer below which a frequency counts as lost: a sharper kernel lifts only what is there."""
FWHM_PEAK = 0.9394
"""Full width at half maximum of a Gaussian times its peak."""


def roll_off(relative: Tensor, family: Tensor) -> Tensor:
    """Transfer (B,...) of kernels (B,2: cut-off and exponent) at `relative` frequency (1 = Nyquist)."""
    shape = (-1, *[1] * (relative.dim() - 1))
    cutoff, exponent = family[:, 0].reshape(shape), family[:, 1].reshape(shape)
    return torch.cos(0.5 * torch.pi * (relative / cutoff).clamp(max=1.0)).clamp(min=0).pow(exponent)


def change(relative: Tensor, family: Tensor, ratio: Tensor) -> Tensor:
    """H_new / H_old at `relative` frequency for `ratio` (B,) of the f50, bounded where H_old is lost, 1 at frequency 0."""
    old = roll_off(relative, family)
    new = roll_off(relative / ratio.reshape(-1, *[1] * (relative.dim() - 1)), family)
    return new * old / (old.square() + FLOOR ** 2) * (1 + FLOOR ** 2)


def own_width(family: Tensor, nyquist: Tensor) -> Tensor:
    """Width (B,) in mm of the kernels' line spread: of the Gaussian with the same steepest edge. `nyquist` (B,) in 1/mm."""
    relative = torch.linspace(0, 2.0, 400, device=family.device)[None].expand(len(family), -1)
    return FWHM_PEAK / (2 * roll_off(relative, family).mean(1) * 2.0 * nyquist)


def kernel(image: Tensor, spacing_mm: Tensor, ratio: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """(B,H,W) HU as a kernel with `ratio` (B,) times the f50 would show it: below 1 softer, above 1 sharper.

    Softer reports the added width (the noise that it hides still counts). Sharper reports the noise that it adds to the slice's own; the
    width that it takes away is no damage and is not told: where width is learnt, measure it anew.
    """
    height, width = image.shape[1:]
    mask = tissue_mask(image, modality)
    ratio = ratio.to(image.dtype)
    member = own_member(image, mask)
    family = torch.tensor(FAMILY, device=image.device)[member]
    margin = min(16, height - 1, width - 1)
    padded = F.pad(image[:, None], (margin,) * 4, mode="reflect")[:, 0]
    shape = (padded.shape[1], padded.shape[2])
    fy, fx = spectrum_frequencies(shape, spacing_mm)
    nyquist = 0.5 / spacing_mm.float().amin(1)
    relative = torch.hypot(fy, fx) / nyquist[:, None, None]
    gain = change(relative, family, ratio)
    result = torch.fft.irfft2(torch.fft.rfft2(padded) * gain, s=shape)[:, margin:margin + height, margin:margin + width]
    power = amplitude(relative, family[:, 0, None, None], family[:, 1, None, None]).square()
    louder = full_mean(power * gain.square(), shape[1]) / full_mean(power, shape[1])
    own = own_noise(image, mask, spacing_mm, member)
    wider = own_width(family, nyquist) * (1 / ratio.square() - 1).clamp(min=0).sqrt()
    damage = AddedDamage.none(tissue_signal(image, modality, mask))
    return finish(image, result, modality), replace(damage, noise_sd=own * (louder - 1).clamp(min=0).sqrt(), width_mm=wider)
