"""Prediction interval by normalised split conformal calibration, and the verdict taken from it (DESIGN section 6).

The unit of exchange is the patient: one residual per subject whose fold never saw it. With n of them the quantile is the k-th smallest,
k = ceil((n + 1) * 0.9) (Vovk 2005; Lei 2018). Residuals are divided by a spread: what the image leaves open, which is less at the ends of the
scale, plus what the training set leaves open, told by how far two models fitted to the same data differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qa_engine.outcome import Verdict

LEVEL = 0.9


@dataclass(frozen=True)
class Calibration:
    """quantile: points per unit of spread; ends: spread at the ends of the scale over that in its middle; apart: spread per point by which the
    two models differ; subjects: how many stand behind it."""

    quantile: float
    ends: float
    apart: float
    subjects: int

    def parts(self, score: float, disagreement: float) -> tuple[float, float]:
        """Half widths in points: what the image leaves open, what the training set leaves open; their sum is that of the interval."""
        return (float(self.quantile * image_spread(np.array(score), self.ends)), self.quantile * self.apart * disagreement)

    def interval(self, score: float, disagreement: float) -> tuple[float, float]:
        """(low, high) around `score`, cut to 0..100; `disagreement` of the two models in points."""
        half = sum(self.parts(score, disagreement))
        return max(0.0, score - half), min(100.0, score + half)


def image_spread(score: np.ndarray, ends: float) -> np.ndarray:
    """1 in the middle of 0..100, `ends` at its ends."""
    share = np.clip(score, 0.0, 100.0) / 100.0
    return ends + (1.0 - ends) * 4.0 * share * (1.0 - share)


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
