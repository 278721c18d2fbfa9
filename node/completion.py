"""Decides that a series has arrived, and says why (pure; DESIGN section 5).

DICOM has no sign of the end of a series. A series is complete when nothing new came for the wait (`quiet`); hints shorten the wait and
never lengthen it: a gap-free run whose association was released (`contiguous`), a stated count that has arrived on such a run
(`announced`). Two hours after the first instance ends any wait (`forced`), an operator's word at once (`operator`). A series that opens
again waits anew, its two hours as well.

Waiting uses the monotonic clock of one boot. Instances of another boot, or a restart of the worker, wait their full time again: the
caller passes `started_mono`, the moment from which this process has watched. A step of the wall clock changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median

NEWER = 60.0
"""Seconds by which a row may be ahead of the clock that was read before the row."""


class CompletedBy(StrEnum):
    """What ended the wait; recorded with the revision."""

    QUIET = "quiet"
    CONTIGUOUS = "contiguous"
    ANNOUNCED = "announced"
    FORCED = "forced"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Waits:
    """Waits in seconds: those of `completion:` in the configuration, or with what was learned of the sender (`node/quiet.py`)."""

    quiet: float
    contiguous: float
    announced: float
    forced: float

    def of(self, by: CompletedBy) -> float:
        """Seconds after which `by` completes a series, 0 for an operator's word; hints never lengthen the wait."""
        return {CompletedBy.QUIET: self.quiet, CompletedBy.CONTIGUOUS: min(self.contiguous, self.quiet), CompletedBy.FORCED: self.forced,
                CompletedBy.ANNOUNCED: min(self.announced, self.quiet), CompletedBy.OPERATOR: 0.0}[by]

    @property
    def shortest(self) -> float:
        """Seconds after the newest instance before which no evidence completes a series."""
        return min(self.quiet, self.contiguous, self.announced)


@dataclass(frozen=True)
class Arrival:
    """One current instance of the series. `mono` is of the boot that `SeriesArrivals.boot_id` names."""

    mono: float
    instance_number: int | None = None
    position_mm: float | None = None
    acquisition_number: int | None = None
    number_of_frames: int | None = None
    images_in_acquisition: int | None = None
    """(0020,1002)"""
    series_instances: int | None = None
    """(0020,1209)"""


