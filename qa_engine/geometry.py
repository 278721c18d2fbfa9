"""Stacks of slices from positions and orientations (pure; PS3.3 C.7.6.2.1.1). Lengths in mm, patient coordinates (L, P, H positive)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import median, median_low

import numpy as np

ABSURD_MM = 5000.0
SAME_PLACE_MM = 0.05
MISSING_RATIO = 1.5
MOST_MISSING = 1000
"""In one place."""


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
    groups: list[list[int]] = []
    for k in sorted(range(len(places)), key=lambda k: places[k]):
        if groups and places[k] - places[groups[-1][0]] < SAME_PLACE_MM:
            groups[-1].append(k)
        else:
            groups.append([k])
    for group in groups:
        group.sort(key=lambda k: (order[k], k))
    stacks = [[group[n] for group in groups if len(group) > n] for n in range(max(map(len, groups)))]
    return sorted(stacks, key=len, reverse=True)


def missing_slices(places: Sequence[float], numbers: Sequence[int | None], others: Collection[int] = ()) -> list[float]:
    """Positions (mm) at which a slice is missing in a sorted stack (DESIGN section 5).

    Where the distance is at least 1.5 times both neighbouring distances, or where Instance Number jumps inside a run whose numbers
    otherwise step evenly and the slices beside the jump are no neighbours. A spacing that changes within the series misses nothing, nor
    does a number that one of the `others`, images of the series outside the stack, has.
    """
    gaps = [float(g) for g in np.diff(np.asarray(places, float))]
    step = _even_step(numbers)
    found: list[float] = []
    for k, gap in enumerate(gaps):
        around = [g for g in (*gaps[max(k - 1, 0):k], *gaps[k + 1:k + 2]) if g > 1e-3]
        lost = 0
        if len(around) == 2 and gap >= MISSING_RATIO * max(around):
            lost = max(1, round(gap / (sum(around) / 2)) - 1)
        before, after = numbers[k], numbers[k + 1]
        if step and before is not None and after is not None and gap >= MISSING_RATIO * min(median(gaps), *around):
            between = range(before + step, after, step) if (after - before) % step == 0 else ()
            if len(between) <= len(places):  # a jump over more numbers than there are slices begins another run
                lost = max(lost, sum(n not in others for n in between))
        lost = min(lost, MOST_MISSING)
        found += [places[k] + gap * (n + 1) / (lost + 1) for n in range(lost)]
    return found


def _even_step(numbers: Sequence[int | None]) -> int:
    """The step from one Instance Number to the next, with its sign, that at least three quarters of the slices keep; 0 when there is none."""
    known = [n for n in numbers if n is not None]
    if len(known) < len(numbers) or len(known) < 5:
        return 0
    steps = [b - a for a, b in pairwise(known)]
    usual = median_low(steps)
    return usual if sum(s == usual for s in steps) >= 0.75 * len(steps) else 0
