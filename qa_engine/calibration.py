"""Prediction interval by split conformal calibration, and the verdict taken from it (DESIGN section 6).

The unit of exchange is the patient: one residual per subject that was kept out of the fit. With n of them the half width is the k-th
smallest, k = ceil((n + 1) * 0.9) (Vovk 2005; Lei 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qa_engine.outcome import Verdict

LEVEL = 0.9


@dataclass(frozen=True)
class Calibration:
    """Half width of the interval in points, and the number of subjects behind it."""

    half_width: float
    subjects: int

    def interval(self, score: float) -> tuple[float, float]:
        """(low, high) around `score`, cut to 0..100."""
        return max(0.0, score - self.half_width), min(100.0, score + self.half_width)


def conformal_half_width(residuals: Sequence[float], level: float = LEVEL) -> float:
    """k-th smallest absolute residual, one per subject; infinite when there are too few subjects for the level."""
    ordered = sorted(abs(r) for r in residuals)
    rank = math.ceil((len(ordered) + 1) * level)
    return ordered[rank - 1] if rank <= len(ordered) else math.inf


def verdict(interval: tuple[float, float], reject_below: float, good_from: float) -> Verdict:
    """Good when the lower end is at or above `good_from`, Reject when the upper end is below `reject_below`, otherwise Usable."""
    low, high = interval
    if low >= good_from:
        return Verdict.GOOD
    if high < reject_below:
        return Verdict.REJECT
    return Verdict.USABLE
