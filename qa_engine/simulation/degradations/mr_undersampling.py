"""MR undersampling: lines of k-space left out and filled with zeros, the centre kept (Lustig 2007; fastMRI masks, Zbontar 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import add_scaled
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import Lines, base, complex_object

CENTRE = 0.08
"""Share of the lines around the centre that are always kept."""
FEWEST = 0.15
TRIES = 6


def kept_lines(lines: Lines, share: Tensor, random: Tensor, regular: Tensor, start: Tensor) -> Tensor:
    """Mask (B,H,W): `share` (B,1,1) of the lines outside the centre, the smallest of `random` (B,H,W) or, where `regular`, at equal steps from
    `start` (both (B,1,1))."""
    even = torch.remainder(lines.number * share + start, 1.0) < share
    drawn = random < share
    return torch.where(regular, even, drawn) | (lines.number.abs() < CENTRE / 2 * lines.count)


def undersampling(image: Tensor, spacing_mm: Tensor, relative: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Leave out so many lines, at random or at equal steps, that the error inside the tissue of (B,H,W) is `relative` (B,) of its signal."""
    batch, height, width = image.shape
    mask = tissue_mask(image, modality)
    wanted = relative.to(image.dtype) * tissue_signal(image, modality, mask)
    lines = Lines.drawn(image, generator)
    start = torch.rand((batch, 1, 1), generator=generator, device=image.device)
    regular = torch.rand((batch, 1, 1), generator=generator, device=image.device) < 0.4
    random = torch.where(lines.rows, torch.rand((batch, height, 1), generator=generator, device=image.device),
                         torch.rand((batch, 1, width), generator=generator, device=image.device))
    spectrum = torch.fft.fft2(complex_object(image, generator))
    low, high = torch.full_like(wanted, FEWEST), torch.ones_like(wanted)
    difference = torch.zeros_like(image)
    for _ in range(TRIES):
        share = 0.5 * (low + high)
        difference = torch.fft.ifft2(spectrum * kept_lines(lines, share[:, None, None], random, regular, start)).abs() + base(image) - image
        too_much = rms(difference, mask) > wanted
        low, high = torch.where(too_much, share, low), torch.where(too_much, high, share)
    return add_scaled(image, difference, wanted, mask, modality)
