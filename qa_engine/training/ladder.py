"""The ladder: versions of each slice with known damage, their views, measures and physics, kept in one cache file per modality.

Severities are what the image shows (HU, share of signal, mm of width), log-uniform; identity passes the same chain. The source's own
physics come from measures; totals add in quadrature (docs/model-card.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qa_engine.measures import MEASURE_NAMES, measure_slices, normalised
from qa_engine.measures.edges import edge_widths
from qa_engine.measures.noise import noise_mode
from qa_engine.network.views import slice_views
from qa_engine.simulation.degradations import AddedDamage, degrade
from qa_engine.simulation.degradations.tissue import smooth
from qa_engine.targets import FLOOR, purpose_of
from qa_engine.training.dataset import TrainingSeries

Step = tuple[str, float, float]
"""Kind and range of the severity; noise of CT as a multiple of the slice's own noise (at least 6 HU)."""
LADDERS: dict[str, tuple[tuple[Step, ...], ...]] = {
    "CT": ((), (("noise", 0.5, 1.0),), (("noise", 1.3, 2.6),), (("noise", 2.6, 6.0),), (("blur", 0.8, 1.4),), (("blur", 1.6, 2.6),),
           (("blur", 2.6, 4.5),), (("streak", 8.0, 16.0),), (("streak", 20.0, 50.0),), (("noise", 0.7, 3.0), ("blur", 0.8, 3.0))),
    "MR": ((), (("noise", 0.015, 0.03),), (("noise", 0.04, 0.08),), (("noise", 0.1, 0.22),), (("blur", 0.7, 1.3),), (("blur", 1.5, 2.4),),
           (("blur", 2.4, 4.0),), (("motion", 0.02, 0.04),), (("motion", 0.05, 0.1),), (("motion", 0.1, 0.25),),
           (("noise", 0.02, 0.1), ("motion", 0.03, 0.12))),
}
SMALLEST = 64
"""Slices with fewer pixels a side are left out."""
REFERENCE_MM = 0.9
"""MR noise is stated at this pixel or coarser: what finer pixels show beyond it disappears when they are averaged."""
INTERPOLATED_SHARE = 0.34
LARGEST_INTERPOLATED = 400
"""Share of MR slices of at most so many pixels a side that are zero-filled to twice the matrix after the damage, as scanners do."""


@dataclass(frozen=True, eq=False)
class Version:
    """One version of one slice. physics: noise (HU, or share of signal), width (mm), artefact (HU, or share of signal)."""

    series: str
    subject: str
    source: str
    region: str
    contrast: str
    purpose: str
    place: int
    rung: int
    physics: np.ndarray
    measures: np.ndarray
    views: np.ndarray


def source_physics(image: Tensor, spacing_mm: Tensor, modality: str) -> np.ndarray:
    """(B,3) noise, width, artefact of slices as received, from measures.

    Noise: 7 x 7 mode in tissue x 0.85 (CT); finest diagonal wavelet, of MR with pixels finer than REFERENCE_MM after averaging to them.
    """
    unit, mask, _ = normalised(image, modality)
    width = edge_widths(smooth(unit, 3), spacing_mm, (0.25,))[:, 0]
    # the 3 x 3 mean that keeps noise out of the slopes widens the edge itself: its own width is taken off in quadrature
    extra = 3 * spacing_mm.mean(1)
    width = (width.square() - (0.55 * extra).square()).clamp(min=0.09).sqrt()
    if modality == "CT":
        noise = 0.85 * noise_mode(unit, mask)
    else:
        coarse = averaged_to_reference(image, spacing_mm)
        measures = measure_slices(coarse, spacing_mm * image.shape[1] / coarse.shape[1], modality)
        noise = measures[:, MEASURE_NAMES.index("hh1")].exp() / 1000.0
    return torch.stack([noise, width, torch.zeros_like(noise)], 1).numpy()


def reference_factor(spacing_mm: Tensor) -> float:
    """What averaging to pixels of REFERENCE_MM leaves of white noise: pixel over REFERENCE_MM, at most 1."""
    return min(1.0, float(spacing_mm[0].prod().sqrt()) / REFERENCE_MM)


def averaged_to_reference(image: Tensor, spacing_mm: Tensor) -> Tensor:
    """(B,H,W) of one spacing, averaged to pixels of REFERENCE_MM where they are finer, but to no fewer than SMALLEST a side."""
    factor = max(reference_factor(spacing_mm), SMALLEST / min(image.shape[1:]))
    if factor >= 1.0:
        return image
    size = [round(side * factor) for side in image.shape[1:]]
    return F.interpolate(image[:, None], size=size, mode="area")[:, 0]


