"""Stacks of slices from positions and orientations (pure; PS3.3 C.7.6.2.1.1). Lengths in mm, patient coordinates (L, P, H positive)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np

ABSURD_MM = 5000.0
MISSING_RATIO = 1.5
ORIENTATION_DECIMALS = 2


def unit_orientation(values: Sequence[float] | None) -> tuple[float, ...] | None:
    """Image Orientation (Patient) as two orthogonal unit vectors; None when it is none."""
    if values is None or len(values) != 6 or not np.isfinite(values).all():
        return None
    row, column = np.array(values[:3], float), np.array(values[3:], float)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.5 or max(lengths) > 2.0 or abs(row @ column) > 0.05 * lengths[0] * lengths[1]:
        return None
    return tuple(float(v) for v in (*(row / lengths[0]), *(column / lengths[1])))


def slice_normal(orientation: Sequence[float]) -> np.ndarray:
    """Unit normal of the slices, pointing to the left, the back or the head, whichever it is nearest to."""
    normal = np.cross(orientation[:3], orientation[3:])
    normal = normal / np.linalg.norm(normal)
    return normal * (1.0 if normal[np.abs(normal).argmax()] >= 0 else -1.0)


def orientation_word(orientation: Sequence[float] | None) -> str:
    """axial, coronal, sagittal or oblique (more than 30 degrees from each); "" when unknown."""
    if orientation is None:
        return ""
    normal = np.abs(slice_normal(orientation))
    return ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() > np.cos(np.radians(30)) else "oblique"


def end_letters(orientation: Sequence[float] | None) -> tuple[str, str]:
    """Anatomical letters of the first and the last slice of a stack sorted along `slice_normal`."""
    if orientation is None:
        return "", ""
    return (("R", "L"), ("A", "P"), ("F", "H"))[int(np.abs(slice_normal(orientation)).argmax())]


def edge_letters(orientation: Sequence[float] | None) -> tuple[str, str]:
    """Anatomical letters at the left and the top edge of the image."""
    if orientation is None:
        return "", ""

    def letter(direction: np.ndarray) -> str:
        axis = int(np.abs(direction).argmax())
        return ("LR", "PA", "HF")[axis][0 if direction[axis] > 0 else 1]

    return letter(-np.array(orientation[:3])), letter(-np.array(orientation[3:]))


def tilt_degrees(orientation: Sequence[float], positions: np.ndarray) -> float:
    """Angle between the slice normal and the line through the slices' origins (N,3); a gantry tilt when it is not small."""
    if len(positions) < 2:
        return 0.0
    step = positions[-1] - positions[0]
    length = np.linalg.norm(step)
    if length < 1e-3:
        return 0.0
    return float(np.degrees(np.arccos(np.clip(abs(slice_normal(orientation) @ step) / length, 0.0, 1.0))))


def split_stacks(places: Sequence[float], order: Sequence[float]) -> list[list[int]]:
    """Indices of stacks without repeated positions, each sorted by position; `order` tells the stacks apart (Instance Number).

    The n-th image at each position belongs to stack n, the usual order of echoes, phases and b-values; the largest stack first.
    """
    at: dict[float, list[int]] = defaultdict(list)
    for k in sorted(range(len(places)), key=lambda k: (order[k], k)):
        near = round(places[k], 1)
        key = next((p for p in (near, round(near - 0.1, 1), round(near + 0.1, 1)) if p in at and abs(places[at[p][0]] - places[k]) < 0.05), near)
        at[key].append(k)
    depth = max(map(len, at.values()))
    stacks = [[group[n] for key, group in sorted(at.items()) if len(group) > n] for n in range(depth)]
    return sorted((sorted(stack, key=lambda k: places[k]) for stack in stacks), key=len, reverse=True)


def missing_slices(places: Sequence[float], numbers: Sequence[int | None]) -> list[float]:
    """Positions (mm) at which a slice is missing in a sorted stack (DESIGN section 5).

    Where the distance is at least 1.5 times both neighbouring distances, or where Instance Number jumps inside a run whose numbers
    otherwise step evenly. A spacing that changes within the series misses nothing.
    """
    gaps = np.diff(np.asarray(places, float))
    found: list[float] = []
    known = [n for n in numbers if n is not None]
    steps = [abs(b - a) for a, b in pairwise(known)] if len(known) == len(numbers) else []
    step = median(steps) if len(steps) >= 4 else 0
    even = bool(steps) and step > 0 and sum(s == step for s in steps) >= 0.75 * len(steps)
    for k, gap in enumerate(gaps):
        around = [g for g in (gaps[k - 1] if k else None, gaps[k + 1] if k + 1 < len(gaps) else None) if g is not None and g > 1e-3]
        lost = 0
        if len(around) == 2 and gap >= MISSING_RATIO * max(around):
            lost = max(1, round(gap / (sum(around) / 2)) - 1)
        if even and steps[k] > step and steps[k] % step == 0:
            lost = max(lost, int(steps[k] // step) - 1)
        lost = min(lost, 1000)
        found += [float(places[k] + gap * (n + 1) / (lost + 1)) for n in range(lost)]
    return found
