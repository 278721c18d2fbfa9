"""Versions with known damage as rows: what every method of the benchmark may see of them, and the truth.

One process per core makes the ladder of each series (`qa_engine.training.ladder`) and, of one slice per subject, damage made here and not by
the simulator (`benchmarks.foreign`). Nothing is written to disk.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from benchmarks.foreign import foreign_versions
from benchmarks.iqms import iqms
from benchmarks.natural_scene import brisque, niqe_patches
from qa_engine.measures import measure, normalised
from qa_engine.measures.full_reference import haarpsi, vif, windowed
from qa_engine.network.published import SIDE
from qa_engine.network.views import slice_views
from qa_engine.prompts import Prompts, mr_type
from qa_engine.targets import purpose_of, quality_of
from qa_engine.training.dataset import TrainingSeries, load_training_series
from qa_engine.training.ladder import MILD_ARTEFACT, MILD_BLUR, MILD_NOISE, SMALLEST, versions
from qa_engine.training.parameters import vector

MODALITIES = ("CT", "MR")
INDEX = {"CT": "index.csv", "MR": "index-mr.csv"}
SERIES_PER_SUBJECT = 3
FOREIGN = -1
"""Rung of rows whose damage the ladder does not know."""


@dataclass(frozen=True, eq=False)
class Rows:
    """N versions of slices of one modality. physics (N,3) and q (N,) are the truth (nan for foreign damage); header and the features as their
    makers name them; likeness (N,2): HaarPSI and VIF to the clean slice (nan where not computed); kind and step: foreign damage;
    pictures (N,224,224) uint8 for the published network, or empty."""

    series: np.ndarray
    subject: np.ndarray
    source: np.ndarray
    region: np.ndarray
    purpose: np.ndarray
    slice: np.ndarray
    rung: np.ndarray
    kind: np.ndarray
    step: np.ndarray
    physics: np.ndarray
    q: np.ndarray
    measures: np.ndarray
    views: np.ndarray
    prompts: np.ndarray
    header: np.ndarray
    iqms: np.ndarray
    brisque: np.ndarray
    niqe: np.ndarray
    likeness: np.ndarray
    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.series)

    def take(self, pick: np.ndarray) -> Rows:
        """The rows `pick` (numbers or booleans)."""
        return Rows(*(getattr(self, f.name)[pick] for f in fields(self)))

    def followed_by(self, other: Rows) -> Rows:
        """These rows, then those of `other` whose subjects are not among these."""
        more = other.take(~np.isin(other.subject, self.subject))
        return Rows(*(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(self)))


def mild_rungs(modality: str) -> set[int]:
    """Rungs of mild damage of each axis."""
    return {MILD_NOISE, MILD_BLUR, MILD_ARTEFACT[modality]}


def load_series(folder: Path, modality: str, most_subjects: int | None = None) -> list[TrainingSeries]:
    """Patients of a folder of the form of shared/data/train, at most SERIES_PER_SUBJECT series each; [] where it has no index of the modality.
    With `most_subjects`, every so many-th subject, so that the sources stay mixed."""
    if not (folder / INDEX[modality]).is_file():
        return []
    found = load_training_series(folder, modality)
    subjects = list(dict.fromkeys(s.subject for s in found))
    if most_subjects is not None and len(subjects) > most_subjects:
        subjects = [subjects[round(k * (len(subjects) - 1) / (most_subjects - 1))] for k in range(most_subjects)]
    kept: dict[str, int] = dict.fromkeys(subjects, 0)
    chosen = []
    for one in found:
        if kept.get(one.subject, SERIES_PER_SUBJECT) < SERIES_PER_SUBJECT:
            kept[one.subject] += 1
            chosen.append(one)
    return chosen


def _prompts(one: TrainingSeries, modality: str) -> tuple[int, int, int, int]:
    kind = purpose_of(modality, one.kernel) or mr_type(one.contrast)
    return Prompts("3d", modality.lower(), one.region or None, kind or None).indices()


def _header(one: TrainingSeries) -> np.ndarray:
    shape = one.pixels[0].shape
    return np.concatenate([vector(one.parameters, clean=True), [*one.spacing_mm, *shape]]).astype(np.float32)


def _picture(image: torch.Tensor, modality: str, purpose: str, wanted: bool) -> np.ndarray:
    """The windowed slice as a square of SIDE pixels, which is how the published network sees it."""
    if not wanted:
        return np.zeros((0, 0), np.uint8)
    shown = windowed(image[None], image[None], modality, purpose)[0]
    small = torch.nn.functional.interpolate(shown[None], size=(SIDE, SIDE), mode="bilinear", antialias=True)[0, 0]
    return (255.0 * small).round().to(torch.uint8).numpy()


def _features(image: torch.Tensor, spacing: tuple[float, float], modality: str, purpose: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IQMs, BRISQUE and the mean of NIQE's patches of one slice (H,W); the patches follow as rows, padded by nan."""
    unit, mask, _ = normalised(image[None], modality)
    shown = windowed(image[None], image[None], modality, purpose)[0][0]
    return iqms(unit[0], mask[0], spacing, modality), brisque(shown).numpy(), _padded(niqe_patches(shown).numpy())


