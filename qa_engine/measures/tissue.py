"""Where tissue is in a slice and how bright it is: the reference for every relative amount.

Quantiles are taken on every third pixel of each axis: a median over thousands of pixels needs no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CT_SIGNAL_HU = 1000.0
"""Water above air: the natural unit of contrast in CT."""

_FEW = 400


def smooth(image: Tensor, size: int = 5) -> Tensor:
    """Box mean of (B,H,W) over `size` x `size` pixels (odd), edges by the pixels that exist."""
    if not image.is_cpu:
        rows = F.avg_pool2d(image[:, None], (size, 1), stride=1, padding=(size // 2, 0), count_include_pad=False)
        return F.avg_pool2d(rows, (1, size), stride=1, padding=(0, size // 2), count_include_pad=False)[:, 0]
    reach = size // 2
    for axis in (1, 2):  # the same sums in the same order, a tenth of the time: on a CPU pooling is not vectorised
        count = image.shape[axis]
        padded = F.pad(image, (0, 0, reach, reach) if axis == 1 else (reach, reach))
        image = padded.narrow(axis, 0, count).clone()
        for k in range(1, size):
            image += padded.narrow(axis, k, count)
        place = torch.arange(count)
        exist = (place + reach).clamp(max=count - 1) - (place - reach).clamp(min=0) + 1
        image /= exist[:, None] if axis == 1 else exist
    return image


def highest(image: Tensor, size: int) -> Tensor:
    """Largest value of (B,H,W) over `size` x `size` pixels."""
    before, after = size // 2, size - 1 - size // 2
    for axis in (1, 2):
        image = F.pad(image, (0, 0, before, after) if axis == 1 else (before, after), value=-torch.inf)
        seen = 1
        while seen < size:  # the largest of twice as many, until all are seen
            step = min(seen, size - seen)
            image = torch.maximum(image.narrow(axis, 0, image.shape[axis] - step), image.narrow(axis, step, image.shape[axis] - step))
            seen += step
    return image


def _eroded(mask: Tensor, by: int) -> Tensor:
    return highest((~mask).to(torch.float32), 2 * by + 1) < 0.5


def tissue_mask(image: Tensor, modality: str) -> Tensor:
    """Boolean (B,H,W): soft tissue (CT, on a smoothed copy so that noise cuts nothing off) or signal-bearing tissue (MR).

    Falls back to everything that is not air where soft tissue is too scarce (lung, bone, tight crops).
    """
    calm = smooth(image)
    if modality == "CT":
        soft = _eroded((calm > -150) & (calm < 250), 2)
        body = calm > -700
    else:
        level = masked_quantile(image.abs(), image > 0, 0.97)[:, None, None]
        soft = _eroded(calm > 0.2 * level, 1)
        body = calm > 0.1 * level
    few = soft.sum((1, 2), keepdim=True) < _FEW
    chosen = torch.where(few, body, soft)
    return torch.where(chosen.sum((1, 2), keepdim=True) < 16, torch.ones_like(chosen), chosen)


def masked_quantiles(image: Tensor, mask: Tensor, qs: Sequence[float]) -> Tensor:
    """Quantiles `qs` (0..1) of (B,H,W) inside `mask`, per slice -> (B, len(qs)), sorted once; 0 where the mask is empty."""
    step = 3 if image.shape[1] * image.shape[2] > 40000 else 1
    values = image[:, ::step, ::step].flatten(1)
    inside = mask[:, ::step, ::step].flatten(1)
    ordered = torch.where(inside, values, torch.inf).sort(1).values
    count = inside.sum(1, keepdim=True)
    place = ((count - 1).clamp(min=0) * torch.tensor(list(qs), device=image.device)).round().long()
    return torch.where(count > 0, ordered.gather(1, place), torch.zeros_like(ordered[:, :1]))


def masked_quantile(image: Tensor, mask: Tensor, q: float) -> Tensor:
    """One quantile (B,) of `masked_quantiles`."""
    return masked_quantiles(image, mask, (q,))[:, 0]


def tissue_signal(image: Tensor, modality: str, mask: Tensor | None = None) -> Tensor:
    """Tissue signal level (B,): 1000 HU for CT, the median of signal-bearing tissue for MR (at least a tiny number)."""
    if modality == "CT":
        return torch.full(image.shape[:1], CT_SIGNAL_HU, dtype=image.dtype, device=image.device)
    mask = tissue_mask(image, modality) if mask is None else mask
    return masked_quantile(image, mask, 0.5).clamp(min=1e-6)


def rms(difference: Tensor, mask: Tensor) -> Tensor:
    """Root mean square of (B,H,W) inside `mask` -> (B,)."""
    weight = mask.to(difference.dtype)
    return ((difference.square() * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)).sqrt()
