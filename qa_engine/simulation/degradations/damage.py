"""What a degradation truly did, in physical units: the truth that training and benchmarks learn from."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class AddedDamage:
    """Damage added to a batch of slices; every field is (B,) float32 on the image's device.

    Amounts of successive degradations add in quadrature (`then`). Noise that a later blur hides still counts.
    """

    noise_sd: Tensor
    """Standard deviation of the added noise inside tissue, HU or stored signal units."""
    width_mm: Tensor
    """Full width at half maximum of the added point spread, mm."""
    artefact: Tensor
    """Root mean square of the added structured error inside tissue, HU or stored signal units."""
    signal: Tensor
    """Tissue signal level (median inside tissue) of the image before the damage; 1000 (HU, water above air) for CT."""
    bias: Tensor
    """Largest over smallest value of the added bias field inside the body, 1 = none; outside the score."""

    @classmethod
    def none(cls, signal: Tensor) -> AddedDamage:
        """No damage; `signal` (B,) gives size, type and device."""
        zero = torch.zeros_like(signal)
        return cls(zero, zero.clone(), zero.clone(), signal, torch.ones_like(signal))

    def then(self, later: AddedDamage) -> AddedDamage:
        """Damage of this degradation followed by `later`: quadrature sums (of the logarithm of the bias), the first image's signal level."""
        return AddedDamage(
            noise_sd=torch.hypot(self.noise_sd, later.noise_sd),
            width_mm=torch.hypot(self.width_mm, later.width_mm),
            artefact=torch.hypot(self.artefact, later.artefact),
            signal=self.signal,
            bias=torch.exp(torch.hypot(self.bias.log(), later.bias.log())),
        )

    def numpy(self) -> dict[str, list[float]]:
        """Field name -> list of B floats, for labels kept on disk."""
        return {f.name: getattr(self, f.name).detach().cpu().tolist() for f in fields(self)}
