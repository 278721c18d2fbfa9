"""MR bias field: a smooth gain over the picture, the exponential of a polynomial of third order (Sled 1998; Van Leemput 1999).

An axis of its own outside the score: a bias is invisible to noise, width and artefact.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import masked_quantile, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import base

ORDER = 3


def bias(image: Tensor, spacing_mm: Tensor, ratio: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Multiply (B,H,W) by a field whose largest value is `ratio` (B,) times the smallest inside tissue; the median tissue keeps its level."""
    batch, height, width = image.shape
    mask = tissue_mask(image, modality)
    y = torch.linspace(-1, 1, height, device=image.device)[None, :, None]
    x = torch.linspace(-1, 1, width, device=image.device)[None, None, :]
    field = torch.zeros_like(image)
    for i in range(ORDER + 1):
        for j in range(ORDER + 1 - i):
            if i + j > 0:
                field = field + torch.randn((batch, 1, 1), generator=generator, device=image.device, dtype=image.dtype) / (i + j) * y ** i * x ** j
    highest = torch.where(mask, field, -torch.inf).amax((1, 2))
    lowest = torch.where(mask, field, torch.inf).amin((1, 2))
    factor = ratio.to(image.dtype).log() / (highest - lowest).clamp(min=1e-6)
    # far outside tissue the polynomial grows without bounds
    level = (torch.minimum(torch.maximum(field, lowest[:, None, None]), highest[:, None, None])
             - masked_quantile(field, mask, 0.5)[:, None, None]) * factor[:, None, None]
    result = (image - base(image)) * torch.exp(level) + base(image)
    return finish(image, result, modality), replace(AddedDamage.none(tissue_signal(image, modality, mask)), bias=ratio.to(image.dtype))
