"""Classical no-reference measures per slice: vectors for the network, and a few with units for people.

`measure` takes a batch of slices of one size; amounts are logarithms, so that ratios are distances.
CT slices are measured in HU, MR slices relative to their tissue signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qa_engine.measures.edges import EDGE_NAMES, edge_measures
from qa_engine.measures.noise import NOISE_NAMES, noise_measures
from qa_engine.measures.physics import PHYSICS_NAMES, Physics, physics_of
from qa_engine.measures.spectrum import SPECTRUM_NAMES, spectrum_measures
from qa_engine.measures.structure import STRUCTURE_NAMES, structure_measures
from qa_engine.measures.tissue import smooth, tissue_mask, tissue_signal

LAYOUT_NAMES = ("log_row_mm", "log_column_mm", "log_rows", "log_columns", "tissue_share", "is_mr")
MEASURE_NAMES: tuple[str, ...] = (*NOISE_NAMES, *EDGE_NAMES, *SPECTRUM_NAMES, *STRUCTURE_NAMES, *LAYOUT_NAMES, *PHYSICS_NAMES)


def normalised(image: Tensor, modality: str) -> tuple[Tensor, Tensor, Tensor]:
    """(B,H,W) in measuring units (CT: HU clipped to -1024..3071; MR: tissue signal = 1000), its tissue mask and its signal (B,)."""
    if modality == "CT":
        image = image.clamp(-1024, 3071)
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    if modality != "CT":
        image = image * (1000.0 / signal.clamp(min=1e-6))[:, None, None]
    return image, mask, signal


@dataclass(frozen=True)
class Measured:
    """Of B slices: vector (B, len(MEASURE_NAMES)) for the network, finite; physics; tissue signal (B,) (1000 for CT); tissue share (B,)."""

    vector: Tensor
    physics: Physics
    signal: Tensor
    tissue_share: Tensor


def measure(image: Tensor, spacing_mm: Tensor, modality: str) -> Measured:
    """(B,H,W) float32 in HU or stored signal, spacing (B,2) mm."""
    unit, mask, signal = normalised(image, modality)
    share = mask.float().mean((1, 2))
    layout = torch.stack([spacing_mm[:, 0].log(), spacing_mm[:, 1].log(),
                          torch.full_like(spacing_mm[:, 0], float(image.shape[1])).log(),
                          torch.full_like(spacing_mm[:, 0], float(image.shape[2])).log(),
                          share, torch.full_like(spacing_mm[:, 0], float(modality == "MR"))], 1)
    physics = physics_of(unit, mask, spacing_mm, modality)
    found = torch.cat([noise_measures(unit, mask), edge_measures(unit, smooth(unit, 3), spacing_mm), spectrum_measures(unit, mask),
                       structure_measures(unit, mask), layout, physics.logarithms()], 1)
    return Measured(torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), physics, signal, share)
