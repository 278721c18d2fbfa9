"""Measures with units that people read: noise, signal to noise, edge width, share of tissue.

NoiseStandardDeviation: mode of the 7 x 7 local standard deviation in soft tissue away from edges (CT, HU; Christianson 2015, Kuo 2024), or
the finest diagonal Haar level in tissue, in stored signal (MR). SignalToNoiseRatio: tissue signal over it (CT: 1000 HU, water above air).
EdgeWidth: 25 % quantile of range over steepest slope at the strongest edges, mm. TissueShare: share of the slice that is tissue. Lower is
better for noise and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qa_engine.assessment import Quantity
from qa_engine.measures import MEASURE_NAMES, measure_slices, normalised
from qa_engine.measures.edges import edge_widths
from qa_engine.measures.noise import local_std, noise_mode
from qa_engine.simulation.degradations.tissue import masked_quantile, smooth

CALM_SHARE = 0.35
"""Share of soft tissue, where it changes least, in which noise is looked for: fat beside muscle has a mode of its own."""


def slice_physics(image: Tensor, spacing_mm: Tensor, modality: str) -> dict[str, Tensor]:
    """Of (N,H,W): noise (HU, or share of tissue signal), signal, width (mm), tissue share; each (N,)."""
    unit, mask, signal = normalised(image, modality)
    if modality == "CT":
        change = local_std(smooth(smooth(unit, 5), 3), 7)
        noise = noise_mode(unit, mask & (change <= masked_quantile(change, mask, CALM_SHARE)[:, None, None]))
    else:
        noise = measure_slices(image, spacing_mm, modality)[:, MEASURE_NAMES.index("hh1")].exp() / 1000.0
    return {"noise": noise, "signal": signal, "width": edge_widths(smooth(unit, 3), spacing_mm, (0.25,))[:, 0], "tissue": mask.float().mean((1, 2))}


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
