"""The envelope: what the model has been trained or evaluated on, and may therefore judge (DESIGN section 6, docs/decisions/0002).

A cell is (modality, region, 2D or 3D); it counts real, uncropped subjects and knows their smallest field of view.
`weights/envelope.json` is made by `mediqa train envelope`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from qa_engine.volume import Volume

TABLE = Path(__file__).with_name("weights") / "envelope.json"
LEAST_SUBJECTS = 5
SIMULATED_MARK = "mediqa node simulation"
STRANGE = 1.6
"""Multiple of the 99 % quantile of known subjects above which a slice is unlike anything known."""
SMALLER_FIELD = 0.9
"""Of the smallest known field of view: what is smaller still shows a part of what the known images show."""
FAMILIES = {"chest": "trunk", "abdomen": "trunk", "pelvis": "trunk"}
"""CT regions that one cell covers: a CT of the trunk runs through them in one series."""


@cache
def _table(path: Path = TABLE) -> dict[str, dict[str, float]]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def subjects() -> dict[str, float]:
    """Cell -> number of real, uncropped subjects."""
    return _table()["cells"]


def cell_of(modality: str, region: str, dimension: str) -> str:
    """Name of a cell."""
    place = FAMILIES.get(region, region) if modality == "CT" else region
    return f"{modality}/{place}/{dimension}"


def simulated(hints: Mapping[str, str]) -> bool:
    """Whether the series says that this project simulated it; such series are a cell of their own and widen no other."""
    return SIMULATED_MARK in hints.get("Manufacturer", "").lower()


def inside(modality: str, regions: tuple[str | None, ...], dimension: str, table: dict[str, int] | None = None) -> bool:
    """Whether most of the salient slices lie in cells with enough subjects, and every region that is common among them does."""
    known = subjects() if table is None else table
    counts = Counter(r for r in regions if r)
    if not counts or 2 * sum(counts.values()) < len(regions):
        return False
    good = sum(n for region, n in counts.items() if known.get(cell_of(modality, region, dimension), 0) >= LEAST_SUBJECTS)
    return good > len(regions) / 2


def field_problem(volume: Volume, regions: tuple[str | None, ...], table: dict[str, float] | None = None) -> str | None:
    """What is wrong when the images are a small part of what the known ones of their commonest region show; None when they are not."""
    counts = Counter(r for r in regions if r)
    least = (_table()["field_mm"] if table is None else table).get(
        cell_of(volume.modality, counts.most_common(1)[0][0], volume.dimension)) if counts else None
    field = min(n * size for n, size in zip(volume.pixels.shape[1:], volume.spacing_mm, strict=True))
    if least is None or field >= SMALLER_FIELD * least:
        return None
    return f"The field of view is {field:.0f} mm; the smallest known one of this region is {least:.0f} mm."


def content_problem(volume: Volume, indices: list[int]) -> str | None:
    """What is plainly no picture of a body: blank, two-valued, inverted or pure noise; None when nothing is wrong."""
    votes = Counter(_slice_problem(volume.pixels[k], volume.modality) for k in indices)
    problem, count = votes.most_common(1)[0]
    return problem if problem is not None and 2 * count > len(indices) else None


def _slice_problem(image: np.ndarray, modality: str) -> str | None:
    flat = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)]
    if float(flat.std()) == 0.0:
        return "blank"
    if len(np.unique(flat)) <= 8:
        return "few grey values"
    height, width = image.shape
    corner = max(4, min(height, width) // 16)
    corners = np.concatenate([image[:corner, :corner].ravel(), image[:corner, -corner:].ravel(), image[-corner:, :corner].ravel(),
                              image[-corner:, -corner:].ravel()])
    if modality == "CT" and float(np.median(corners)) > 600:
        return "bright outside the body"
    if modality == "MR" and float(np.median(corners)) > 0.8 * float(np.quantile(flat, 0.95)):
        return "bright outside the body"
    coarse = image[: height // 8 * 8, : width // 8 * 8].reshape(height // 8, 8, width // 8, 8).mean(axis=(1, 3))
    # averaging 64 independent pixels divides their spread by 8; a body keeps most of it
    if float(coarse.std()) < 0.2 * float(image.std()):
        return "noise without structure"
    return None


def count_cells(data: Path) -> dict[str, Any]:
    """The table from the index files beside the data: patients that were trained or evaluated on, uncropped, with their names."""
    from qa_engine.training.dataset import load_training_series

    found: dict[str, set[str]] = {}
    field_mm: dict[str, float] = {}
    for modality in ("CT", "MR"):
        for one in load_training_series(data, modality, ship_only=False):
            if one.region and not one.cropped:
                field = min(n * size for image in one.pixels for n, size in zip(image.shape, one.spacing_mm, strict=True))
                for dimension in ("3D", "2D"):
                    cell = cell_of(modality, one.region, dimension)
                    found.setdefault(cell, set()).add(one.subject)
                    field_mm[cell] = min(field_mm.get(cell, field), field)
    return {"cells": {k: len(v) for k, v in sorted(found.items())}, "field_mm": {k: round(v, 1) for k, v in sorted(field_mm.items())},
            "subjects": {k: sorted(v) for k, v in sorted(found.items())}}
