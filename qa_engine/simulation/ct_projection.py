"""Parallel-beam projection and filtered back-projection in torch, batched (Kak and Slaney 1988, chapter 3).

Lengths are in pixels of the grid; views are spread over 180 degrees. Kernels are the ramp times an apodisation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KERNELS = ("ramp", "shepp-logan", "cosine", "hann")
_CHUNK = 24


def angles(views: int) -> Tensor:
    """Angles (views,) in radians over half a turn."""
    return torch.arange(views, dtype=torch.float32) * (math.pi / views)


def project(image: Tensor, views: int) -> Tensor:
    """Line integrals (B, views, N) of (B,N,N) along the columns of the image turned by each angle."""
    batch, size, _ = image.shape
    theta = angles(views).to(image.device)
    out = torch.empty(batch, views, size, dtype=image.dtype, device=image.device)
    for at in range(0, views, _CHUNK):
        part = theta[at:at + _CHUNK]
        cos, sin = torch.cos(part), torch.sin(part)
        zero = torch.zeros_like(cos)
        affine = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
        grid = F.affine_grid(affine, [len(part), 1, size, size], align_corners=False)
        # slices are channels of one image, so that each turn is computed once for the whole batch
        turned = F.grid_sample(image[None].expand(len(part), -1, -1, -1), grid, mode="bilinear", align_corners=False)
        out[:, at:at + _CHUNK] = turned.sum(2).transpose(0, 1)
    return out


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


def back_project(filtered: Tensor, size: int) -> Tensor:
    """Image (B,size,size) of filtered projections (B, views, N), linear interpolation."""
    batch, views, n = filtered.shape
    axis = (torch.arange(size, device=filtered.device, dtype=filtered.dtype) + 0.5) * (n / size) - n / 2
    image = torch.zeros(batch, size * size, dtype=filtered.dtype, device=filtered.device)
    theta = angles(views).to(filtered.device)
    for k in range(views):
        cos, sin = torch.cos(theta[k]), torch.sin(theta[k])
        place = (axis[None, :] * cos + axis[:, None] * sin + n / 2 - 0.5).clamp(0, n - 1.001).reshape(-1)
        low = place.long()
        share = place - low
        row = filtered[:, k]
        image += row[:, low] * (1 - share) + row[:, low + 1] * share
    return image.reshape(batch, size, size) * (math.pi / views)
