"""The ladder: versions of each slice with known damage, their views, measures and physics, kept in one cache file per modality.

Severities are what the image shows (HU, share of signal, mm of width), log-uniform; identity passes the same chain. The source's own
physics come from measures; totals add in quadrature (docs/model-card.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qa_engine.measures import measure, normalised
from qa_engine.measures.acquired import acquired_limits
from qa_engine.measures.physics import physics_of, reference_factor
from qa_engine.network.views import slice_views
from qa_engine.simulation.degradations import AddedDamage, degrade
from qa_engine.targets import FLOOR, purpose_of
from qa_engine.training.dataset import TrainingSeries
from qa_engine.training.parameters import vector

Step = tuple[str, float, float]
"""Kind and range of the severity; noise of CT as a multiple of the slice's own noise (at least 6 HU), of MR as stated at REFERENCE_MM."""
LADDERS: dict[str, tuple[tuple[Step, ...], ...]] = {
    "CT": ((), (("noise", 0.5, 1.0),), (("noise", 1.3, 2.6),), (("noise", 2.6, 6.0),), (("blur", 0.8, 1.4),), (("blur", 1.6, 2.6),),
           (("blur", 2.6, 4.5),), (("streak", 8.0, 16.0),), (("streak", 20.0, 50.0),), (("noise", 0.7, 3.0), ("blur", 0.8, 3.0))),
    "MR": ((), (("noise", 0.015, 0.03),), (("noise", 0.04, 0.08),), (("noise", 0.1, 0.22),), (("blur", 0.7, 1.3),), (("blur", 1.5, 2.4),),
           (("blur", 2.4, 4.0),), (("motion", 0.02, 0.04),), (("motion", 0.05, 0.1),), (("motion", 0.1, 0.25),),
           (("noise", 0.02, 0.1), ("motion", 0.03, 0.12))),
}
SMALLEST = 64
"""Slices with fewer pixels a side are left out."""
STRONGEST_NOISE = {"CT": 400.0, "MR": 0.5}
INTERPOLATED_SHARE = 0.34
LARGEST_INTERPOLATED = 400
"""Share of MR slices of at most so many pixels a side that are zero-filled to twice the matrix after the damage, as scanners do."""
GROWN_SHARE, GROWN_LOG = 0.5, (-0.5, 0.5)
"""Share of MR slices that are given another pixel size, and the range of the logarithm of the factor."""


@dataclass(frozen=True, eq=False)
class Version:
    """One version of one slice. physics: noise (HU, or share of signal), width (mm), artefact (HU, or share of signal). image: the degraded
    slice (H,W) float32 in HU or stored signal, only where asked for; spacing_mm: its pixel (row, column). These two are not saved."""

    series: str
    subject: str
    source: str
    region: str
    contrast: str
    purpose: str
    place: int
    draw: int
    rung: int
    physics: np.ndarray
    measures: np.ndarray
    views: np.ndarray
    spacing_mm: tuple[float, float]
    image: np.ndarray | None = None
    parameters: np.ndarray = field(default_factory=lambda: vector({}, clean=True))
    """`training.parameters` of the scan."""


def clean_physics(image: Tensor, spacing_mm: Tensor, modality: str) -> np.ndarray:
    """(B,3) noise, width, artefact of slices as received: the estimates of `measures.physics`, no artefact."""
    unit, mask, _ = normalised(image, modality)
    found = physics_of(unit, mask, spacing_mm, modality)
    return torch.stack([found.stated, found.width, torch.zeros_like(found.width)], 1).numpy()