def zero_filled(image: Tensor) -> Tensor:
    """(B,H,W) magnitude images on twice the matrix, as scanners interpolate: k-space padded with zeros."""
    height, width = image.shape[1:]
    k = torch.fft.fftshift(torch.fft.fft2(image), dim=(1, 2))
    k = F.pad(k, ((width + 1) // 2, width // 2, (height + 1) // 2, height // 2))
    return 4.0 * torch.fft.ifft2(torch.fft.ifftshift(k, dim=(1, 2))).real.clamp(min=0)


def total_physics(source: np.ndarray, damage: AddedDamage, modality: str, spacing_mm: Tensor) -> np.ndarray:
    """(B,3) physics of the degraded slices: source and added damage in quadrature, in the source's units.

    Noise that a later blur hides still counts: smoothing is no improvement, and the score must not call it one.
    """
    relative = 1.0 if modality == "CT" else 1.0 / damage.signal.numpy()
    added = 1.0 if modality == "CT" else reference_factor(spacing_mm)
    noise = np.hypot(source[:, 0], damage.noise_sd.numpy() * relative * added)
    width = np.hypot(source[:, 1], damage.width_mm.numpy())
    artefact = np.hypot(source[:, 2], damage.artefact.numpy() * relative)
    return np.maximum(np.stack([noise, width, artefact], 1), FLOOR[modality])


def _seed(*words: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:7], "big")


def apply_rung(image: Tensor, spacing_mm: Tensor, rung: tuple[Step, ...], own_noise: Tensor, generator: torch.Generator,
               modality: str) -> tuple[Tensor, AddedDamage]:
    """Degrade (B,H,W) by the steps of one rung, severities drawn log-uniformly from `generator`."""
    result, damage = degrade("identity", image, spacing_mm, torch.zeros(len(image)), generator, modality)
    for kind, low, high in rung:
        draw = torch.rand(len(image), generator=generator)
        severity = low * (high / low) ** draw
        if kind == "noise" and modality == "CT":
            severity = severity * own_noise.clamp(min=6.0)
        result, added = degrade(kind, result, spacing_mm, severity, generator, modality)
        damage = damage.then(added)
    return result, damage


def versions(series: list[TrainingSeries], slices_per_series: int, seed: int = 0,
             progress: Callable[[int, int], None] | None = None) -> Iterator[Version]:
    """All versions of up to `slices_per_series` slices of each series, rung by rung."""
    for number, one in enumerate(series):
        if progress is not None:
            progress(number, len(series))
        chosen = np.unique(np.linspace(0, len(one.pixels) - 1, min(slices_per_series, len(one.pixels))).round().astype(int))
        purpose = purpose_of(one.modality, one.kernel)
        for place in chosen:
            image = torch.from_numpy(one.pixels[place])[None]
            if min(image.shape[1:]) < SMALLEST or float(image.std()) == 0.0:
                continue
            spacing = torch.tensor([one.spacing_mm])
            source = source_physics(image, spacing, one.modality)
            interpolated = (one.modality == "MR" and max(image.shape[1:]) <= LARGEST_INTERPOLATED
                            and _seed(seed, one.name, place, "interpolated") % 100 < 100 * INTERPOLATED_SHARE)
            for rung, steps in enumerate(LADDERS[one.modality]):
                generator = torch.Generator().manual_seed(_seed(seed, one.name, place, rung))
                changed, damage = apply_rung(image, spacing, steps, torch.from_numpy(source[:, 0]), generator, one.modality)
                physics = total_physics(source, damage, one.modality, spacing)[0]
                if interpolated:
                    changed = zero_filled(changed)
                yield Version(one.name, one.subject, one.source, one.region, one.contrast, purpose, int(place), rung, physics,
                              measure_slices(changed, spacing / (1 + interpolated), one.modality)[0].numpy(),
                              slice_views(changed[0], one.modality).numpy().astype(np.float16))


def save(found: list[Version], path: Path, modality: str) -> None:
    """One uncompressed file: arrays by name. It holds pixels of real scans and stays outside the repository."""
    texts = {name: np.array([getattr(v, name) for v in found]) for name in ("series", "subject", "source", "region", "contrast", "purpose")}
    numbers = {name: np.stack([getattr(v, name) for v in found]) for name in ("place", "rung", "physics", "measures", "views")}
    part = path.with_suffix(".part.npz")
    np.savez(part, modality=np.array(modality), **texts, **numbers)
    part.rename(path)
