"""From physics to points: falling curves that turn noise, width and artefact of the image as received into axes and Q (0 to 100).

Each axis is 100 / (1 + (s / s50)^p), s the total of source and added damage in quadrature; s50 and p of soft tissue and MR were fitted to
full-reference similarity of single degradations (noise, artefact), those of width, lung and bone are our choice: our width is the total
width, and a sharp kernel is meant to be noisy and to resolve more. Q is the product of the three curves, stretched so that the best and
the worst of the training ladder span the scale. An MR artefact below 2 % of the signal cannot be told from texture, so it counts as none. A
change of taste needs no training: the network predicts the physics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

AXES = ("noise", "sharpness", "artefact")


@dataclass(frozen=True)
class Curve:
    """Half-way amount `s50` (unit of the axis), steepness `p`, and the amount `texture` that sound images may show as well."""

    s50: float
    p: float
    texture: float = 0.0

    def __call__(self, amount: np.ndarray) -> np.ndarray:
        """1 at no damage beyond texture, 0.5 at s50 beyond it (in quadrature), towards 0."""
        beyond = np.sqrt(np.maximum(np.square(np.maximum(amount, 0.0)) - self.texture ** 2, 0.0))
        return 1.0 / (1.0 + (beyond / self.s50) ** self.p)


@dataclass(frozen=True)
class Scale:
    """Curves for noise (HU; MR: share of tissue signal), width (mm), artefact (HU; MR: share); `low` and `high` of their product."""

    noise: Curve
    width: Curve
    artefact: Curve
    low: float
    high: float


SCALES: Mapping[tuple[str, str], Scale] = {
    ("CT", "soft tissue"): Scale(Curve(25.1, 1.31), Curve(2.6, 2.21), Curve(21.9, 1.38), 0.02, 0.62),
    ("CT", "lung"): Scale(Curve(60.0, 1.31), Curve(2.0, 2.21), Curve(40.0, 1.38), 0.02, 0.62),
    ("CT", "bone"): Scale(Curve(90.0, 1.31), Curve(1.9, 2.21), Curve(50.0, 1.38), 0.02, 0.62),
    ("MR", ""): Scale(Curve(0.047, 1.75), Curve(2.4, 1.56), Curve(0.051, 1.63, texture=0.02), 0.02, 0.80),
}
FLOOR = {"CT": (1.0, 0.3, 2.0), "MR": (0.002, 0.2, 0.02)}
"""Smallest noise, width and artefact that the network distinguishes; logarithms are taken above it."""


def scale_of(modality: str, purpose: str) -> Scale:
    """The scale in force; soft tissue when the purpose is unknown."""
    return SCALES.get((modality, purpose)) or SCALES[(modality, "soft tissue" if modality == "CT" else "")]


def axes_of(physics: np.ndarray, modality: str, purpose: str) -> np.ndarray:
    """(N,3) noise, width, artefact -> (N,3) points 0..100, higher is better."""
    scale = scale_of(modality, purpose)
    return 100.0 * np.stack([scale.noise(physics[:, 0]), scale.width(physics[:, 1]), scale.artefact(physics[:, 2])], 1)


def quality_of(physics: np.ndarray, modality: str, purpose: str) -> np.ndarray:
    """(N,3) noise, width, artefact -> (N,) Q in 0..100."""
    scale = scale_of(modality, purpose)
    product = np.prod(axes_of(physics, modality, purpose) / 100.0, axis=1)
    return 100.0 * np.clip((product - scale.low) / (scale.high - scale.low), 0.0, 1.0)


_LUNG = ("lung", "b60", "b70", "b80", "br59", "bl5", "bl6", "fc5", "l ", "yb", "yc")
_BONE = ("bone", "edge", "h60", "h70", "hr6", "hr7", "u90", "ya", "yd", "fc3", "fc8")


def purpose_of(modality: str, kernel: str, text: str = "") -> str:
    """soft tissue, lung or bone for CT from Convolution Kernel and series words; "" for others. A bone kernel is not judged as soft."""
    if modality != "CT":
        return ""
    kernel, text = kernel.strip().lower(), text.lower()
    if any(kernel.startswith(word) or (len(word) > 3 and word in kernel) for word in _BONE):
        return "bone"
    if any(kernel.startswith(word) or (len(word) > 3 and word in kernel) for word in _LUNG) or "lung" in text:
        return "lung"
    return "soft tissue"
