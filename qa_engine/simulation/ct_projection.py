"""Parallel-beam projection and filtered back-projection in torch, batched (Kak and Slaney 1988, chapter 3; Joseph 1982).

Lengths are in pixels of the grid; views are spread over 180 degrees. Kernels are the ramp times an apodisation. Both directions are sums of
weighted rows of a table (embedding bags): slices are its columns, so that the geometry of a view is computed once for all of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KERNELS = ("ramp", "shepp-logan", "cosine", "hann")


def angles(views: int) -> Tensor:
    """Angles (views,) in radians over half a turn."""
    return torch.arange(views, dtype=torch.float32) * (math.pi / views)


def project(image: Tensor, views: int) -> Tensor:
    """Line integrals (B, views, N) of (B,N,N): each ray is sampled once per row or column, whichever it crosses more steeply."""
    batch, size, _ = image.shape
    table = torch.cat([image.reshape(batch, size * size).T, image.new_zeros(1, batch)])  # the last row is the air outside
    line = torch.arange(size, dtype=image.dtype, device=image.device) + 0.5 - size / 2
    along = torch.arange(size, device=image.device)
    out = image.new_empty(views, size, batch)
    for k, theta in enumerate(angles(views).tolist()):
        cos, sin = math.cos(theta), math.sin(theta)
        steep = abs(cos) >= abs(sin)
        across, other = (cos, sin) if steep else (sin, cos)
        place = (line[:, None] - line * other) / across + (size / 2 - 0.5)
        low = place.floor()
        share = place - low
        pixels = []
        for at in (low.long(), low.long() + 1):
            inside = (at >= 0) & (at < size)
            pixels.append(torch.where(inside, along * size + at if steep else at * size + along, size * size))
        out[k] = _weighted_sums(table, pixels, [1 - share, share]) / abs(across)
    return out.permute(2, 0, 1)


def transfer(size: int, kernel: str, cutoff: float = 1.0) -> Tensor:
    """Filter (size//2+1,) on the half spectrum of `size` samples; `cutoff` 0..1 of the Nyquist frequency."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel is one of {', '.join(KERNELS)}, not {kernel}")
    f = torch.fft.rfftfreq(size)
    relative = (f / (0.5 * cutoff)).clamp(max=1.0)
    window = {"ramp": torch.ones_like(f), "shepp-logan": torch.sinc(relative / 2), "cosine": torch.cos(relative * math.pi / 2),
              "hann": 0.5 * (1 + torch.cos(relative * math.pi))}[kernel]
    # the ramp of sampled projections, so that the mean is right (Kak and Slaney, equation 61)
    n = torch.cat([torch.arange(0, size // 2 + 1), torch.arange(size // 2 - 1, 0, -1)]).float()[:size]
    h = torch.zeros(size)
    h[0] = 0.25
    odd = n.long() % 2 == 1
    h[odd] = -1.0 / (math.pi * n[odd]) ** 2
    ramp = torch.fft.rfft(h).real.clamp(min=0)
    return ramp * window * (f <= 0.5 * cutoff + 1e-9)


def filter_projections(sinogram: Tensor, kernel: str, cutoff: float = 1.0) -> Tensor:
    """Filtered projections (B, views, N), zero-padded to twice the length."""
    n = sinogram.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * n))
    spectrum = torch.fft.rfft(sinogram, n=size) * transfer(size, kernel, cutoff).to(sinogram)
    return torch.fft.irfft(spectrum, n=size)[..., :n]


def back_project(filtered: Tensor, size: int, span: int | None = None) -> Tensor:
    """Image (B,size,size) of filtered projections (B, views, N), linear interpolation; it spans the middle `span` of the N samples (all)."""
    batch, views, n = filtered.shape
    span = span or n
    table = filtered.permute(1, 2, 0).reshape(views * n, batch).contiguous()
    axis = (torch.arange(size, device=filtered.device, dtype=filtered.dtype) + 0.5) * (span / size) - span / 2
    theta = angles(views).to(filtered.device)
    cos, sin = torch.cos(theta), torch.sin(theta)
    start = torch.arange(views, device=filtered.device) * n
    out = filtered.new_empty(size, size, batch)
    for row in range(size):
        place = (axis[:, None] * cos + axis[row] * sin + n / 2 - 0.5).clamp(0, n - 1.001)
        low = place.long()
        share = place - low
        out[row] = _weighted_sums(table, [start + low, start + low + 1], [1 - share, share])
    return out.permute(2, 0, 1) * (math.pi / views)


def _weighted_sums(table: Tensor, rows: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Sums (M,B) of rows of `table` (R,B): each tensor of `rows` and `weights` is (M,K)."""
    return F.embedding_bag(torch.cat(rows, 1), table, mode="sum", per_sample_weights=torch.cat(weights, 1))
