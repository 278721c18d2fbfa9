"""A slice of FDG-like activity: the simulated chest with the uptake of its tissues, as a scanner of 6 mm resolution shows it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from qa_engine.simulation import patient_ct

SIZE, UPTAKE_BQML = 128, 4000.0
STEPS = ((-2000.0, 0.0), (-950.0, 0.12), (-200.0, 0.35), (0.0, 0.8), (70.0, 1.6), (250.0, 1.0))
"""From this HU on: relative uptake of air, lung, fat, soft tissue, blood and heart (with contrast), bone."""


def activity(seed: int) -> tuple[Tensor, float]:
    """Activity (SIZE,SIZE) in Bq/ml and the pixel in mm."""
    hu = patient_ct.anatomy(5, 2 * SIZE, seed)[2]
    uptake = torch.zeros_like(hu)
    for level, share in STEPS:
        uptake = torch.where(hu >= level, share, uptake)
    pixel = patient_ct.FIELD_MM / SIZE
    sharp = F.avg_pool2d(uptake[None, None], hu.shape[0] // SIZE)
    place = torch.arange(-4, 5) * pixel
    bell = torch.exp(-0.5 * (place * 2.3548 / 6.0).square())
    bell = bell / bell.sum()
    soft = F.conv2d(F.conv2d(sharp, bell[None, None, :, None], padding=(4, 0)), bell[None, None, None, :], padding=(0, 4))[0, 0]
    grain = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return (UPTAKE_BQML * soft * (1 + 0.03 * grain)).clamp(min=0) + 0.5, pixel
