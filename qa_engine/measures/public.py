"""Measures with units that people read: noise, signal to noise, edge width, share of tissue.

NoiseStandardDeviation and EdgeWidth: `measures.physics`, HU (CT) or stored signal on the acquired matrix (MR), and mm. SignalToNoiseRatio:
tissue signal over noise (CT: 1000 HU, water above air). TissueShare: share of the slice that is tissue. Lower is better for noise and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qa_engine.assessment import Quantity
from qa_engine.measures import Measured
from qa_engine.measures.physics import WITNESS


def public_measures(slices: Sequence[Measured], modality: str) -> dict[str, Quantity]:
    """Medians over the slices that were measured."""
    noise, width, signal, tissue = (float(torch.cat(values).median()) for values in zip(
        *((m.physics.noise, m.physics.width, m.signal, m.tissue_share) for m in slices), strict=True))
    absolute = WITNESS * noise if modality == "CT" else noise / 1000.0 * signal
    result = {"NoiseStandardDeviation": Quantity(round(absolute, 3), "[hnsf'U]" if modality == "CT" else "1"),
              "EdgeWidth": Quantity(round(width, 3), "mm"), "TissueShare": Quantity(round(tissue, 3), "1")}
    if absolute > 0:
        result["SignalToNoiseRatio"] = Quantity(round(signal / absolute, 2), "1")
    return result
