"""Spectrum measures: rings, sectors (streaks), single lines of k-space (motion, ghosts) and single points of it (waves). Corners of the spectrum are
left out: there a simulator would betray itself, not the damage."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_BANDS = ((0.06, 0.14), (0.14, 0.25), (0.25, 0.38), (0.38, 0.5))
_SECTORS = 12
SPECTRUM_NAMES = ("slope1", "slope2", "slope3", "sector_std_mid", "sector_max_mid", "sector_std_high", "sector_max_high",
                  "line_std_low_a", "line_std_low_b", "line_std_high_a", "line_std_high_b", "line_max_a", "line_max_b",
                  "line_step_a", "line_step_b", "point_max", "point_wave")
_POINTS = (0.03, 0.45)
"""Cycles per pixel between which a point of k-space is looked at: nearer to the middle is anatomy."""
_CLEAR = 20.0
"""A point this many times stronger than those around is a wave; of white noise, one slice in many thousands has one."""


def _window(height: int, width: int, like: Tensor) -> Tensor:
    return (torch.hann_window(height, periodic=False, dtype=like.dtype, device=like.device)[:, None]
            * torch.hann_window(width, periodic=False, dtype=like.dtype, device=like.device)[None, :])


@lru_cache(maxsize=8)
def _places(height: int, width: int, device: torch.device) -> list[tuple[Tensor, list[Tensor]]]:
    """Of each band the places in a flattened spectrum, and of every second one those of its sectors."""
    fy, fx = torch.fft.fftfreq(height, device=device)[:, None], torch.fft.fftfreq(width, device=device)[None, :]
    radius, angle = torch.hypot(fy, fx).flatten(), (torch.atan2(fy, fx) % math.pi).flatten()
    sector = (angle * (_SECTORS / math.pi)).long().clamp(max=_SECTORS - 1)
    bands = [(radius >= low) & (radius < high) for low, high in _BANDS]
    return [(inside.nonzero()[:, 0], [(inside & (sector == k)).nonzero()[:, 0] for k in range(_SECTORS)] if number in (1, 3) else [])
            for number, inside in enumerate(bands)]


def spectrum_measures(image: Tensor, mask: Tensor) -> Tensor:
    """(B,H,W) in measuring units and its tissue mask -> (B, len(SPECTRUM_NAMES))."""
    batch, height, width = image.shape
    power = (torch.fft.fft2((image - image.mean((1, 2), keepdim=True)) * _window(height, width, image)).abs().square() + 1.0).flatten(1)
    rings, spread = [], []
    for ring, sectors in _places(height, width, image.device):
        rings.append(power[:, ring].mean(1).log())
        if sectors:
            means = torch.stack([power[:, sector].mean(1).log() for sector in sectors], 1)
            centred = means - means.mean(1, keepdim=True)
            spread += [centred.std(1), centred.max(1).values]
    slopes = [rings[k] - rings[k + 1] for k in range(3)]
    raw = (torch.fft.fft2(image - image.mean((1, 2), keepdim=True)).abs().square() + 1.0).log()
    lines = [_lines(raw.mean(2), height), _lines(raw.mean(1), width)]
    # the axis with the stronger irregularity first: phase-encode direction is not known from pixels
    swap = lines[0][:, 0] < lines[1][:, 0]
    first = torch.where(swap[:, None], lines[1], lines[0])
    second = torch.where(swap[:, None], lines[0], lines[1])
    paired = torch.stack([first, second], 2).reshape(batch, -1)
    return torch.cat([torch.stack([*slopes, *spread], 1), paired, _points(power.view(image.shape))], 1)


def _points(power: Tensor) -> Tensor:
    """(B,H,W) power of windowed slices -> (B,2) logarithms: the strongest point over those around it; 1 + root mean square of the waves
    that such points make, in measuring units."""
    height, width = power.shape[1:]
    padded = F.pad(power[:, None], (4, 4, 4, 4), mode="circular")
    wide, near = F.avg_pool2d(padded, 9, 1)[:, 0] * 81, F.avg_pool2d(padded[..., 2:-2, 2:-2], 5, 1)[:, 0] * 25
    point = F.avg_pool2d(padded[..., 3:-3, 3:-3], 3, 1)[:, 0] * 9  # the window spreads a wave over its neighbours
    around = (wide - near).clamp(min=1.0) / 56
    fy, fx = torch.fft.fftfreq(height, device=power.device)[:, None], torch.fft.fftfreq(width, device=power.device)[None, :]
    radius = torch.hypot(fy, fx)
    ratio = torch.where((radius > _POINTS[0]) & (radius < _POINTS[1]), point / around / 9, torch.zeros_like(power))
    over = torch.where(ratio > _CLEAR, (power - around).clamp(min=0), torch.zeros_like(power)).sum((1, 2))
    wave = over.sqrt() / (0.375 * height * width)  # the mean square of the window is 0.375 along each axis
    return torch.stack([ratio.amax((1, 2)).clamp(min=1.0).log(), wave.log1p()], 1)


def _lines(line: Tensor, size: int) -> Tensor:
    """(B, size) mean log power per line of k-space -> (B,4): deviation from the median of 9 lines: low, high, largest, steps."""
    half = torch.fft.fftshift(line, dim=1)
    padded = F.pad(half[:, None], (4, 4), mode="replicate")[:, 0]
    deviation = half - padded.unfold(1, 9, 1).median(2).values
    distance = (torch.arange(size, device=line.device) - size // 2).abs() / (size / 2)
    low, high = deviation[:, (distance > 0.08) & (distance < 0.45)], deviation[:, (distance >= 0.45) & (distance < 0.9)]
    steps = (half[:, 1:] - half[:, :-1]).abs()[:, distance[1:] > 0.08]
    return torch.stack([low.std(1), high.std(1), torch.cat([low, high], 1).max(1).values, steps.quantile(0.9, dim=1)], 1)