@dataclass(frozen=True)
class SeriesArrivals:
    """What is known of an open series. The order of `instances`, the current versions, does not matter; there may be none (conflicts only).

    first_mono, last_mono: monotonic times of the first and of the newest new or changed instance, taken in the boot `boot_id`.
    last_association_released: the association that brought the newest instance ended by A-RELEASE.
    other_open_associations: another association that has sent to this series is still open.
    """

    instances: tuple[Arrival, ...]
    first_mono: float
    last_mono: float
    boot_id: str
    last_association_released: bool = False
    other_open_associations: bool = False
    operator_word: bool = False


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until_mono`, unless something new comes."""

    until_mono: float


@dataclass(frozen=True)
class Complete:
    """The series has arrived."""

    by: CompletedBy


def decide(series: SeriesArrivals, now_mono: float, boot_id: str, waits: Waits, started_mono: float) -> Wait | Complete:
    """Whether `series` is complete at `now_mono` of boot `boot_id`, watched by this process since `started_mono` of the same boot."""
    if series.operator_word:
        return Complete(CompletedBy.OPERATOR)

    def seen(mono: float) -> float:
        # a time of another boot (or one that cannot be) means nothing here, one before our start may hide what came while nobody
        # watched; a row may be a moment newer than the clock that was read before it
        return started_mono if series.boot_id != boot_id or mono > now_mono + NEWER else max(mono, started_mono)

    last = seen(series.last_mono)
    ends = [(last + wait, by) for by, wait in _waits(series, waits)] + [(seen(series.first_mono) + waits.forced, CompletedBy.FORCED)]
    due, by = min(ends, key=lambda end: end[0])  # at equal times the stronger evidence, which stands first
    return Complete(by) if now_mono >= due else Wait(due)


def _waits(series: SeriesArrivals, waits: Waits) -> list[tuple[CompletedBy, float]]:
    """The waits that the evidence allows, the strongest evidence first."""
    contiguous = is_contiguous(series.instances)
    allowed = [CompletedBy.QUIET]
    if contiguous and series.last_association_released and not series.other_open_associations:
        allowed.insert(0, CompletedBy.CONTIGUOUS)
    if is_multiframe(series.instances) or (contiguous and is_announced(series.instances)):
        allowed.insert(0, CompletedBy.ANNOUNCED)
    return [(by, waits.of(by)) for by in allowed]


def is_contiguous(instances: Sequence[Arrival]) -> bool:
    """InstanceNumber is a gap-free run without repeats and positions, where there are any, are evenly spaced."""
    numbers = [i.instance_number for i in instances]
    if None in numbers or not numbers:
        return False
    run = sorted(n for n in numbers if n is not None)
    if any(b - a != 1 for a, b in pairwise(run)):
        return False
    positions = [i.position_mm for i in instances]
    if None in positions:
        return all(p is None for p in positions)
    return evenly_spaced([p for p in positions if p is not None])


def evenly_spaced(positions: Iterable[float]) -> bool:
    """Distinct positions (mm) lie at one distance, 10 % tolerated; repeats (phases, echoes) must be equally many everywhere."""
    counts: dict[float, int] = {}
    for position in positions:
        key = round(position, 2)
        counts[key] = counts.get(key, 0) + 1
    if len(set(counts.values())) > 1:
        return False
    places = sorted(counts)
    gaps = [b - a for a, b in pairwise(places)]
    return not gaps or max(gaps) - min(gaps) <= 0.1 * max(gaps) + 0.02


def is_multiframe(instances: Sequence[Arrival]) -> bool:
    """A single object that holds several frames is a whole series by itself."""
    return len(instances) == 1 and (instances[0].number_of_frames or 0) > 1


def is_announced(instances: Sequence[Arrival]) -> bool:
    """A stated count has arrived: (0020,1209), or (0020,1002) of one acquisition. Scanners repeat both: a hint, no proof."""
    if {i.series_instances for i in instances} == {len(instances)}:
        return True
    acquisitions = {i.acquisition_number for i in instances}
    return len(acquisitions) == 1 and None not in acquisitions and {i.images_in_acquisition for i in instances} == {len(instances)}


@dataclass(frozen=True)
class MissingSlice:
    """A hole: how many slices fit into it, and what it lies before (an InstanceNumber, or a position in mm, of the upper neighbour)."""

    count: int
    before_instance_number: int | None = None
    before_position_mm: float | None = None


def missing_slices(instance_numbers: Sequence[int | None], positions: Sequence[float | None]) -> list[MissingSlice]:
    """Holes of a series; the two lists are parallel, their order and repeats do not matter.

    A hole is where a distance is at least 1.5 times both neighbouring ones, and where InstanceNumber jumps inside a run, unless the
    positions on both sides of the jump are neighbours or have other slices between them. Positions in mm along the slice normal.
    """
    places = sorted({round(p, 2) for p in positions if p is not None})
    holes = _holes_by_position(places)
    return holes + _holes_by_number(instance_numbers, positions, places, [h.before_position_mm for h in holes])


def _holes_by_position(places: list[float]) -> list[MissingSlice]:
    gaps = [b - a for a, b in pairwise(places)]
    holes = []
    for k, gap in enumerate(gaps if len(gaps) > 2 else []):
        neighbours = gaps[max(k - 1, 0):k] + gaps[k + 1:k + 2]
        if all(gap >= 1.5 * other for other in neighbours):
            holes.append(MissingSlice(max(1, round(gap / median(neighbours)) - 1), before_position_mm=places[k + 1]))
    return holes


def _holes_by_number(numbers: Sequence[int | None], positions: Sequence[float | None], places: list[float],
                     known: list[float | None]) -> list[MissingSlice]:
    """Jumps of InstanceNumber that no hole in `known` explains; a jump over more numbers than there are instances begins another run."""
    at: dict[int, float | None] = {}
    for n, p in sorted((n, p) for n, p in zip(numbers, positions, strict=True) if n is not None and p is not None):
        at.setdefault(n, p)
    run = sorted({n for n in numbers if n is not None})
    steps = [b - a for a, b in pairwise(run)]
    if len(steps) < 2:
        return []
    usual, spacing = median(steps), median([b - a for a, b in pairwise(places)]) if len(places) > 1 else 0.0
    holes = []
    for (a, b), step in zip(pairwise(run), steps, strict=True):
        count = round(step / usual) - 1
        if step < 1.5 * usual or not 0 < count <= len(run):
            continue
        low, high = sorted((at[a], at[b])) if a in at and b in at else (None, None)
        if low is not None and high is not None:
            low, high = round(low, 2), round(high, 2)
            neighbours = high - low < 1.5 * spacing
            if neighbours or any(low < p < high for p in places) or high in known:
                continue
        holes.append(MissingSlice(count, before_instance_number=b))
    return holes
