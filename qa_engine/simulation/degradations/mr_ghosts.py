"""MR ghosts: lines of k-space that differ in a rhythm (Buonocore 1997 for N/2; Wood and Henkelman 1985 for periodic motion).

A phase that alternates by +-p puts a ghost of tan(p) half a field of view away; a phase p cos(2 pi n / period) puts one of J1(p)/J0(p)
on either side at the field of view over the period.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import Lines, base, complex_object

LARGEST_PERIOD = 10.0
"""Lines of a period are drawn between 2.5 and this; a third of the ghosts is N/2."""


def modulation(number: Tensor, ratio: Tensor, period: Tensor, start: Tensor) -> Tensor:
    """Factor on the lines `number` whose ghosts are `ratio` of the object (all broadcast); period 2 is N/2. The object itself keeps its level."""
    half = period == 2.0
    swing = torch.where(half, torch.atan(ratio), 2 * ratio * (1 - 0.5 * ratio.square()))
    phase = swing * torch.cos(2 * torch.pi * number / period + torch.where(half, torch.zeros_like(start), start))
    level = torch.where(half, torch.cos(swing), torch.special.bessel_j0(swing))
    return torch.polar(1 / level.expand_as(phase), phase)


def ghosts(image: Tensor, spacing_mm: Tensor, ratio: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Ghosts of `ratio` (B,) of the signal of (B,H,W), N/2 or periodic, along rows or columns; reports the error that they make inside tissue."""
    mask = tissue_mask(image, modality)
    lines = Lines.drawn(image, generator)
    draw = torch.rand((3, len(image), 1, 1), generator=generator, device=image.device, dtype=image.dtype)
    period = torch.where(draw[0] < 1 / 3, 2.0, 2.5 + (LARGEST_PERIOD - 2.5) * draw[1])
    spectrum = torch.fft.fft2(complex_object(image, generator))
    factor = modulation(lines.number, ratio.to(image.dtype)[:, None, None], period, 2 * torch.pi * draw[2])
    result = torch.fft.ifft2(spectrum * factor).abs() + base(image)
    return finish(image, result, modality), replace(AddedDamage.none(tissue_signal(image, modality, mask)), artefact=rms(result - image, mask))
