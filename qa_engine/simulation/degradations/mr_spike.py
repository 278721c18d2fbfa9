"""MR spikes: one to three samples of k-space are far too large, which lays stripes over the whole picture (Foo 1994; TorchIO RandomSpike)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import base, complex_object

MOST = 3
NEAREST, FARTHEST = 0.03, 0.35
"""Range of the distance from the centre of k-space, cycles per pixel."""


def spike(image: Tensor, spacing_mm: Tensor, height: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Add to k-space samples of (B,H,W) `height` (B,) times the largest magnitude, shared by one to three spikes; reports the error inside tissue."""
    batch, rows, columns = image.shape
    mask = tissue_mask(image, modality)
    seen = complex_object(image, generator)
    strength = height.to(image.dtype) * torch.fft.fft2(seen).abs().amax((1, 2)) / (rows * columns)
    draw = torch.rand((4, MOST, batch, 1, 1), generator=generator, device=image.device, dtype=image.dtype)
    count = 1 + (draw[0, :1] * MOST).long()
    present = (torch.arange(MOST, device=image.device)[:, None, None, None] < count).to(image.dtype)
    radius = NEAREST * (FARTHEST / NEAREST) ** draw[1]
    angle, turn = torch.pi * draw[2], 2 * torch.pi * draw[3]
    down = (radius * torch.sin(angle) * rows).round() / rows
    across = (radius * torch.cos(angle) * columns).round() / columns
    y = torch.arange(rows, device=image.device)[None, :, None]
    x = torch.arange(columns, device=image.device)[None, None, :]
    for k in range(MOST):
        share = (strength[:, None, None] * present[k] / count[0]).expand(image.shape)
        seen = seen + torch.polar(share.contiguous(), 2 * torch.pi * (down[k] * y + across[k] * x) + turn[k])
    result = seen.abs() + base(image)
    return finish(image, result, modality), replace(AddedDamage.none(tissue_signal(image, modality, mask)), artefact=rms(result - image, mask))
