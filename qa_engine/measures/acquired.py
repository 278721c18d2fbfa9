"""The part of k-space that an MR image was acquired with: scanners fill the rest with zeros or filter it away.

The power of the lines along each axis falls smoothly with frequency down to the noise; where it drops by KNEE decades within a tenth of the
Nyquist frequency, the acquired band ends. Noise lives inside that band, so its amount is stated on the acquired matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 40
STEP = 2
"""Bins on each side of a place that are compared: a twentieth of the Nyquist frequency each."""
KNEE = 0.65
LOWEST = 0.2
"""No band ends below this share of the Nyquist frequency."""


def acquired_limits(image: Tensor) -> Tensor:
    """(B,H,W) -> (B,2) share of the Nyquist frequency that was acquired along rows and columns, LOWEST to 1."""
    height, width = image.shape[1:]
    taper = (torch.hann_window(height, periodic=False, device=image.device)[:, None]
             * torch.hann_window(width, periodic=False, device=image.device)[None])
    power = torch.fft.fft2((image - image.mean((1, 2), keepdim=True)) * taper).abs().square()
    return torch.stack([_limit(power.mean(2)), _limit(power.mean(1))], 1)


def _limit(line: Tensor) -> Tensor:
    """(B,n) mean power per line, in the order of fft -> (B,) share of the Nyquist frequency."""
    half = line.shape[1] // 2
    if half < 2 * BINS // 3:
        return torch.ones_like(line[:, 0])  # a matrix of under 54 lines is never a filled one
    one_sided = (line[:, 1:half] + line[:, -(half - 1):].flip(1)) / 2
    place = torch.arange(half - 1, device=line.device) * BINS // (half - 1)
    counts = torch.bincount(place, minlength=BINS)
    bins = torch.zeros(len(line), BINS, device=line.device, dtype=line.dtype).index_add_(1, place, one_sided) / counts
    level = bins.clamp(min=1e-12).log10()
    smooth = torch.nn.functional.avg_pool1d(level[:, None], STEP, stride=1)[:, 0]  # (B, BINS - 1), of bins k and k + 1
    drop = smooth[:, :-2 * STEP] - smooth[:, 2 * STEP:]
    first = int(LOWEST * BINS)
    # behind the end of the band nothing comes back: what follows a place is the highest level from there on
    later = smooth.flip(1).cummax(1).values.flip(1)
    for_good = torch.minimum(drop, smooth[:, :-2 * STEP] - later[:, 2 * STEP:])
    best = for_good[:, first:].max(1)
    edge = (best.indices + first + STEP + 1).to(line.dtype) / BINS
    return torch.where(best.values > KNEE, edge.clamp(max=1.0), torch.ones_like(edge))


def band(limits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mask (B,H,W), in the order of fft, of the acquired part of k-space."""
    rows = torch.fft.fftfreq(shape[0], device=limits.device).abs() * 2
    columns = torch.fft.fftfreq(shape[1], device=limits.device).abs() * 2
    return ((rows[None, :, None] <= limits[:, 0, None, None]) & (columns[None, None, :] <= limits[:, 1, None, None])).float()


def on_acquired_matrix(image: Tensor, limits: Tensor) -> Tensor:
    """One slice (H,W) with its limits (2,) -> (h,w), the same field on the matrix that it was acquired with (k-space cropped)."""
    height, width = image.shape
    h, w = (max(16, round(n * float(share)) // 2 * 2) for n, share in zip((height, width), limits, strict=True))
    if h >= height and w >= width:
        return image
    h, w = min(h, height), min(w, width)
    k = torch.fft.fftshift(torch.fft.fft2(image))
    top, left = (height - h + 1) // 2, (width - w + 1) // 2
    cropped = k[top:top + h, left:left + w]
    return torch.fft.ifft2(torch.fft.ifftshift(cropped)).real * (h * w / (height * width))
