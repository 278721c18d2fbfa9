"""Stacks, missing slices, tilt and directions from positions and orientations alone (DESIGN section 5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_engine.geometry import (
    edge_letters,
    end_letters,
    missing_slices,
    orientation_word,
    slice_normal,
    split_stacks,
    tilt_degrees,
    unit_orientation,
)

AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def run(*numbers: int, step: float = 5.0) -> tuple[list[float], list[int | None]]:
    """Places and Instance Numbers of the slices `numbers` of an even series."""
    return [step * n for n in numbers], list(numbers)


WHOLE = tuple(range(1, 21))


def without(*lost: int) -> tuple[int, ...]:
    return tuple(n for n in WHOLE if n not in lost)


@pytest.mark.parametrize("lost", [(), (10,), (10, 11), (5, 10, 15), (2,), (19,), (9, 11, 13), (2, 3, 4, 5, 6, 7)])
def test_lost_slices_are_found_where_they_were(lost: tuple[int, ...]) -> None:
    assert missing_slices(*run(*without(*lost))) == pytest.approx([5.0 * n for n in lost])


@pytest.mark.parametrize("lost", [(), (10,), (10, 11), (5, 10, 15)])
def test_the_distance_alone_tells(lost: tuple[int, ...]) -> None:
    places, numbers = run(*without(*lost))
    assert missing_slices(places, [None] * len(numbers)) == pytest.approx([5.0 * n for n in lost])


def test_numbers_that_count_down_or_in_steps() -> None:
    places, numbers = run(*without(8))
    assert missing_slices(places, [21 - n for n in without(8)]) == [40.0]
    assert missing_slices(places, [3 * n for n in without(8)]) == [40.0]
    assert missing_slices(places, numbers) == [40.0]


def test_a_spacing_that_changes_misses_nothing() -> None:
    places = [4.0 * k for k in range(14)] + [53.08 + 7.0 * k for k in range(14)]
    assert missing_slices(places, list(range(1, 29))) == []
    assert missing_slices([1.5 ** k for k in range(12)], list(range(12))) == []


def test_a_jump_between_neighbours_misses_nothing() -> None:
    assert missing_slices([5.0 * k for k in range(10)], [1, 2, 3, 4, 5, 9, 10, 11, 12, 13]) == []


def test_two_runs_with_numbers_of_their_own_miss_nothing() -> None:
    assert missing_slices([5.0 * k for k in range(28)], [*range(1, 15), *range(1, 15)]) == []
    assert missing_slices([5.0 * k for k in range(8)] + [50.0 + 5 * k for k in range(8)], [*range(1, 9), *range(101, 109)]) == [40.0, 45.0]


def test_numbers_of_other_images_of_the_series_are_not_missing() -> None:
    places, numbers = [0.0, 5, 10, 15, 20, 40, 45, 50, 55, 60], [1, 2, 3, 4, 5, 9, 10, 11, 12, 13]
    assert len(missing_slices(places, numbers)) == 3
    assert len(missing_slices([*places[:5], *(p - 10 for p in places[5:])], numbers, {6, 7, 8})) == 1  # the distance still tells of one


def test_few_slices() -> None:
    assert missing_slices([3.0], [1]) == [] and missing_slices([0.0, 90.0], [1, 9]) == []


@given(st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True))
def test_missing_slices_lie_between_the_slices_there_are(numbers: list[int]) -> None:
    places, known = run(*sorted(numbers))
    found = missing_slices(places, known)
    assert all(places[0] < p < places[-1] for p in found)
    assert set(np.round(np.array(found) / 5.0, 3)).isdisjoint(map(float, numbers))


def test_repeated_positions_are_stacks_of_their_own() -> None:
    places = [0.0, 5, 10, 0, 5, 10, 0, 5]
    assert split_stacks(places, range(8)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert split_stacks([0.0, 0, 5, 5, 10, 10], range(6)) == [[0, 2, 4], [1, 3, 5]]  # b-values slice by slice
    assert split_stacks([0.0, 0.04, 5, 5.03, 10], [5, 1, 2, 3, 4]) == [[1, 2, 4], [0, 3]]  # jitter is no position
    assert split_stacks([10.0, 5, 0], range(3)) == [[2, 1, 0]]
    assert split_stacks([7.0], [0]) == [[0]]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_every_image_is_in_one_stack_and_no_stack_repeats_a_position(places: list[int]) -> None:
    stacks = split_stacks([float(p) for p in places], list(range(len(places))))
    assert sorted(k for stack in stacks for k in stack) == list(range(len(places)))
    for stack in stacks:
        at = [places[k] for k in stack]
        assert at == sorted(set(at))
    assert len(stacks[0]) == len(set(places)) and len(stacks) == max(places.count(p) for p in places)


def test_tilt() -> None:
    angle = math.radians(18.5)
    tilted = (1, 0, 0, 0, math.cos(angle), -math.sin(angle))
    positions = np.array([[0, 0, 5.0 * k] for k in range(10)])
    assert tilt_degrees(tilted, positions) == pytest.approx(18.5)
    assert tilt_degrees(AXIAL, positions) == pytest.approx(0.0)
    oblique = np.array([slice_normal(tilted) * 5.0 * k for k in range(10)])
    assert tilt_degrees(tilted, oblique) == pytest.approx(0.0, abs=1e-4)  # oblique slices along their normal are no tilt
    assert tilt_degrees(AXIAL, positions[:1]) == 0.0 and tilt_degrees(AXIAL, np.zeros((4, 3))) == 0.0


def test_directions() -> None:
    assert [orientation_word(o) for o in (AXIAL, CORONAL, SAGITTAL, None)] == ["axial", "coronal", "sagittal", ""]
    assert orientation_word((1, 0, 0, 0, math.cos(0.8), -math.sin(0.8))) == "oblique"
    assert [end_letters(o) for o in (AXIAL, CORONAL, SAGITTAL)] == [("F", "H"), ("A", "P"), ("R", "L")]
    assert [edge_letters(o) for o in (AXIAL, CORONAL, SAGITTAL)] == [("R", "A"), ("R", "H"), ("A", "H")]
    assert slice_normal((-1, 0, 0, 0, 1, 0))[2] == 1  # towards the head, whichever way the rows run


@pytest.mark.parametrize("values", [None, (1, 0, 0, 0, 1), (0,) * 6, (1, 0, 0, 1, 0, 0), (float("nan"), 0, 0, 0, 1, 0), (9, 0, 0, 0, 9, 0)])
def test_what_is_no_orientation(values: tuple[float, ...] | None) -> None:
    assert unit_orientation(values) is None


def test_an_orientation_becomes_unit_vectors() -> None:
    assert unit_orientation((1.1, 0, 0, 0, 0.9, 0)) == (1, 0, 0, 0, 1, 0)
