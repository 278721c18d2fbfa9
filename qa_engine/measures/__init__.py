"""Classical no-reference measures per slice: vectors for the network, and a few with units for people.

`measure_slices` gives (B, M) for a batch of slices of one size; amounts are logarithms, so that ratios are distances.
CT slices are measured in HU, MR slices relative to their tissue signal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qa_engine.measures.edges import EDGE_NAMES, edge_measures
from qa_engine.measures.noise import NOISE_NAMES, noise_measures
from qa_engine.measures.physics import PHYSICS_NAMES, physics_of
from qa_engine.measures.spectrum import SPECTRUM_NAMES, spectrum_measures
from qa_engine.simulation.degradations.tissue import smooth, tissue_mask, tissue_signal

LAYOUT_NAMES = ("log_row_mm", "log_column_mm", "log_rows", "log_columns", "tissue_share", "is_mr")
MEASURE_NAMES: tuple[str, ...] = (*NOISE_NAMES, *EDGE_NAMES, *SPECTRUM_NAMES, *LAYOUT_NAMES, *PHYSICS_NAMES)


def normalised(image: Tensor, modality: str) -> tuple[Tensor, Tensor, Tensor]:
    """(B,H,W) in measuring units (CT: HU clipped to -1024..3071; MR: tissue signal = 1000), its tissue mask and its signal (B,)."""
    if modality == "CT":
        image = image.clamp(-1024, 3071)
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    if modality != "CT":
        image = image * (1000.0 / signal.clamp(min=1e-6))[:, None, None]
    return image, mask, signal


def measure_slices(image: Tensor, spacing_mm: Tensor, modality: str) -> Tensor:
    """(B,H,W) float32 in HU or stored signal, spacing (B,2) mm -> (B, len(MEASURE_NAMES)) float32, finite."""
    unit, mask, _ = normalised(image, modality)
    layout = torch.stack([spacing_mm[:, 0].log(), spacing_mm[:, 1].log(),
                          torch.full_like(spacing_mm[:, 0], float(image.shape[1])).log(),
                          torch.full_like(spacing_mm[:, 0], float(image.shape[2])).log(),
                          mask.float().mean((1, 2)), torch.full_like(spacing_mm[:, 0], float(modality == "MR"))], 1)
    calm = smooth(unit, 3)
    physics = physics_of(unit, mask, spacing_mm, modality).logarithms()
    found = torch.cat([noise_measures(unit, mask), edge_measures(unit, calm, spacing_mm), spectrum_measures(unit, mask), layout, physics], 1)
    return torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
