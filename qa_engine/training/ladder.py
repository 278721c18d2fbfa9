"""The ladder: versions of each slice with known damage, their views, measures and physics, kept in one cache file per modality.

Severities are what the image shows (HU, share of signal, mm of width), log-uniform; identity passes the same chain. The source's own
physics come from measures; totals add in quadrature (docs/model-card.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qa_engine.measures import measure, normalised
from qa_engine.measures.noise import noise_mode
from qa_engine.measures.physics import calm_tissue, physics_of, reference_factor
from qa_engine.network.views import slice_views
from qa_engine.simulation.degradations import AddedDamage, degrade
from qa_engine.targets import FLOOR, purpose_of
from qa_engine.training.dataset import TrainingSeries
from qa_engine.training.parameters import vector

Step = tuple[str, float, float, str]
"""Kind, range of the severity, and what it is a multiple of: "" for the kind's own unit, "own" for the noise or width of the slice itself,
"reference" for noise at the reference width. Mild (rungs 1 and MILD_BLUR) is what a meter tells from the habit of one protocol, no less:
noise times 1.25 to 1.6 (MR 1.3 to 1.7), width times 1.12 to 1.25 (1.14 to 1.3)."""
LADDERS: dict[str, tuple[tuple[Step, ...], ...]] = {
    "CT": ((), (("noise", 0.75, 1.25, "own"),), (("noise", 1.3, 2.6, "own"),), (("noise", 2.6, 6.0, "own"),), (("dose", 0.08, 0.5, ""),),
           (("blur", 0.5, 0.75, "own"),), (("blur", 0.75, 1.3, "own"),), (("blur", 1.3, 2.4, "own"),), (("streak", 8.0, 16.0, ""),),
           (("streak", 20.0, 50.0, ""),), (("ring", 8.0, 30.0, ""),), (("motion", 10.0, 50.0, ""),),
           (("noise", 0.7, 3.0, "own"), ("blur", 0.4, 1.6, "own")), (("dose", 0.1, 0.6, ""), ("streak", 8.0, 40.0, ""))),
    "MR": ((), (("noise", 0.8, 1.4, "own"),), (("noise", 0.04, 0.08, "reference"),), (("noise", 0.1, 0.22, "reference"),),
           (("motion", 0.02, 0.04, ""),), (("blur", 0.55, 0.85, "own"),), (("blur", 0.85, 1.3, "own"),), (("blur", 1.3, 2.2, "own"),),
           (("motion", 0.05, 0.1, ""),), (("motion", 0.1, 0.25, ""),), (("ghost", 0.04, 0.25, ""),), (("undersampling", 0.03, 0.15, ""),),
           (("noise", 0.02, 0.1, "reference"), ("motion", 0.03, 0.12, "")), (("noise", 0.02, 0.1, "reference"), ("blur", 0.5, 1.3, "own")),
           (("spike", 0.15, 1.2, ""),)),
}
MILD_NOISE, MILD_BLUR = 1, 5
MILD_ARTEFACT = {"CT": 8, "MR": 4}
"""Rungs of mild damage of each axis."""
STRONG = {"CT": (3, 7, 9), "MR": (3, 7, 9)}
"""Rungs of the strongest noise, blur and artefact."""
LEAST_OWN_NOISE = {"CT": 6.0, "MR": 0.008}
"""HU and share of tissue signal: multiples of the slice's own noise are taken of at least so much."""
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
    own: np.ndarray
    """Noise, width and artefact (0) of the source, as measured."""
    added: np.ndarray
    """What the rung added, in the same units."""
    physics: np.ndarray
    measures: np.ndarray
    views: np.ndarray
    spacing_mm: tuple[float, float]
    image: np.ndarray | None = None
    parameters: np.ndarray = field(default_factory=lambda: vector({}, clean=True))
    """`training.parameters` of the scan."""


def own_physics(images: Sequence[Tensor], spacing_mm: Tensor, modality: str) -> np.ndarray:
    """(N,3) noise at the reference width, width, artefact (0) of slices (1,H,W) of one series as received, by `measures.physics`; where a CT
    slice shows no clear skin, the width of the others stands for it."""
    found = []
    for image in images:
        unit, mask, _ = normalised(image, modality)
        found.append(physics_of(unit, mask, spacing_mm, modality))
    stated, width = torch.cat([f.stated for f in found]), torch.cat([f.width for f in found])
    noise = stated / reference_factor(width, modality)
    seen = torch.cat([f.skin for f in found]) > 0
    if modality == "CT" and bool(seen.any()):
        width = torch.where(seen, width, width[seen].median())
    return torch.stack([noise * reference_factor(width, modality), width, torch.zeros_like(width)], 1).numpy()


