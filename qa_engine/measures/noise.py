"""Noise and texture measures inside tissue, in HU or thousandths of tissue signal; all are natural logarithms but the correlations.

Local standard deviation (Christianson 2015 uses its mode), Immerkaer 1996, Haar wavelet levels, bands of difference of Gaussians.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.acquired import acquired_limits, on_acquired_matrix
from qa_engine.measures.tissue import highest, masked_quantile, masked_quantiles, smooth

_LAGS = (1, 2, 3, 4, 6)
NOISE_NAMES = ("noise_mode_7", "local_std5_q10", "local_std5_q50", "local_std11_q10", "local_std11_q50",
               "immerkaer", "band1", "band2", "band3", "band4", "hh1", "hh2", "hh3", "lh1", "lh2", "lh3", "hl1", "hl2", "hl3",
               *(f"rowcorr{k}" for k in _LAGS), *(f"colcorr{k}" for k in _LAGS), "kurtosis", "air_std",
               "air_level", "air_structure", "air_beside_a", "air_beside_b", "std_dark", "std_middle", "std_bright")
_TINY = 1e-3
CALM, CALM_SHARE = 0.15, 0.9
"""Quantile of the local levels, and that quantile of white noise over its standard deviation."""


def local_std(image: Tensor, size: int) -> Tensor:
    """Standard deviation (B,H,W) over size x size windows."""
    centred = image - image.mean((1, 2), keepdim=True)
    mean = smooth(centred, size)
    return (smooth(centred.square(), size) - mean.square()).clamp(min=0).sqrt()


def plane_std(image: Tensor, size: int) -> Tensor:
    """Standard deviation (B,H,W) about the plane that fits each size x size window best (borders: the nearest whole window). Without the
    plane, shading and partial volume count as noise: 5 mm slices of a skull phantom looked noisier than 1 mm slices."""
    size = min(size, (min(image.shape[1:]) - 1) // 2 * 2 + 1)
    reach, count = size // 2, size * size
    centred = image - image.mean((1, 2), keepdim=True)

    def sums(rows: Tensor, axis: int, moment: bool) -> Tensor:
        """Over windows along one axis, of whole windows alone; moment: weighted by the distance from the window's centre."""
        length = rows.shape[axis] - size + 1
        first = 0 if not moment else -reach
        total = rows.narrow(axis, 0, length) * (first if moment else 1)
        for k in range(1, size):
            total = total.add(rows.narrow(axis, k, length), alpha=float(first + k) if moment else 1.0)
        return total

    down = sums(centred, 1, False)
    mean = sums(down, 2, False) / count
    along, across = sums(down, 2, True), sums(sums(centred, 1, True), 2, False)
    variance = sums(sums(centred.square(), 1, False), 2, False) / count - mean.square()
    spread = reach * (reach + 1) / 3.0
    variance = variance - (along.square() + across.square()) / (count ** 2 * spread)
    whole = (variance.clamp(min=0) * (count / (count - 3))).sqrt()
    return F.pad(whole[:, None], (reach, reach, reach, reach), mode="replicate")[:, 0]


def noise_mode(image: Tensor, mask: Tensor) -> Tensor:
    """Mode (B,) of the 7 x 7 local standard deviation about a plane inside `mask`: centre of the densest fifth of its logarithms."""
    std = plane_std(image, 7).clamp(min=_TINY).log()
    quantiles = masked_quantiles(std, mask, [q / 20 for q in range(21)])
    width = quantiles[:, 4:] - quantiles[:, :-4]
    best = width[:, :13].argmin(1, keepdim=True)  # the mode lies below the 80 % quantile: above are edges
    return torch.exp(quantiles.gather(1, best + 2)[:, 0])


def calm_noise(image: Tensor, mask: Tensor) -> Tensor:
    """Noise (B,) in the calmest places inside `mask`: quantile CALM of the local level of the Immerkaer response, which sees the finest
    frequencies alone. Within 7 % of white noise added to real slices; anatomy, which such places hardly show, raises it little."""
    kernel = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], device=image.device, dtype=image.dtype) / 6.0
    fine = F.conv2d(F.pad(image[:, None], (1, 1, 1, 1), mode="reflect"), kernel[None, None])[:, 0]
    return masked_quantile(smooth(fine.square(), 9).clamp(min=0).sqrt(), mask, CALM) / CALM_SHARE


