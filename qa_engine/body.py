"""The body in a slice: outline, grid of intensities, uniformity. Everything that asks what a slice shows starts here.

Slices are brought to 2 mm pixels first, so that lengths and gradients mean the same for every matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from qa_engine.measures.tissue import smooth

PIXEL_MM = 2.0
CT_BODY_HU = -400.0
MR_BODY_SHARE = 0.15
"""Of the 98 % quantile of the slice."""
SMALLEST_PIXELS = 60
GRID = 8
TRUNCATED = 0.1
"""Share of the image's border that shows body from which on a diameter would be too small."""
_ERODE = 7


@dataclass(frozen=True, eq=False)
class Body:
    """image and mask (H,W) at 2 mm; area in cm2; ellipse_overlap with the ellipse of equal moments, 0..1; axis_ratio 0..1 (1 = round)."""

    image: torch.Tensor
    mask: torch.Tensor
    area_cm2: float
    ellipse_overlap: float
    axis_ratio: float
    box: tuple[int, int, int, int]


def find_body(image: np.ndarray, spacing_mm: tuple[float, float], modality: str) -> Body | None:
    """The largest connected thing that is not air, holes filled; None when there is none worth the name."""
    import SimpleITK as sitk

    height, width = image.shape
    size = [min(1024, max(16, int(n * s / PIXEL_MM))) for n, s in zip((height, width), spacing_mm, strict=True)]
    source = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    small = F.interpolate(source, size=size, mode="area")[0, 0]
    calm = smooth(small[None], 5)[0]
    inside = calm > (CT_BODY_HU if modality == "CT" else MR_BODY_SHARE * float(small.quantile(0.98)))
    if int(inside.sum()) < SMALLEST_PIXELS:
        return None
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray(inside.numpy().astype(np.uint8))), sortByObjectSize=True)
    mask = torch.from_numpy(sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.Equal(parts, 1))).astype(bool))
    area = int(mask.sum())
    if area < SMALLEST_PIXELS:
        return None
    rows, columns = torch.nonzero(mask, as_tuple=True)
    centred = torch.stack([rows.float() - rows.float().mean(), columns.float() - columns.float().mean()])
    covariance = centred @ centred.T / area + 1e-3 * torch.eye(2)
    values = torch.linalg.eigvalsh(covariance)
    grid = torch.stack(torch.meshgrid(torch.arange(mask.shape[0]) - rows.float().mean(), torch.arange(mask.shape[1]) - columns.float().mean(),
                                      indexing="ij")).flatten(1)
    ellipse = ((covariance.inverse() @ grid * grid).sum(0) <= 4.0).reshape(mask.shape)
    overlap = int((ellipse & mask).sum()) / max(1, int((ellipse | mask).sum()))
    box = int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
    return Body(small, mask, area * PIXEL_MM ** 2 / 100.0, overlap, float((values[0] / values[1]).clamp(min=0).sqrt()), box)


def water_equivalent_diameter(bodies: Sequence[Body | None]) -> float | None:
    """Median over the slices, mm (AAPM Report 220); None where bodies are absent or cut off by the border of the image."""
    found = []
    for body in bodies:
        if body is None:
            continue
        border = torch.cat([body.mask[0], body.mask[-1], body.mask[:, 0], body.mask[:, -1]]).float().mean()
        if float(border) > TRUNCATED:
            continue
        water = (body.image[body.mask].clamp(-1024, 3071).double() / 1000.0 + 1.0).clamp(min=0).sum()
        found.append(2.0 * math.sqrt(float(water) * PIXEL_MM ** 2 / math.pi))
    return float(np.median(found)) if 2 * len(found) > len(bodies) else None


@dataclass(frozen=True)
class Uniformity:
    """gradient: median over the inner body of the gradient per 4 mm, over 1000 HU (CT) or the median signal (MR);
    share: of the inner body within +-20 HU (CT) or +-5 % of the median (MR) of its commonest value; value: that value."""

    gradient: float
    share: float
    value: float


def uniformity(body: Body, modality: str) -> Uniformity | None:
    """How uniform the inside is; None when too little of the body is left inside its edge."""
    inner = -F.max_pool2d(-body.mask.float()[None, None], _ERODE, stride=1, padding=_ERODE // 2)[0, 0] > 0.5
    calm = smooth(body.image[None], 3)[0]
    values = calm[inner]
    if values.numel() < 40:
        return None
    middle = float(values.median())
    scale = 1000.0 if modality == "CT" else max(middle, 1e-6)
    slope = torch.hypot(F.pad(calm[2:] - calm[:-2], (0, 0, 1, 1)), F.pad(calm[:, 2:] - calm[:, :-2], (1, 1)))
    half = 20.0 if modality == "CT" else 0.05 * scale
    ordered = values.sort().values
    starts = ordered[:: max(1, len(ordered) // 400)].contiguous()
    counts = torch.searchsorted(ordered, starts + 2 * half) - torch.searchsorted(ordered, starts)
    best = int(counts.argmax())
    return Uniformity(float(slope[inner].median()) / scale, float(counts[best]) / len(ordered), float(starts[best]) + half)


def region_features(body: Body, modality: str) -> np.ndarray:
    """(GRID * GRID + 8,) features of what a slice shows: intensities over the body's box, sizes in mm, shares of air and bone."""
    top, bottom, left, right = body.box
    cut = body.image[top:bottom, left:right]
    inside = body.mask[top:bottom, left:right]
    if modality == "CT":
        values = (cut.clamp(-1000, 700) + 150) / 500
        air, bone = (cut < -500) & inside, (cut > 250) & inside
        fat = (cut > -150) & (cut < -40) & inside
    else:
        level = float(body.image[body.mask].quantile(0.9)) or 1.0
        values = (cut / level).clamp(0, 1.5) - 0.5
        air, bone, fat = (cut < 0.1 * level) & inside, (cut > level) & inside, (cut < 0.4 * level) & inside
    grid = F.adaptive_avg_pool2d(values[None, None], GRID)[0, 0].flatten()
    area = float(inside.sum())
    rest = torch.tensor([np.log((bottom - top) * PIXEL_MM), np.log((right - left) * PIXEL_MM), np.log(body.area_cm2), body.axis_ratio,
                         body.ellipse_overlap, float(air.sum()) / area * 3, float(bone.sum()) / area * 3, float(fat.sum()) / area])
    return torch.cat([grid, rest.float()]).numpy().astype(np.float32)
