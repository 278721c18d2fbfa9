"""What MR artefacts share: a complex object behind a magnitude image, and the lines of k-space along one of two axes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lines:
    """Number of each k-space line along the phase-encode axis of each slice, in the order of fft: (B,H,W) and how many there are, (B,1,1)."""

    number: Tensor
    count: Tensor
    rows: Tensor
    """(B,1,1) whether the lines are rows: phase runs down the columns."""

    @classmethod
    def drawn(cls, image: Tensor, generator: torch.Generator) -> Lines:
        """Rows or columns at random, slice by slice of (B,H,W)."""
        batch, height, width = image.shape
        rows = torch.rand((batch, 1, 1), generator=generator, device=image.device) < 0.5
        down = (torch.fft.fftfreq(height, device=image.device) * height).round()[None, :, None]
        across = (torch.fft.fftfreq(width, device=image.device) * width).round()[None, None, :]
        return cls(torch.where(rows, down.expand(1, height, width), across.expand(1, height, width)),
                   torch.where(rows, float(height), float(width)), rows)

    def shift(self, pixels: Tensor) -> Tensor:
        """Factor (B,H,W) on k-space that moves the object by `pixels` (B,1,1) along the phase-encode axis."""
        return torch.exp(-2j * torch.pi * self.number * pixels / self.count)


def base(image: Tensor) -> Tensor:
    """(B,1,1) what is taken off so that no pixel is negative."""
    return image.amin((1, 2), keepdim=True).clamp(max=0.0)


def complex_object(image: Tensor, generator: torch.Generator) -> Tensor:
    """(B,H,W) complex: the magnitude image with a smooth random phase, as coils and field give it; its magnitude is image - base(image)."""
    batch, height, width = image.shape
    y = torch.linspace(-1, 1, height, device=image.device)[None, :, None]
    x = torch.linspace(-1, 1, width, device=image.device)[None, None, :]
    c = torch.randn((6, batch, 1, 1), generator=generator, device=image.device, dtype=image.dtype)
    phase = torch.pi * c[0] + 1.2 * (c[1] * y + c[2] * x) + 0.8 * (c[3] * y * y + c[4] * x * x + c[5] * x * y)
    return torch.polar(image - base(image), phase)