def zero_filled(image: Tensor) -> Tensor:
    """(B,H,W) magnitude images on twice the matrix, as scanners interpolate: k-space padded with zeros."""
    height, width = image.shape[1:]
    k = torch.fft.fftshift(torch.fft.fft2(image), dim=(1, 2))
    k = F.pad(k, ((width + 1) // 2, width // 2, (height + 1) // 2, height // 2))
    return 4.0 * torch.fft.ifft2(torch.fft.ifftshift(k, dim=(1, 2))).real.clamp(min=0)


def total_physics(source: np.ndarray, damage: AddedDamage, modality: str, factor: np.ndarray) -> np.ndarray:
    """(B,3) physics of the degraded slices: source and added damage in quadrature, in the source's units; `factor` (B,) states the added
    noise as the source's is stated.

    Noise that a later blur hides still counts: smoothing is no improvement, and the score must not call it one.
    """
    relative = 1.0 if modality == "CT" else 1.0 / damage.signal.numpy()
    noise = np.hypot(source[:, 0], damage.noise_sd.numpy() * relative * factor)
    width = np.hypot(source[:, 1], damage.width_mm.numpy())
    artefact = np.hypot(source[:, 2], damage.artefact.numpy() * relative)
    return np.maximum(np.stack([noise, width, artefact], 1), FLOOR[modality])


def _seed(*words: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:7], "big")


def apply_rung(image: Tensor, spacing_mm: Tensor, rung: tuple[Step, ...], unit_noise: Tensor, generator: torch.Generator,
               modality: str) -> tuple[Tensor, AddedDamage]:
    """Degrade (B,H,W) by the steps of one rung, severities drawn log-uniformly from `generator`; noise in multiples of `unit_noise` (B,)."""
    result, damage = degrade("identity", image, spacing_mm, torch.zeros(len(image)), generator, modality)
    for kind, low, high in rung:
        draw = torch.rand(len(image), generator=generator)
        severity = low * (high / low) ** draw
        if kind == "noise":
            severity = (severity * unit_noise).clamp(max=STRONGEST_NOISE[modality])
        result, added = degrade(kind, result, spacing_mm, severity, generator, modality)
        damage = damage.then(added)
    return result, damage


def versions(series: list[TrainingSeries], slices_per_series: int, seed: int = 0, draws: int = 1,
             progress: Callable[[int, int], None] | None = None, images: bool = False) -> Iterator[Version]:
    """All versions of up to `slices_per_series` slices of each series, rung by rung, the whole ladder `draws` times; `images` keeps the
    degraded slices themselves, which takes much memory."""
    for number, one in enumerate(series):
        if progress is not None:
            progress(number, len(series))
        chosen = np.unique(np.linspace(0, len(one.pixels) - 1, min(slices_per_series, len(one.pixels))).round().astype(int))
        for place in chosen:
            image = torch.from_numpy(one.pixels[place])[None]
            if min(image.shape[1:]) < SMALLEST or float(image.std()) == 0.0:
                continue
            for draw in range(draws):
                yield from _ladder(one, int(place), image, draw, _seed(seed, one.name, place, draw), images)


def _ladder(one: TrainingSeries, place: int, image: Tensor, draw: int, seed: int, images: bool) -> Iterator[Version]:
    """The versions of one slice, all with one pixel size and matrix."""
    random = np.random.default_rng(seed)
    # pixels know no millimetres: the same slice at another pixel size is another patient, and size and source do not go together
    grown = float(np.exp(random.uniform(*GROWN_LOG))) if one.modality == "MR" and random.random() < GROWN_SHARE else 1.0
    interpolated = one.modality == "MR" and max(image.shape[1:]) <= LARGEST_INTERPOLATED and random.random() < INTERPOLATED_SHARE
    spacing = torch.tensor([one.spacing_mm]) * grown
    source = clean_physics(image, spacing, one.modality)
    factor = np.ones(1) if one.modality == "CT" else reference_factor(acquired_limits(image), spacing).numpy()
    unit_noise = torch.from_numpy(np.maximum(source[:, 0], 6.0) if one.modality == "CT" else 1.0 / factor)
    for rung, steps in enumerate(LADDERS[one.modality]):
        generator = torch.Generator().manual_seed(_seed(seed, rung))
        changed, damage = apply_rung(image, spacing, steps, unit_noise, generator, one.modality)
        physics = total_physics(source, damage, one.modality, factor)[0]
        if interpolated:
            changed = zero_filled(changed)
        shown = spacing / (1 + interpolated)
        yield Version(one.name, one.subject, one.source, one.region, one.contrast, purpose_of(one.modality, one.kernel),
                      place, draw, rung, physics, measure(changed, shown, one.modality).vector[0].numpy(),
                      slice_views(changed[0], one.modality).numpy().astype(np.float16), (float(shown[0, 0]), float(shown[0, 1])),
                      changed[0].numpy() if images else None, vector(one.parameters, clean=rung == 0))


def save(found: list[Version], path: Path, modality: str) -> None:
    """One uncompressed file: arrays by name. It holds pixels of real scans and stays outside the repository."""
    texts = {name: np.array([getattr(v, name) for v in found]) for name in ("series", "subject", "source", "region", "contrast", "purpose")}
    numbers = {name: np.stack([getattr(v, name) for v in found]) for name in ("place", "draw", "rung", "physics", "measures", "views", "parameters")}
    part = path.with_suffix(".part.npz")
    np.savez(part, modality=np.array(modality), **texts, **numbers)
    part.rename(path)
