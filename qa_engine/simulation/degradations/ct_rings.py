"""CT rings: gain errors of detector channels that stay the same in all views (Sijbers and Postnov 2004; Kak and Slaney 1988, 3.3).

A projection error e(s) common to all views reconstructs to a function of the distance from the rotation centre alone, the mean over the
angle t of the filtered error at r cos(t): one profile a slice instead of a sinogram, and exact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qa_engine.measures.tissue import tissue_mask
from qa_engine.simulation.ct_projection import transfer
from qa_engine.simulation.degradations.chain import add_scaled
from qa_engine.simulation.degradations.damage import AddedDamage

CHANNEL_MM = 0.6
"""Width of a detector channel at the rotation centre."""
FAULTY, REST = (0.01, 0.06), 0.1
"""Range of the share of faulty channels; gain error of all others relative to theirs."""
ANGLES = 1024
FINER = 2
"""Samples of the radial profile a pixel."""


def radial_profile(gain: Tensor, aperture: Tensor, reach: int) -> Tensor:
    """(B, reach * FINER) image over radius of errors (B,L) that channels `aperture` (B,) pixels wide make in all views; index 0 is the centre."""
    length = gain.shape[1]
    opening = torch.sinc(torch.fft.rfftfreq(length, device=gain.device)[None] * aperture[:, None])
    filtered = torch.fft.irfft(torch.fft.rfft(gain) * transfer(length, "hann").to(gain.device) * opening, n=length)
    symmetric = 0.5 * (filtered + torch.roll(filtered.flip(1), 1, 1))  # a full turn sees each ray from both sides
    radius = torch.arange(reach * FINER, device=gain.device, dtype=torch.float32) / FINER
    angle = (torch.arange(ANGLES, device=gain.device, dtype=torch.float32) + 0.5) * (math.pi / 2 / ANGLES)
    place = radius[:, None] * torch.cos(angle)[None]
    low = place.long()
    return math.pi * (symmetric[:, low] * (1 - (place - low)) + symmetric[:, low + 1] * (place - low)).mean(2)


def rings(image: Tensor, spacing_mm: Tensor, rms_hu: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Add the rings of a few badly calibrated channels, scaled to `rms_hu` (B,) inside tissue of (B,H,W) HU; centred within 5 mm of the middle."""
    batch, height, width = image.shape
    device = image.device
    length = 2 ** math.ceil(math.log2(3 * max(height, width)))
    share = FAULTY[0] + (FAULTY[1] - FAULTY[0]) * torch.rand((batch, 1), generator=generator, device=device)
    faulty = torch.rand((batch, length), generator=generator, device=device) < share
    gain = torch.randn((batch, length), generator=generator, device=device) * torch.where(faulty, 1.0, REST)
    reach = math.ceil(math.hypot(height, width) * 0.5 * 1.1) + 2
    profile = radial_profile(gain, CHANNEL_MM / spacing_mm[:, 1].to(device), reach)
    offset = 5.0 * (2 * torch.rand((batch, 2), generator=generator, device=device) - 1) / spacing_mm.to(device)
    y = torch.arange(height, device=device)[None, :, None] - (height - 1) / 2 - offset[:, 0, None, None]
    x = torch.arange(width, device=device)[None, None, :] - (width - 1) / 2 - offset[:, 1, None, None]
    at = (torch.hypot(y, x) * FINER).clamp(max=reach * FINER - 2)
    below = at.long()
    share_above = at - below
    flat = below.flatten(1)
    difference = (profile.gather(1, flat) * (1 - share_above.flatten(1)) + profile.gather(1, flat + 1) * share_above.flatten(1)).reshape(image.shape)
    return add_scaled(image, difference, rms_hu, tissue_mask(image, modality), modality)
