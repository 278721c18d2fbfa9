"""MR wrap: the field of view is smaller than the object, whose ends fold in (k-space lines too far apart; Haacke 1999, chapter 12)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import rms, smooth, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import Lines, base, complex_object


def extent(image: Tensor, signal: Tensor, lines: Lines) -> Tensor:
    """Length (B,1,1) in pixels of the object along the phase-encode axis: from the first to the last line with 5 % of it above a fifth of `signal`."""
    inside = (smooth(image - base(image)) > 0.2 * signal[:, None, None]).float()
    found = []
    for axis in (2, 1):
        busy = inside.mean(axis) > 0.05
        place = torch.arange(busy.shape[1], device=image.device)[None].expand_as(busy)
        first = torch.where(busy, place, busy.shape[1]).amin(1)
        last = torch.where(busy, place, -1).amax(1)
        found.append((last - first + 1).clamp(min=8).to(image.dtype)[:, None, None])
    return torch.where(lines.rows, found[0], found[1])


def wrap(image: Tensor, spacing_mm: Tensor, share: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Copies of (B,H,W) one field of view up and down, the field being 1 - `share` (B,) of the object; reports the error inside tissue.

    The picture keeps its size: inside that field it is what a scanner would show, outside it goes on.
    """
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    lines = Lines.drawn(image, generator)
    field = (extent(image, signal, lines) * (1 - share.to(image.dtype)[:, None, None])).round()
    seen = complex_object(image, generator)
    shape = image.shape
    place = torch.where(lines.rows, torch.arange(shape[1], device=image.device)[None, :, None].expand(1, *shape[1:]),
                        torch.arange(shape[2], device=image.device)[None, None, :].expand(1, *shape[1:]))
    spectrum = torch.fft.fft2(seen)
    total = seen.clone()
    for way in (1, -1):
        moved = torch.fft.ifft2(spectrum * lines.shift(way * field))
        # a shift by k-space goes round the picture: what comes in from its other end is no fold
        come_round = place < field if way > 0 else place >= lines.count - field
        total = total + torch.where(come_round, torch.zeros_like(moved), moved)
    result = total.abs() + base(image)
    return finish(image, result, modality), replace(AddedDamage.none(signal), artefact=rms(result - image, mask))
