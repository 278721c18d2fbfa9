"""Degradations of real or simulated slices, each with a severity in a physical unit, batched, seeded, on CPU or GPU (DESIGN section 9).

`degrade` is the one door; `KINDS` says what each severity means. What needs a stack of slices has a function of its own (`thickness.thicker`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qa_engine.measures.tissue import tissue_signal
from qa_engine.simulation.degradations import blur as _blur
from qa_engine.simulation.degradations import (
    ct_dose,
    ct_hardening,
    ct_kernel,
    ct_metal,
    ct_motion,
    ct_noise,
    ct_rings,
    ct_streaks,
    mr_bias,
    mr_ghosts,
    mr_gibbs,
    mr_motion,
    mr_noise,
    mr_spike,
    mr_undersampling,
    mr_wrap,
    pet_counts,
)
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage

__all__ = ["KINDS", "AddedDamage", "degrade"]

Degradation = Callable[[Tensor, Tensor, Tensor, torch.Generator, str], tuple[Tensor, AddedDamage]]


def _identity(image: Tensor, spacing_mm: Tensor, severity: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Nothing, through the same last link as all others."""
    return finish(image, image.clone(), modality), AddedDamage.none(tissue_signal(image, modality))


_TABLE: dict[tuple[str, str], Degradation] = {
    ("CT", "identity"): _identity, ("MR", "identity"): _identity,
    ("CT", "noise"): ct_noise.noise, ("CT", "blur"): _blur.blur, ("CT", "streak"): ct_streaks.streaks,
    ("CT", "dose"): ct_dose.dose, ("CT", "ring"): ct_rings.rings, ("CT", "motion"): ct_motion.motion,
    ("CT", "metal"): ct_metal.metal, ("CT", "cupping"): ct_hardening.cupping,
    ("CT", "kernel"): ct_kernel.kernel, ("PT", "identity"): _identity, ("PT", "counts"): pet_counts.counts,
    ("MR", "noise"): mr_noise.noise, ("MR", "blur"): _blur.blur, ("MR", "motion"): mr_motion.motion,
    ("MR", "coils"): mr_noise.coils, ("MR", "lowfield"): mr_noise.low_field, ("MR", "ghost"): mr_ghosts.ghosts,
    ("MR", "undersampling"): mr_undersampling.undersampling, ("MR", "wrap"): mr_wrap.wrap, ("MR", "spike"): mr_spike.spike,
    ("MR", "gibbs"): mr_gibbs.gibbs, ("MR", "bias"): mr_bias.bias,
}

KINDS: dict[tuple[str, str], str] = {
    ("CT", "noise"): "standard deviation inside tissue, HU", ("CT", "blur"): "full width at half maximum, mm",
    ("CT", "streak"): "root mean square inside tissue, HU", ("CT", "dose"): "share of the dose",
    ("CT", "ring"): "root mean square inside tissue, HU", ("CT", "motion"): "root mean square error inside tissue, HU",
    ("CT", "metal"): "root mean square inside tissue, HU", ("CT", "cupping"): "root mean square inside tissue, HU",
    ("CT", "kernel"): "ratio of the frequencies of half transfer, above 1 sharper",
    ("MR", "noise"): "standard deviation per channel over tissue signal",
    ("MR", "blur"): "full width at half maximum, mm", ("MR", "motion"): "root mean square error over tissue signal",
    ("MR", "coils"): "standard deviation per channel over tissue signal", ("MR", "lowfield"): "share of the field strength",
    ("MR", "ghost"): "ghost over signal", ("MR", "undersampling"): "root mean square error over tissue signal",
    ("MR", "wrap"): "share of the object that folds in", ("MR", "spike"): "share of the largest k-space magnitude",
    ("MR", "gibbs"): "share of k-space kept along each axis", ("MR", "bias"): "largest over smallest value of the field",
    ("PT", "counts"): "factor by which the counts are fewer",
}
"""(modality, kind) -> unit of the severity."""


def degrade(kind: str, image: Tensor, spacing_mm: Tensor, severity: Tensor, generator: torch.Generator,
            modality: str) -> tuple[Tensor, AddedDamage]:
    """Degrade (B,H,W) float32 (HU, stored MR signal or PET activity) with pixel spacing (B,2) mm by `severity` (B,) in the unit of KINDS.

    Returns the degraded batch and what was truly added. Raises ValueError for a kind that the modality does not have.
    """
    found = _TABLE.get((modality, kind))
    if found is None:
        raise ValueError(f"no degradation {kind} for {modality}; there are {', '.join(k for m, k in _TABLE if m == modality)}")
    return found(image, spacing_mm, severity, generator, modality)
