"""Thicker slices: the mean of neighbouring ones (Goodenough 1981); noise falls, what lies across the slice smears. A stack, CT or MR."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.noise import noise_mode
from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.damage import AddedDamage


def thicker(stack: Tensor, count: int, modality: str) -> tuple[Tensor, AddedDamage]:
    """(D,H,W) neighbouring slices without gaps -> (D - count + 1,H,W) slices `count` times as thick, and the damage to each.

    Artefact: the error against the middle slice beyond the noise that the two differ by, partial volume. The slice's noise falls by up to
    the root of `count`, which is no damage. Raises ValueError where there are fewer slices than `count`.
    """
    if not 1 <= count <= len(stack):
        raise ValueError(f"{count} slices of {len(stack)} cannot be one")
    mean = stack.unfold(0, count, 1).mean(3)
    middle = stack[count // 2:count // 2 + len(mean)]
    mask = tissue_mask(middle, modality)
    error = mean - middle
    structured = (rms(error, mask).square() - noise_mode(error, mask).square()).clamp(min=0).sqrt() if count > 1 else torch.zeros_like(rms(error, mask))
    return mean, replace(AddedDamage.none(tissue_signal(middle, modality, mask)), artefact=structured)
