"""What the network sees of a slice: native crops where tissue is, and the whole slice at the same size.

Noise and sharpness live at native resolution (a resize of the slice would take them away); layout lives in the whole view.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures import normalised
from qa_engine.measures.tissue import smooth

SIDE = 96
CROPS = 6
VIEWS = CROPS + 1
CHANNELS = 3


def crop_corners(mask: Tensor, count: int = CROPS) -> Tensor:
    """(H,W) bool, at least SIDE a side -> (count,2) row and column of crops, most tissue first, spread: taken places count less."""
    height, width = mask.shape
    share = F.avg_pool2d(mask[None, None].float(), SIDE, stride=max(1, SIDE // 4))[0, 0]
    rows, columns = share.shape
    step = max(1, SIDE // 4)
    left = share.clone() + 1e-3
    ys = torch.arange(rows, dtype=torch.float32, device=mask.device)[:, None] * step
    xs = torch.arange(columns, dtype=torch.float32, device=mask.device)[None, :] * step
    chosen = []
    for _ in range(count):
        k = int(left.argmax())
        y, x = k // columns, k % columns
        chosen.append((min(y * step, height - SIDE), min(x * step, width - SIDE)))
        overlap = (1 - (ys - y * step).abs() / SIDE).clamp(min=0) * (1 - (xs - x * step).abs() / SIDE).clamp(min=0)
        left = left * (1 - 0.9 * overlap)
    return torch.tensor(chosen)


def slice_views(image: Tensor, modality: str) -> Tensor:
    """(H,W) float32 in HU or stored signal -> (VIEWS, SIDE, SIDE) in measuring units; CROPS native crops, then the whole slice."""
    unit, mask, _ = normalised(image[None], modality)
    unit, mask = unit[0], mask[0]
    height, width = unit.shape
    grow = (max(0, SIDE - height), max(0, SIDE - width))
    if any(grow):
        pad = (grow[1] // 2, grow[1] - grow[1] // 2, grow[0] // 2, grow[0] - grow[0] // 2)
        unit = F.pad(unit[None, None], pad, mode="replicate")[0, 0]
        mask = F.pad(mask[None, None].float(), pad)[0, 0] > 0.5
    crops = [unit[y:y + SIDE, x:x + SIDE] for y, x in crop_corners(mask).tolist()]
    whole = F.interpolate(unit[None, None], size=(SIDE, SIDE), mode="area")[0, 0]
    return torch.stack([*crops, whole])


def channels(views: Tensor, is_mr: Tensor) -> Tensor:
    """(N, V, SIDE, SIDE) in measuring units, (N,) bool -> (N, V, CHANNELS, SIDE, SIDE): narrow window, wide window, high-pass."""
    flat = views.flatten(0, 1)
    fine = (flat - smooth(flat, 5)).reshape(views.shape)
    mr = is_mr[:, None, None, None]
    narrow = torch.where(mr, views / 1000.0 - 1.0, (views - 40.0) / 200.0).clamp(-1.5, 1.5)
    wide = torch.where(mr, views / 3000.0 - 0.5, (views + 250.0) / 750.0).clamp(-1.5, 1.5)
    # an arcsinh keeps mild noise visible beside strong edges
    high = torch.asinh(fine / torch.where(mr, 30.0, 15.0)) / 2.0
    return torch.stack([narrow, wide, high], 2)