def zero_filled(image: Tensor) -> Tensor:
    """(B,H,W) magnitude images on twice the matrix, as scanners interpolate: k-space padded with zeros."""
    height, width = image.shape[1:]
    k = torch.fft.fftshift(torch.fft.fft2(image), dim=(1, 2))
    k = F.pad(k, ((width + 1) // 2, width // 2, (height + 1) // 2, height // 2))
    return 4.0 * torch.fft.ifft2(torch.fft.ifftshift(k, dim=(1, 2))).real.clamp(min=0)


def total_physics(own: np.ndarray, added: np.ndarray, modality: str) -> np.ndarray:
    """(...,3) physics of the degraded slices: own and added damage in quadrature.

    Noise that a later blur hides still counts: smoothing is no improvement, and the score must not call it one.
    """
    return np.maximum(np.hypot(own, added), FLOOR[modality])


def stated_damage(own: np.ndarray, damage: AddedDamage, modality: str) -> np.ndarray:
    """(N,3) added noise, width and artefact in the units of `own` (N,3): noise at the reference width, MR amounts as shares of the signal."""
    relative = 1.0 if modality == "CT" else 1.0 / damage.signal.double().numpy()
    factor = reference_factor(torch.from_numpy(own[:, 1]), modality).numpy()
    return np.stack([damage.noise_sd.double().numpy() * relative * factor, damage.width_mm.double().numpy(),
                     damage.artefact.double().numpy() * relative], 1)


def _seed(*words: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:7], "big")


def apply_rung(image: Tensor, spacing_mm: Tensor, rung: tuple[Step, ...], own: np.ndarray, generator: torch.Generator,
               modality: str) -> tuple[Tensor, AddedDamage]:
    """Degrade (1,H,W) with its own physics (3,) by the steps of one rung, severities drawn log-uniformly from `generator`.

    Added CT noise is what shows where the source's noise was measured: the mode of its local standard deviation in calm tissue.
    """
    result, damage = degrade("identity", image, spacing_mm, torch.zeros(len(image)), generator, modality)
    factor = float(reference_factor(torch.tensor(own[1]), modality))
    multiples = {("noise", "own"): max(float(own[0]) / factor, LEAST_OWN_NOISE[modality]), ("noise", "reference"): 1.0 / factor,
                 ("blur", "own"): float(own[1])}
    for kind, low, high, multiple in rung:
        draw = torch.rand(len(image), generator=generator)
        severity = low * (high / low) ** draw * (multiples[(kind, multiple)] if multiple else 1.0)
        if kind == "noise":
            severity = severity.clamp(max=STRONGEST_NOISE[modality])
        before = result
        result, added = degrade(kind, before, spacing_mm, severity, generator, modality)
        if modality == "CT" and kind in ("noise", "dose"):
            unit, mask, _ = normalised(image, modality)
            added = replace(added, noise_sd=noise_mode(result - before, calm_tissue(unit, mask)))
        damage = damage.then(added)
    return result, damage


def versions(series: list[TrainingSeries], slices_per_series: int, seed: int = 0, draws: int = 1,
             progress: Callable[[int, int], None] | None = None, images: bool = False, rungs: Container[int] | None = None) -> Iterator[Version]:
    """All versions of up to `slices_per_series` slices of each series, rung by rung, the whole ladder (or some `rungs` of it) `draws` times;
    `images` keeps the degraded slices themselves, which takes much memory."""
    for number, one in enumerate(series):
        if progress is not None:
            progress(number, len(series))
        chosen = np.unique(np.linspace(0, len(one.pixels) - 1, min(slices_per_series, len(one.pixels))).round().astype(int))
        found = {int(k): torch.from_numpy(one.pixels[k])[None] for k in chosen}
        found = {k: image for k, image in found.items() if min(image.shape[1:]) >= SMALLEST and float(image.std()) > 0.0}
        for draw in range(draws if found else 0):
            yield from _ladder(one, found, draw, _seed(seed, one.name, draw), images, rungs)


def _ladder(one: TrainingSeries, slices: dict[int, Tensor], draw: int, seed: int, images: bool,
            rungs: Container[int] | None) -> Iterator[Version]:
    """The versions of some slices of a series, all with one pixel size and matrix."""
    random = np.random.default_rng(seed)
    mr = one.modality == "MR"
    # pixels know no millimetres: the same series at another pixel size is another patient, and size and source do not go together
    grown = float(np.exp(random.uniform(*GROWN_LOG))) if mr and random.random() < GROWN_SHARE else 1.0
    spacing = torch.tensor([one.spacing_mm]) * grown
    own = own_physics(list(slices.values()), spacing, one.modality)
    for (place, image), source in zip(slices.items(), own, strict=True):
        interpolated = mr and max(image.shape[1:]) <= LARGEST_INTERPOLATED and random.random() < INTERPOLATED_SHARE
        shown = spacing / (1 + interpolated)
        for rung, steps in enumerate(LADDERS[one.modality]):
            if rungs is not None and rung not in rungs:
                continue
            generator = torch.Generator().manual_seed(_seed(seed, place, rung))
            changed, damage = apply_rung(image, spacing, steps, source, generator, one.modality)
            added = stated_damage(source[None].astype(float), damage, one.modality)[0]
            if interpolated:
                changed = zero_filled(changed)
            yield Version(one.name, one.subject, one.source, one.region, one.contrast, purpose_of(one.modality, one.kernel), place, draw, rung,
                          source, added, total_physics(source, added, one.modality), measure(changed, shown, one.modality).vector[0].numpy(),
                          slice_views(changed[0], one.modality).numpy().astype(np.float16), (float(shown[0, 0]), float(shown[0, 1])),
                          changed[0].numpy() if images else None, vector(one.parameters, clean=rung == 0))


def save(found: list[Version], path: Path, modality: str) -> None:
    """One uncompressed file: arrays by name. It holds pixels of real scans and stays outside the repository."""
    texts = {name: np.array([getattr(v, name) for v in found]) for name in ("series", "subject", "source", "region", "contrast", "purpose")}
    numbers = {name: np.stack([getattr(v, name) for v in found]) for name in
               ("place", "draw", "rung", "own", "added", "physics", "measures", "views", "parameters")}
    part = path.with_suffix(".part.npz")
    np.savez(part, modality=np.array(modality), **texts, **numbers)
    part.rename(path)