NIQE_PATCHES = 16


def _padded(patches: np.ndarray) -> np.ndarray:
    """(P,36) -> (NIQE_PATCHES,36) float32: evenly chosen, or filled with nan."""
    if len(patches) > NIQE_PATCHES:
        patches = patches[np.linspace(0, len(patches) - 1, NIQE_PATCHES).astype(int)]
    return np.concatenate([patches, np.full((NIQE_PATCHES - len(patches), patches.shape[1]), np.nan)]).astype(np.float32)


def rows_of(one: TrainingSeries, modality: str, slices: int, more: bool, pictures: bool) -> list[tuple]:
    """All rows of one series, as tuples in the order of `Rows`; with `more`, likeness of the first slice and foreign damage of the middle one."""
    torch.set_num_threads(1)
    purpose, found = purpose_of(modality, one.kernel), []
    fixed = (one.name, one.subject, one.source, one.region, purpose)
    prompts, header = _prompts(one, modality), _header(one)
    clean = None
    for v in versions([one], slices, images=True):
        image = torch.from_numpy(v.image)
        if v.rung == 0:
            clean = image
        alike = (np.nan, np.nan)
        if more and v.place == 0 and v.rung:
            a, b = windowed(image[None], clean[None], modality, purpose)
            alike = (float(haarpsi(a, b)), float(vif(a, b)))
        q = quality_of(v.physics[None].astype(float), modality, purpose)[0]
        found.append((*fixed, f"{one.name}/{v.place}/{v.draw}", v.rung, "", 0, v.physics, q, v.measures, v.views, prompts, header,
                      *_features(image, v.spacing_mm, modality, purpose), alike, _picture(image, modality, purpose, pictures)))
    if more and found and min(one.pixels[0].shape) >= SMALLEST:
        spacing = torch.tensor([one.spacing_mm])
        for kind, step, pixels in foreign_versions(one.pixels[len(one.pixels) // 2], modality):
            image = torch.from_numpy(pixels)
            found.append((*fixed, f"{one.name}/foreign", FOREIGN, kind, step, np.full(3, np.nan), np.nan,
                          measure(image[None], spacing, modality).vector[0].numpy(), slice_views(image, modality).numpy().astype(np.float16), prompts,
                          header, *_features(image, one.spacing_mm, modality, purpose), (np.nan, np.nan), _picture(image, modality, purpose, pictures)))
    return found


def joined(found: Sequence[tuple]) -> Rows:
    """Tuples of `rows_of` as arrays."""
    return Rows(*(np.array(column) if isinstance(column[0], str) else np.stack([np.asarray(c) for c in column]) for column in zip(*found, strict=True)))


def make_rows(series: list[TrainingSeries], modality: str, slices: int, jobs: int, tell: Callable[[int, int], None],
              pictures: bool = False) -> Rows | None:
    """Rows of all series, `jobs` at once; None where there is no series. Likeness and foreign damage of the first series of each subject."""
    if not series:
        return None
    first, seen = [], set()
    for one in series:
        first.append(one.subject not in seen)
        seen.add(one.subject)
    found: list[tuple] = []
    if jobs == 1:
        for k, (one, more) in enumerate(zip(series, first, strict=True)):
            found += rows_of(one, modality, slices, more, pictures)
            tell(k + 1, len(series))
    else:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            waiting = [pool.submit(rows_of, one, modality, slices, more, pictures) for one, more in zip(series, first, strict=True)]
            for k, one in enumerate(waiting):  # in the order of the index: the same table whatever process was faster
                found += one.result()
                tell(k + 1, len(series))
    return joined(found) if found else None
