"""MR wrap: the field of view is smaller than the object, whose ends fold in (k-space lines too far apart; Haacke 1999, chapter 12)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import rms, smooth, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import Lines, base, complex_object


def extent(image: Tensor, signal: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
    """Middle and length (B,1,1) in pixels of the object along the phase-encode axis: all lines of which 5 % exceed a fifth of `signal`."""
    inside = (smooth(image - base(image)) > 0.2 * signal[:, None, None]).float()
    found = []
    for axis in (2, 1):
        busy = inside.mean(axis) > 0.05
        place = torch.arange(busy.shape[1], device=image.device)[None].expand_as(busy)
        first = torch.where(busy, place, busy.shape[1]).amin(1)
        last = torch.where(busy, place, -1).amax(1)
        found.append([v.to(image.dtype)[:, None, None] for v in ((first + last) / 2, (last - first + 1).clamp(min=8))])
    down, across = found
    return torch.where(lines.rows, down[0], across[0]), torch.where(lines.rows, down[1], across[1])


def wrap(image: Tensor, spacing_mm: Tensor, share: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """(B,H,W) with a field of view of 1 - `share` (B,) of the object, which folds in from both ends; reports the error inside tissue and field.

    The matrix keeps its size: it is padded, as scanners pad a rectangular field of view.
    """
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    lines = Lines.drawn(image, generator)
    middle, length = extent(image, signal, lines)
    field = (length * (1 - share.to(image.dtype)[:, None, None])).round()
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
    inside = (place - middle).abs() <= field / 2
    result = torch.where(inside, total.abs() + base(image), image.amin((1, 2), keepdim=True))
    return finish(image, result, modality), replace(AddedDamage.none(signal), artefact=rms(result - image, mask & inside))