def acquired_noise(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`calm_noise` (B,) on the matrix that each slice was acquired with, and the acquired share of the Nyquist frequency (B,2)."""
    limits = acquired_limits(image)
    found = []
    for one, inside, share in zip(image, mask, limits, strict=True):
        small = on_acquired_matrix(one, share)[None]
        size = (small.shape[1], small.shape[2])
        found.append(calm_noise(small, F.interpolate(inside[None, None].float(), size=size, mode="area")[:, 0] > 0.7)[0])
    return torch.stack(found), limits


def _mad(image: Tensor, mask: Tensor) -> Tensor:
    return masked_quantile(image.abs(), mask, 0.5) / 0.6745


def _haar(image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = image.shape[1] // 2 * 2, image.shape[2] // 2 * 2
    a, b = image[:, 0:height:2, 0:width:2], image[:, 0:height:2, 1:width:2]
    c, d = image[:, 1:height:2, 0:width:2], image[:, 1:height:2, 1:width:2]
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


def _correlations(image: Tensor, mask: Tensor) -> Tensor:
    """Autocorrelation (B, 2 * lags) of the fine residual in the calmer half of tissue."""
    residual = image - smooth(image, 7)
    energy = smooth(residual.square(), 7)
    calm = (mask & (energy <= masked_quantile(energy, mask, 0.5)[:, None, None])).to(image.dtype)
    residual = residual * calm
    variance = residual.square().sum((1, 2)) / calm.sum((1, 2)).clamp(min=1)
    found = []
    for axis in (2, 1):
        for lag in _LAGS:
            n = image.shape[axis]
            one, two = residual.narrow(axis, 0, n - lag), residual.narrow(axis, lag, n - lag)
            count = (calm.narrow(axis, 0, n - lag) * calm.narrow(axis, lag, n - lag)).sum((1, 2))
            found.append((one * two).sum((1, 2)) / count.clamp(min=1) / variance.clamp(min=_TINY ** 2))
    return torch.stack(found, 1).clamp(-1, 1)


def noise_measures(image: Tensor, mask: Tensor) -> Tensor:
    """(B,H,W) in measuring units and its tissue mask -> (B, len(NOISE_NAMES))."""
    five, eleven = local_std(image, 5), local_std(image, 11)
    kernel = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], device=image.device, dtype=image.dtype)
    laplacian = F.conv2d(image[:, None], kernel[None, None], padding=1)[:, 0].abs()
    weight = mask.to(image.dtype)
    immerkaer = math.sqrt(math.pi / 2) / 6 * (laplacian * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    amounts = [noise_mode(image, mask), *masked_quantiles(five, mask, (0.1, 0.5)).unbind(1),
               *masked_quantiles(eleven, mask, (0.1, 0.5)).unbind(1), immerkaer]
    previous = image
    for size in (3, 5, 9, 17):
        softer = smooth(smooth(image, size), size)
        amounts.append(_mad(previous - softer, mask))
        previous = softer
    details: list[list[Tensor]] = [[], [], []]
    low, inside = image, mask
    for _ in range(3):
        low, lh, hl, hh = _haar(low)
        inside = F.max_pool2d(inside[:, None].float(), 2)[:, 0] > 0.5
        for k, band in enumerate((hh, lh, hl)):
            details[k].append(_mad(band, inside[:, : band.shape[1], : band.shape[2]]))
        low = low / 2
    for k in range(3):
        amounts.extend(details[k])
    residual = (image - smooth(image, 5)) * weight
    second = residual.square().sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    fourth = residual.pow(4).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    kurtosis = (fourth / second.square().clamp(min=_TINY)).clamp(min=1).log()
    level = masked_quantile(image, mask, 0.5)[:, None, None]
    hounsfield = bool((level > -300).all() and (level < 300).all())
    air = smooth(image, 9) < (level - 700.0 if hounsfield else 0.1 * level)
    air_std = masked_quantile(five, air, 0.5).clamp(min=0.3).log()
    return torch.cat([torch.stack(amounts, 1).clamp(min=_TINY).log(), _correlations(image, mask), kurtosis[:, None], air_std[:, None],
                      _air(image, air, hounsfield), _by_brightness(image, five, mask)], 1)


def _air(image: Tensor, air: Tensor, has_negatives: bool) -> Tensor:
    """(B,4) logarithms: level of air above its floor; how much its smoothed level varies (ghosts, streaks): 90 % over 10 % quantile; level of
    the air beside the body along either axis over the level of all air, the higher first: ghosts lie along the phase-encode direction."""
    raised = image + 1024.0 if has_negatives else image
    level = masked_quantile(raised, air, 0.5)
    soft = smooth(raised, 9)
    low, high = masked_quantiles(soft, air, (0.1, 0.9)).unbind(1)
    far = highest((~air).to(image.dtype), 11) == 0
    rows = (~air).sum(2, keepdim=True) > 0.15 * image.shape[2]
    columns = (~air).sum(1, keepdim=True) > 0.15 * image.shape[1]
    beside = torch.stack([masked_quantile(soft, far & part, 0.75) for part in (rows & ~columns, columns & ~rows)], 1)
    beside = ((beside + 1.0) / (level[:, None] + 1.0)).clamp(min=1e-2).log().sort(1, descending=True).values
    return torch.cat([torch.stack([level.clamp(min=0.3).log(), ((high + 1.0) / (low + 1.0).clamp(min=0.3)).clamp(min=1e-2).log()], 1), beside], 1)


def _by_brightness(image: Tensor, five: Tensor, mask: Tensor) -> Tensor:
    """(B,3) logarithms of the lower quartile of the local level in the dark, middle and bright third of tissue: Rician noise, bias and
    coils make them differ."""
    calm = smooth(image, 5)
    one, two = masked_quantiles(calm, mask, (1 / 3, 2 / 3)).unbind(1)
    one, two = one[:, None, None], two[:, None, None]
    parts = (mask & (calm <= one), mask & (calm > one) & (calm <= two), mask & (calm > two))
    return torch.stack([masked_quantile(five, part, 0.25).clamp(min=_TINY).log() for part in parts], 1)
