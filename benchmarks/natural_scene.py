"""Natural scene statistics: the 36 features of BRISQUE (Mittal 2012) of a slice, and of its patches for NIQE (Mittal 2013).

Locally normalised pixels of sound pictures follow a generalised Gaussian, products of neighbours an asymmetric one; damage changes both.
Slices come in 0..1 by a fixed window and are worked on in 0..255, as published.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = 36
PATCH = 64
SHARP = 0.75
"""Patches whose mean local deviation is below this share of the largest are flat and say nothing (NIQE)."""
_SHAPES = torch.arange(0.2, 10.0, 0.001, dtype=torch.float64)
_GGD = (torch.lgamma(1 / _SHAPES) + torch.lgamma(3 / _SHAPES) - 2 * torch.lgamma(2 / _SHAPES)).exp()
_AGGD = 1 / _GGD
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


def normalised_pixels(image: Tensor) -> tuple[Tensor, Tensor]:
    """(H,W) in 0..255 -> mean-subtracted contrast-normalised pixels (H,W) and the local deviation (H,W), 7 x 7 Gaussian of 7/6 pixels."""
    x = torch.arange(7, dtype=image.dtype) - 3
    line = torch.exp(-x.square() / (2 * (7 / 6) ** 2))
    line = line / line.sum()

    def blur(one: Tensor) -> Tensor:
        one = F.pad(one[None, None], (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(one, line[None, None, :, None]), line[None, None, None])[0, 0]

    mean = blur(image)
    deviation = (blur(image * image) - mean.square()).clamp(min=0).sqrt()
    return (image - mean) / (deviation + 1), deviation


def _moments(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(-1) / weight.sum(-1).clamp(min=1)


def gaussian_fit(pixels: Tensor) -> Tensor:
    """(P,n) -> (P,2) shape and variance of a generalised Gaussian, by moments."""
    second, first = pixels.square().mean(-1).double(), pixels.abs().mean(-1).double()
    rho = second / first.square().clamp(min=1e-12)
    place = torch.searchsorted(-_GGD, -rho).clamp(max=len(_SHAPES) - 1)
    return torch.stack([_SHAPES[place], second], -1)


def asymmetric_fit(products: Tensor) -> Tensor:
    """(P,n) -> (P,4) shape, mean, left and right variance of an asymmetric generalised Gaussian, by moments."""
    left, right = products < 0, products > 0
    square = products.square().double()
    sigma_left, sigma_right = _moments(square, left.double()).sqrt(), _moments(square, right.double()).sqrt()
    gamma = (sigma_left + 1e-9) / (sigma_right + 1e-9)
    ratio = products.abs().mean(-1).double().square() / square.mean(-1).clamp(min=1e-12)
    ratio = ratio * (gamma.pow(3) + 1) * (gamma + 1) / (gamma.square() + 1).square()
    place = torch.searchsorted(_AGGD, ratio).clamp(max=len(_SHAPES) - 1)
    shape = _SHAPES[place]
    scale = (torch.lgamma(2 / shape) - (torch.lgamma(1 / shape) + torch.lgamma(3 / shape)) / 2).exp()
    return torch.stack([shape, (sigma_right - sigma_left) * scale, sigma_left.square(), sigma_right.square()], -1)


def _statistics(patches: Tensor) -> Tensor:
    """(P,h,w) normalised pixels -> (P,18)."""
    found = [gaussian_fit(patches.flatten(1))]
    for down, right in _SHIFTS:
        a = patches[:, : patches.shape[1] - down]
        b = patches[:, down:]
        a, b = (a[:, :, -right:], b[:, :, :right]) if right < 0 else (a[:, :, : a.shape[2] - right], b[:, :, right:])
        found.append(asymmetric_fit((a * b).flatten(1)))
    return torch.cat(found, 1)


def _halved(image: Tensor) -> Tensor:
    return F.interpolate(image[None, None], scale_factor=0.5, mode="bicubic", antialias=True)[0, 0]


def brisque(image: Tensor) -> Tensor:
    """(H,W) in 0..1 -> (36,): 18 statistics at full and at half size."""
    found = []
    for one in (255.0 * image, _halved(255.0 * image)):
        found.append(_statistics(normalised_pixels(one)[0][None])[0])
    return torch.cat(found).float()


def _tiled(image: Tensor, side: int, rows: int, columns: int) -> Tensor:
    return image[: rows * side, : columns * side].unfold(0, side, side).unfold(1, side, side).reshape(-1, side, side)


def niqe_patches(image: Tensor) -> Tensor:
    """(H,W) in 0..1, at least PATCH a side -> (P,36) statistics of its sharp patches, at least one."""
    rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
    full, deviation = normalised_pixels(255.0 * image)
    half, _ = normalised_pixels(_halved(255.0 * image))
    sharp = _tiled(deviation, PATCH, rows, columns).mean((1, 2))
    chosen = sharp >= SHARP * sharp.max()
    both = [_statistics(_tiled(one, side, rows, columns)[chosen]) for one, side in ((full, PATCH), (half, PATCH // 2))]
    return torch.cat(both, 1).float()


def niqe_distance(patches: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """Distance of the patches (P,36) of one slice from the Gaussian of sound patches; larger is worse."""
    own = patches.double()
    spread = torch.cov(own.T) if len(own) > 1 else torch.zeros_like(covariance)
    apart = own.mean(0) - mean
    return math.sqrt(max(0.0, float(apart @ torch.linalg.pinv((spread + covariance) / 2, hermitian=True) @ apart)))
