"""How the network's axes stand for physics: standardised logarithms, by modality."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

FARTHEST = 4.0
"""Standard deviations of the ladder beyond which an amount is cut."""


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation (2,3) of the log physics; row 0 CT, row 1 MR."""

    mean: Tensor
    std: Tensor

    def of(self, physics: Tensor, is_mr: Tensor) -> Tensor:
        """(N,3) physics -> standardised logarithms; is_mr (N,)."""
        row = is_mr.long()
        return (physics.log() - self.mean[row]) / self.std[row]

    def physics(self, axes: Tensor, is_mr: Tensor) -> Tensor:
        """The way back; amounts farther than FARTHEST from the ladder's mean are cut."""
        row = is_mr.long()
        return (axes.clamp(-FARTHEST, FARTHEST) * self.std[row] + self.mean[row]).exp()

    def to(self, device: str) -> Standard:
        """The same on a device."""
        return Standard(self.mean.to(device), self.std.to(device))
