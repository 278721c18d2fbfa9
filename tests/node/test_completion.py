"""Completion as a table of cases, and properties: neither order nor duplication of arrivals matters, clocks cannot fool it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.completion import (
    Arrival,
    Complete,
    CompletedBy,
    MissingSlice,
    SeriesArrivals,
    Wait,
    Waits,
    decide,
    evenly_spaced,
    is_contiguous,
    missing_slices,
)

WAITS = Waits(quiet=60, contiguous=30, announced=5, forced=7200)
BOOT = "boot-a"


def run(count: int, first: float = 1000.0, step: float = 1.0, **more: object) -> SeriesArrivals:
    """`count` slices 5 mm apart, one each `step` seconds from `first`."""
    instances = tuple(Arrival(first + step * k, k + 1, 5.0 * k, 1) for k in range(count))
    series = SeriesArrivals(instances, first, first + step * (count - 1), BOOT)
    return replace(series, **more)


def changed(series: SeriesArrivals, **values: object) -> SeriesArrivals:
    return replace(series, instances=tuple(replace(i, **values) for i in series.instances))


def without(series: SeriesArrivals, number: int) -> SeriesArrivals:
    return replace(series, instances=tuple(i for i in series.instances if i.instance_number != number))


ten = run(10)
released = replace(ten, last_association_released=True)

CASES = [
    # name, series, seconds after the last instance, expected
    ("nothing but silence, too early", ten, 59.9, None),
    ("nothing but silence", ten, 60, CompletedBy.QUIET),
    ("released and gap-free, too early", released, 29, None),
    ("released and gap-free", released, 30, CompletedBy.CONTIGUOUS),
    ("released is not enough with a gap", without(released, 5), 59, None),
    ("a gap waits the full time", without(released, 5), 60, CompletedBy.QUIET),
    ("another association that sent to it is open", replace(released, other_open_associations=True), 59, None),
    ("an association never released holds nothing back", replace(ten, other_open_associations=True), 60, CompletedBy.QUIET),
    ("uneven positions", replace(released, instances=(*released.instances[:-1], replace(released.instances[-1], position_mm=70.0))), 45,
     None),
    ("no instance numbers", changed(released, instance_number=None), 45, None),
    ("no positions at all", changed(released, position_mm=None), 30, CompletedBy.CONTIGUOUS),
    ("stated count of the series", changed(ten, series_instances=10), 5, CompletedBy.ANNOUNCED),
    ("stated count, too early", changed(ten, series_instances=10), 4, None),
    ("stated count of one acquisition", changed(ten, images_in_acquisition=10), 5, CompletedBy.ANNOUNCED),
    ("stated count not reached", changed(ten, images_in_acquisition=11), 50, None),
    ("stated count exceeded", changed(ten, images_in_acquisition=9), 50, None),
    ("stated count without acquisition number", changed(changed(ten, images_in_acquisition=10), acquisition_number=None), 50, None),
    ("stated count with a gap", changed(without(run(11), 5), images_in_acquisition=10), 50, None),
    ("one enhanced object", run(1, instances=(Arrival(1000.0, 1, None, None, number_of_frames=120),)), 5, CompletedBy.ANNOUNCED),
    ("one single-frame image", run(1), 59, None),
    ("nothing current, only versions in conflict", replace(ten, instances=(), last_association_released=True), 60, CompletedBy.QUIET),
    ("operator", replace(ten, operator_word=True), 0, CompletedBy.OPERATOR),
]


@pytest.mark.parametrize(("series", "after", "by"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_table(series: SeriesArrivals, after: float, by: CompletedBy | None) -> None:
    answer = decide(series, series.last_mono + after, BOOT, WAITS, started_mono=0)
    assert answer == Complete(by) if by else isinstance(answer, Wait)
    if isinstance(answer, Wait):
        assert series.last_mono + after < answer.until_mono <= series.last_mono + 60
        # nobody needs to look before `until_mono`, and then it is done
        assert isinstance(decide(series, answer.until_mono, BOOT, WAITS, 0), Complete)


def test_forced_although_instances_keep_coming() -> None:
    drip = run(360, step=20)
    assert drip.last_mono == 1000 + 7180
    assert decide(drip, 1000 + 7199, BOOT, WAITS, 0) == Wait(1000 + 7200)
    assert decide(drip, 1000 + 7200, BOOT, WAITS, 0) == Complete(CompletedBy.FORCED)


def test_restart_and_boot_wait_the_full_time_again() -> None:
    at = ten.last_mono + 500
    assert decide(ten, at, BOOT, WAITS, started_mono=at) == Wait(at + 60)
    assert decide(ten, 12.0, "boot-b", WAITS, started_mono=10.0) == Wait(70.0)  # times of another boot mean nothing
    assert decide(ten, 70.0, "boot-b", WAITS, started_mono=10.0) == Complete(CompletedBy.QUIET)
    assert isinstance(decide(ten, ten.last_mono - 0.01, BOOT, WAITS, 0), Wait)  # a row newer than the clock
    future = replace(ten, first_mono=1e9, last_mono=1e9)
    assert decide(future, 100.0, BOOT, WAITS, started_mono=40.0) == Complete(CompletedBy.QUIET)


def test_hints_never_lengthen() -> None:
    long = Waits(quiet=2, contiguous=30, announced=30, forced=7200)
    assert decide(changed(released, series_instances=10), released.last_mono + 2, BOOT, long, 0) == Complete(CompletedBy.ANNOUNCED)


arrivals = st.builds(Arrival, st.floats(0, 5000), st.none() | st.integers(-3, 40), st.none() | st.floats(-500, 500),
                     st.none() | st.integers(1, 2), st.none() | st.integers(1, 3), st.none() | st.integers(0, 12),
                     st.none() | st.integers(0, 12))


@settings(max_examples=150, deadline=None)
@given(st.lists(arrivals, min_size=1, max_size=12), st.randoms(use_true_random=False), st.floats(0, 8000), st.booleans())
def test_order_does_not_matter(instances: list[Arrival], dice: object, after: float, is_released: bool) -> None:
    monos = [i.mono for i in instances]
    series = SeriesArrivals(tuple(instances), min(monos), max(monos), BOOT, is_released)
    shuffled = list(instances)
    dice.shuffle(shuffled)
    now = max(monos) + after
    answer = decide(series, now, BOOT, WAITS, 0)
    assert decide(replace(series, instances=tuple(shuffled)), now, BOOT, WAITS, 0) == answer
    if isinstance(answer, Complete):
        assert after >= 5 or now - min(monos) >= 7200
        assert isinstance(decide(series, now + 1, BOOT, WAITS, 0), Complete)
    else:
        assert now < answer.until_mono <= max(monos) + 60


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(-5, 60), st.none() | st.floats(-500, 500)), max_size=14),
       st.randoms(use_true_random=False))
def test_missing_slices_ignore_order_and_repeats(pairs: list[tuple[int | None, float | None]], dice: object) -> None:
    again = pairs + pairs[:3]
    dice.shuffle(again)
    assert missing_slices([n for n, _ in again], [p for _, p in again]) == missing_slices([n for n, _ in pairs], [p for _, p in pairs])


def test_missing_slices() -> None:
    numbers, even = list(range(1, 11)), [5.0 * k for k in range(10)]

    def cut(values: list, *gone: int) -> list:
        return [v for k, v in enumerate(values) if k not in gone]

    assert missing_slices(numbers, even) == []
    assert missing_slices(numbers[::-1], even) == []
    assert missing_slices(cut(numbers, 4), cut(even, 4)) == [MissingSlice(1, before_position_mm=25.0)]
    assert missing_slices(cut(numbers, 4, 5), cut(even, 4, 5)) == [MissingSlice(2, before_position_mm=30.0)]
    assert missing_slices(cut(numbers, 4), [None] * 9) == [MissingSlice(1, before_instance_number=6)]
    # every second slice gone around one that is there: distances hide it, numbers tell it
    assert missing_slices(cut(numbers, 3, 5), cut(even, 3, 5)) == [
        MissingSlice(1, before_instance_number=5), MissingSlice(1, before_instance_number=7)]
    assert missing_slices([1, 3, 5, 7, 9], [0.0, 5, 10, 15, 20]) == []  # every number twice as large is no hole
    assert missing_slices([1, 2, 3, 4, 101, 102, 103, 104], [None] * 8) == []  # two runs
    assert missing_slices([1, 2, 3, 5, 6, 7], [0, 5, 10, 15, 20, 25]) == []  # numbers jump, slices are neighbours
    assert missing_slices([1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 6, 9, 12]) == []  # spacing changes within the series
    assert missing_slices([], []) == [] and missing_slices([4], [None]) == [] and missing_slices([1, 9], [0.0, 40.0]) == []


def test_even_spacing() -> None:
    assert evenly_spaced([0, 5, 10, 15.2]) and evenly_spaced([3.0]) and evenly_spaced([0, 0, 5, 5, 10, 10])
    assert not evenly_spaced([0, 5, 15]) and not evenly_spaced([0, 0, 5, 10])
    assert is_contiguous([Arrival(0, k, None) for k in (3, 1, 2)]) and not is_contiguous([Arrival(0, 1), Arrival(0, 1)])
