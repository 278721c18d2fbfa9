"""Names and grades degradations from the predicted physics: what is wrong, how much in its unit, how sure."""

from __future__ import annotations

import math

import numpy as np

from qa_engine.assessment import Degradation
from qa_engine.network.mediqa import KINDS
from qa_engine.outcome import Severity
from qa_engine.targets import scale_of

SPREAD = 0.35
"""Standard deviation of the logarithm of a predicted amount on subjects kept out, rounded up: the median errors of noise in
docs/model-card.md are 0.24 and 0.36 as such; makes the probability."""
GRADES = (0.55, 1.0, 2.0)
"""Mild, moderate and severe begin at these multiples of the half-way amount of the axis."""
UNITS = {"CT": ("[hnsf'U]", "mm", "[hnsf'U]"), "MR": ("1", "mm", "1")}
ARTEFACTS = {"CT": ("streak", "ring", "motion"), "MR": ("motion", "ghost", "undersampling", "spike")}
"""Words for the third axis; the side head of the network chooses."""


def severity_of(ratio: float) -> Severity:
    """Grade of an amount over the half-way amount."""
    return (Severity.NONE, Severity.MILD, Severity.MODERATE, Severity.SEVERE)[sum(ratio >= g for g in GRADES)]


def artefact_word(probability: np.ndarray, modality: str) -> str:
    """The likeliest artefact of the modality from the side head's probabilities (len(KINDS),)."""
    return max(ARTEFACTS[modality], key=lambda word: probability[KINDS.index(word)])


def grades(physics: np.ndarray, weight: np.ndarray, modality: str, purpose: str, artefact: str) -> tuple[Degradation, ...]:
    """Of (N,3) physics and (N,) slice weights: degradations that are at least mild, worst first; amounts are weighted geometric means. The
    noise is stated at the reference width; `artefact` names the third axis."""
    scale = scale_of(modality, purpose)
    amounts = np.exp((weight[:, None] * np.log(np.maximum(physics, 1e-9))).sum(0))
    found = []
    for kind, unit, amount, curve in zip(("noise", "blur", artefact), UNITS[modality], amounts, (scale.noise, scale.width, scale.artefact), strict=True):
        ratio = float(amount) / curve.s50
        probability = 0.5 * (1 + math.erf(math.log(ratio / GRADES[0]) / (SPREAD * math.sqrt(2))))
        if severity_of(ratio) is not Severity.NONE:
            found.append((ratio, Degradation(kind, severity_of(ratio), round(probability, 3), round(float(amount), 3), unit)))
    return tuple(d for _, d in sorted(found, key=lambda pair: -pair[0]))
