"""Fast parallel-beam projection and its adjoint by the Fourier slice theorem, on a Kaiser-Bessel grid (O'Sullivan 1985; Beatty 2005).

A view is kept as the spectrum of its samples about the rotation centre, (B, views, L//2+1) complex: shifts are phases, kernels are factors.
Lengths are in pixels of the grid. Ten times as fast as `ct_projection` at the sizes used here, which is exact and serves as its check.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.simulation.ct_projection import transfer

_TAPS, _FINER = 4, 2
_BETA = math.pi * math.sqrt((_TAPS / _FINER * (_FINER - 0.5)) ** 2 - 0.8)


class Rays:
    """Geometry of `views` over half a turn, `length` samples each (an even number of pixels), of images `size` pixels a side."""

    def __init__(self, size: int, views: int, length: int, device: str) -> None:
        self.size, self.views, self.length, self.grid = size, views, length, _FINER * size
        count = length // 2 + 1
        theta = torch.arange(views, device=device, dtype=torch.float32) * (math.pi / views)
        radius = torch.arange(count, device=device, dtype=torch.float32) / length  # cycles per pixel
        places = [(radius[None] * direction[:, None] * self.grid).reshape(-1) for direction in (torch.sin(theta), torch.cos(theta))]
        firsts = [(p - _TAPS / 2).ceil() for p in places]
        self.cells, self.weights = [], []
        for dy in range(_TAPS):
            for dx in range(_TAPS):
                y, x = firsts[0] + dy, firsts[1] + dx
                self.cells.append((y.long() % self.grid) * self.grid + x.long() % self.grid)
                self.weights.append(_bell(places[0] - y) * _bell(places[1] - x))
        axis = (torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2) / self.grid
        root = (_BETA ** 2 - (math.pi * _TAPS * axis).square()).sqrt()
        fall = root / torch.sinh(root)
        self.apodisation = fall[:, None] * fall[None]
        # pixel centres lie half a pixel beside the middle of an even grid
        half = torch.exp(-1j * math.pi * (size - 1) * torch.fft.fftfreq(self.grid, device=device))
        self.turn = half[:, None] * half[None]
        self.doubled = torch.full((count,), 2.0, device=device)
        self.doubled[0] = 1.0
        self.doubled[-1] = 1.0

    def project(self, image: Tensor) -> Tensor:
        """Spectra (B, views, L//2+1) of the line integrals of (B,size,size)."""
        batch = len(image)
        spectrum = torch.fft.fft2(image * self.apodisation, s=(self.grid, self.grid)) * self.turn.conj()
        flat = spectrum.reshape(batch, -1)
        found = flat.new_zeros(batch, self.views * (self.length // 2 + 1))
        for cells, weights in zip(self.cells, self.weights, strict=True):
            found += flat[:, cells] * weights
        return found.reshape(batch, self.views, -1)

    def back_project(self, spectra: Tensor) -> Tensor:
        """Image (B,size,size): mean over the views of what `spectra` say, times pi (with a ramp: filtered back-projection)."""
        batch = len(spectra)
        values = (spectra * self.doubled).reshape(batch, -1)
        flat = values.new_zeros(batch, self.grid * self.grid)
        for cells, weights in zip(self.cells, self.weights, strict=True):
            flat.index_add_(1, cells, values * weights)
        image = torch.fft.ifft2(flat.reshape(batch, self.grid, self.grid) * self.turn).real[:, :self.size, :self.size]
        return image * self.apodisation * (self.grid ** 2 * math.pi / (self.views * self.length))

    def samples(self, spectra: Tensor) -> Tensor:
        """Projections (B, views, L) of their spectra; sample j lies at j - (L - 1) / 2 pixels."""
        return torch.fft.irfft(spectra * self._start.conj(), n=self.length)

    def spectra(self, samples: Tensor) -> Tensor:
        """Spectra of projections (B, views, L)."""
        return torch.fft.rfft(samples) * self._start

    @functools.cached_property
    def _start(self) -> Tensor:
        count = torch.arange(self.length // 2 + 1, device=self.doubled.device)
        start = torch.exp(1j * math.pi * (self.length - 1) / self.length * count)
        start[-1] = start[-1].real + 0j  # the Nyquist sample is real
        return start

    def ramp(self, kernel: str = "hann", cutoff: float = 1.0) -> Tensor:
        """Filter (L//2+1,) of filtered back-projection."""
        return transfer(self.length, kernel, cutoff).to(self.doubled)


def _bell(distance: Tensor) -> Tensor:
    """Kaiser-Bessel kernel over _TAPS grid cells; its transform is sinh(root)/root."""
    return torch.special.i0(_BETA * (1 - (2 * distance / _TAPS).square()).clamp(min=0).sqrt()) / _TAPS


@functools.lru_cache(maxsize=6)
def rays(size: int, views: int, length: int, device: str) -> Rays:
    """The geometry, kept."""
    return Rays(size, views, length, device)


def to_grid(image: Tensor, size: int) -> Tensor:
    """(B,H,W) HU -> (B,size,size) relative to water (air 0), the longer side filling the grid."""
    height, width = image.shape[1:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = F.pad(image.clamp(-1000, 3000) / 1000.0 + 1.0, (left, side - width - left, top, side - height - top))
    return F.interpolate(square[:, None], size=(size, size), mode="area")[:, 0]


def from_grid(square: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B,size,size) -> (B,H,W): the inverse of `to_grid`'s geometry, smooth in between."""
    height, width = shape
    side = max(height, width)
    large = F.interpolate(square[:, None], size=(side, side), mode="bicubic", align_corners=False)[:, 0]
    top, left = (side - height) // 2, (side - width) // 2
    return large[:, top:top + height, left:left + width]
