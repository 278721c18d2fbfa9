"""The last link that every version of a slice passes, identity included, so that nothing but the damage tells versions apart.

A scanner pads, masks and quantises after the physics; so do we: areas that were constant stay constant, the floor of the
source stays its floor, whole numbers stay whole numbers.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import highest, rms, tissue_signal
from qa_engine.simulation.degradations.damage import AddedDamage


def constant_areas(image: Tensor) -> Tensor:
    """Boolean (B,H,W): padding or masked air, recognised by 5 x 5 windows of one value and their equal neighbours."""
    low = -highest(-image, 5)
    near = highest((highest(image, 5) == low).to(image.dtype), 5) > 0
    # A neighbour belongs to the area only when it carries the area's value: the lowest one in its window.
    return near & (image == low)


def finish(source: Tensor, changed: Tensor, modality: str) -> Tensor:
    """`changed` with the source's constant areas, floor and step put back, (B,H,W) float32.

    The floor is the source's minimum where at least 0.02 % of its pixels lie on it (a clipped image), else none; magnitude
    images never go below zero when the source did not. The step is 1 where the source holds whole numbers only.
    """
    lowest = source.amin((1, 2), keepdim=True)
    share = (source == lowest).float().mean((1, 2), keepdim=True)
    floor = torch.where(share > 2e-4, lowest, torch.full_like(lowest, -torch.inf))
    if modality != "CT":
        floor = torch.where(lowest >= 0, torch.clamp(floor, min=0.0), floor)
    whole = (source == source.round()).all(2, keepdim=True).all(1, keepdim=True)
    kept = torch.where(whole, changed.round(), changed)
    kept = torch.maximum(kept, floor)
    return torch.where(constant_areas(source), source, kept)


def add_scaled(image: Tensor, difference: Tensor, wanted: Tensor, mask: Tensor, modality: str) -> tuple[Tensor, AddedDamage]:
    """(B,H,W) plus a structured error image scaled to the root mean square `wanted` (B,) inside `mask`, as an artefact.

    Reconstruction is linear in what the projections got wrong, so scaling the error image scales its cause.
    """
    unit = difference / rms(difference, mask).clamp(min=1e-9)[:, None, None]
    added = wanted.to(image.dtype)
    damage = replace(AddedDamage.none(tissue_signal(image, modality, mask)), artefact=added)
    return finish(image, image + added[:, None, None] * unit, modality), damage
