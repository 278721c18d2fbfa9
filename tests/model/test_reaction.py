"""The number reacts: noise, motion or blur made by the simulator lower it on every real series that is scored."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from qa_engine.assess import judge
from qa_engine.decode import Decoder
from qa_engine.model import Model, load_model
from qa_engine.outcome import Reason
from qa_engine.policy import Policy
from qa_engine.salience import salient_slices
from qa_engine.series import group_files, read_series
from qa_engine.simulation.degradations import degrade
from qa_engine.volume import Reading
from tests.support.data import data_folder, find_data_folder

pytestmark = [pytest.mark.data, pytest.mark.model]

LADDER = {"CT": {"noise": (10.0, 25.0, 60.0), "blur": (1.2, 2.0, 3.5), "streak": (10.0, 20.0, 40.0)},
          "MR": {"noise": (0.05, 0.1, 0.2), "blur": (1.5, 2.5, 4.0), "motion": (0.04, 0.08, 0.16)}}
REFERENCE_PIXEL_MM = 0.9
"""Severities in the units of `degradations.KINDS`, MR noise as averages over this pixel would show it, MR blur for pixels of 0.7 mm or finer."""


def scored() -> list[str]:
    folder = find_data_folder()
    if folder is None:
        return []
    with (folder / "series" / "expected.csv").open(encoding="utf-8") as f:
        return [row["series"] for row in csv.DictReader(f) if row["end"] == "assessed"]


@cache
def model() -> Model:
    return load_model()


@cache
def reading(name: str) -> Reading:
    """The series cut down to its salient slices, so that damage of them is damage of the whole."""
    (files,), _ = group_files([data_folder() / "series" / name])
    with Decoder() as decoder:
        one = read_series(files, decoder)
    volume = one.volume
    assert volume is not None and volume.positions_mm is not None
    chosen = salient_slices(volume)
    return replace(one, volume=replace(volume, pixels=volume.pixels[chosen], positions_mm=volume.positions_mm[chosen],
                                       frames=tuple(volume.frames[k] for k in chosen)))


def score_of(one: Reading, pixels: np.ndarray) -> float | None:
    """None where strong damage ends as unlike all that is known, like a test object, or as too uncertain: then no number is given."""
    assert one.volume is not None
    found = judge(replace(one, volume=replace(one.volume, pixels=pixels)), Policy(device="cpu"), model())
    assert found.score is not None or found.reason in (Reason.UNFAMILIAR_CONTENT, Reason.WIDE_INTERVAL, Reason.PHANTOM), (found.end, found.reason)
    return found.score


def amounts(kind: str, modality: str, spacing_mm: tuple[float, float]) -> tuple[float, ...]:
    """Severities for the pixels at hand: fine pixels show more of the same noise, coarse ones less of the same blur."""
    steps = LADDER[modality][kind]
    if modality == "MR" and kind == "noise":
        return tuple(min(0.4, a / min(1.0, spacing_mm[0] / REFERENCE_PIXEL_MM)) for a in steps)
    return tuple(a * max(1.0, spacing_mm[0] / 0.7) for a in steps) if modality == "MR" and kind == "blur" else steps


def test_real_series_are_scored() -> None:
    data_folder()
    assert len(scored()) >= 4


@pytest.mark.parametrize("kind", ["noise", "blur", "artefact"])
@pytest.mark.parametrize("name", scored())
def test_damage_lowers_the_score(name: str, kind: str) -> None:
    one = reading(name)
    volume = one.volume
    assert volume is not None
    kind = {"CT": "streak", "MR": "motion"}[volume.modality] if kind == "artefact" else kind
    images = torch.from_numpy(volume.pixels)
    spacing = torch.tensor([volume.spacing_mm] * len(images))
    scores = [score_of(one, volume.pixels)]
    for amount in amounts(kind, volume.modality, volume.spacing_mm):
        damaged, _ = degrade(kind, images, spacing, torch.full((len(images),), amount), torch.Generator().manual_seed(5), volume.modality)
        scores.append(score_of(one, damaged.numpy()))
    clean, told = scores[0], [s for s in scores[1:] if s is not None]
    assert clean is not None and told, scores
    assert all(s < clean for s in told), scores
    assert scores[-1] is None or told[-1] < 0.75 * clean, scores
