"""Measures with units that people read: noise, signal to noise, edge width, share of tissue.

NoiseStandardDeviation and EdgeWidth: `measures.physics`, HU (CT) or stored signal on the acquired matrix (MR), and mm. SignalToNoiseRatio:
tissue signal over noise (CT: 1000 HU, water above air). TissueShare: share of the slice that is tissue. Lower is better for noise and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qa_engine.assessment import Quantity
from qa_engine.measures import normalised
from qa_engine.measures.physics import physics_of


def slice_physics(image: Tensor, spacing_mm: Tensor, modality: str) -> dict[str, Tensor]:
    """Of (N,H,W): noise (HU, or share of tissue signal), signal, width (mm), tissue share; each (N,)."""
    unit, mask, signal = normalised(image, modality)
    found = physics_of(unit, mask, spacing_mm, modality)
    noise = found.noise / (1.0 if modality == "CT" else 1000.0)
    return {"noise": noise, "signal": signal, "width": found.width, "tissue": mask.float().mean((1, 2))}


def public_measures(image: Tensor, spacing_mm: tuple[float, float], modality: str) -> dict[str, Quantity]:
    """Medians over the slices (N,H,W) float32 in HU or stored signal."""
    found = slice_physics(image, torch.tensor([spacing_mm]).expand(len(image), -1), modality)
    noise, signal = float(found["noise"].median()), float(found["signal"].median())
    absolute = noise if modality == "CT" else noise * signal
    ratio = signal / absolute if absolute > 0 else None
    result = {"NoiseStandardDeviation": Quantity(round(absolute, 3), "[hnsf'U]" if modality == "CT" else "1"),
              "EdgeWidth": Quantity(round(float(found["width"].median()), 3), "mm"),
              "TissueShare": Quantity(round(float(found["tissue"].median()), 3), "1")}
    if ratio is not None:
        result["SignalToNoiseRatio"] = Quantity(round(ratio, 2), "1")
    return result
