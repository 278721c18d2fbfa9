"""The learned wait: hand-made senders, and properties that no history can break."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import quiet
from node.completion import Waits
from node.quiet import (
    CEILING,
    ENOUGH,
    FLOOR,
    LATE,
    RECENT,
    WINDOW,
    Arrived,
    History,
    Learned,
    Seen,
    auto_or_seconds,
    from_text,
    learned,
    to_text,
    unlearned,
    with_learned,
)


def came(*monos: float, first_id: int = 1, start: str | None = "r1", association: int = 1) -> list[Arrived]:
    return [Arrived(first_id + k, mono, start, association) for k, mono in enumerate(monos)]


def history(*longest: float) -> History:
    return tuple(Seen(k, gap) for k, gap in enumerate(longest))


def learn(known: History, series_id: int, arrived: list[Arrived], seen_before: int | None, released: bool = False) -> History:
    return quiet.learn(known, series_id, arrived, seen_before, released)


def learned_wait(known: History) -> float | None:
    return learned(known).quiet


# name, arrivals, seen_before, the longest gap and whether it was split (None: nothing is learned)
LESSONS = [
    ("one image says nothing", came(5), None, None),
    ("two images", came(5, 7.5), None, (2.5, False)),
    ("the longest of several, wherever it is", came(0, 1, 9, 9.5, 12), None, (8, False)),
    ("several at once", came(3, 3, 3), None, (0, False)),
    ("adopted at start: no receiver saw the gap", came(0, 1, 30, start=None), None, None),
    ("the gap over a restart of the receiver is not the sender's", came(0, 2) + came(40, 41, first_id=3, start="r2"), None, (2, False)),
    ("a boot between: the clock began anew", came(900, 902) + came(3, 4, first_id=3, start="r2"), None, (2, False)),
    ("time that runs backwards is no gap", came(10, 4), None, None),
    ("LATE still counts", came(0, LATE), None, (LATE, False)),
    ("after LATE it is another delivery", came(0, 1, 1 + LATE + 0.1), None, (1, False)),
    ("the rest came after completion: the pause counts", came(0, 1, 35, 36), 2, (34, True)),
    ("the same images again, or an operator's word", came(0, 1, 2), 3, None),
    ("the rest came a day later", came(0, 1, 86400, 86401), 2, None),
    ("the rest came after a restart", came(0, 1) + came(35, 36, first_id=3, start="r2"), 2, None),
]


@pytest.mark.parametrize(("arrived", "seen_before", "expected"), [c[1:] for c in LESSONS], ids=[c[0] for c in LESSONS])
def test_what_one_series_teaches(arrived: list[Arrived], seen_before: int | None, expected: tuple[float, bool] | None) -> None:
    known = history(1.0)
    assert learn(known, 7, arrived, seen_before) == (
        known if expected is None else (*known, Seen(7, expected[0], None, expected[1])))


def test_gaps_between_associations_are_known_apart() -> None:
    """What follows the end of an association is a gap to another one; a pause on an open one is not."""
    one_each = [Arrived(k, 3.0 * k, "r1", k) for k in range(4)]
    assert learn((), 7, one_each, None) == (Seen(7, 3.0, 3.0),)
    assert learn((), 7, one_each, None, released=True) == (Seen(7, 3.0, 3.0),)
    # one association: what would have followed its end is known only where it ended while the node waited
    assert learn((), 7, came(0, 20), None, released=True) == (Seen(7, 20.0, 0.0),)
    assert learn((), 7, came(0, 20), None, released=False) == (Seen(7, 20.0, None),)
    paused = came(0, 1, 21) + came(23, 24, first_id=4, association=2)
    assert learn((), 7, paused, None) == (Seen(7, 20.0, 2.0),)
    cut = came(0, 1) + came(35, 36, first_id=3, association=2)
    assert learn(learn((), 7, cut[:2], None), 7, cut, 2) == (Seen(7, 34.0, 34.0, True),)


def test_a_split_series_is_one_lesson() -> None:
    """Its first half taught a gap of a second; what the whole taught takes that place."""
    known = learn(history(3.0), 7, came(0, 1), None)
    known = learn(known, 8, came(0, 2, first_id=50), None)
    known = learn(known, 7, came(0, 1, 35, 36), 2)
    assert known == (Seen(0, 3.0), Seen(7, 34.0, None, True), Seen(8, 2.0))


WAITS_LEARNED = [
    # name, history, wait
    ("not enough", history(*[1.0] * (ENOUGH - 1)), None),
    ("just enough", history(*[1.0] * ENOUGH), FLOOR),
    ("little is known: 2.25 times", history(*[8.0] * 20), 18),
    ("much is known: 1.35 times", history(*[8.0] * 200), 11),
    ("a long pause", history(*[0.5] * 20, 12.0), 27),
    ("no longer than the ceiling", history(*[50.0] * 200), CEILING),
    ("one freak of 200, long ago", history(90.0, *[1.0] * 199), FLOOR),
    ("one freak of 198, long ago", history(90.0, *[1.0] * 197), CEILING),
    ("two of 200, long ago", history(30.0, 40.0, *[1.0] * 198), math.ceil(30 * 1.35)),
    ("one freak, just now", history(*[1.0] * 199, 30.0), math.ceil(30 * 1.35)),
    ("the recent ones end here", history(*[1.0] * 180, 30.0, *[1.0] * (RECENT - 1)), math.ceil(30 * 1.35)),
    ("and not here", history(*[1.0] * 179, 30.0, *[1.0] * RECENT), FLOOR),
]


@pytest.mark.parametrize(("known", "wait"), [c[1:] for c in WAITS_LEARNED], ids=[c[0] for c in WAITS_LEARNED])
def test_the_wait(known: History, wait: float | None) -> None:
    assert learned_wait(known) == wait


def test_what_is_forgotten() -> None:
    known: History = ()
    for k in range(WINDOW + 5):
        known = learn(known, k, came(0, 1 + k, first_id=10 * k), None)
    assert [seen.series_id for seen in known] == list(range(5, WINDOW + 5))


def test_a_sender_that_begins_to_pause_is_cut_once() -> None:
    """100 quick series, then a pause of 40 s in each: the first is cut, its rest teaches, the next is waited for."""
    known: History = ()
    cuts = []
    for k in range(140):
        pause = 40.0 if k >= 100 else 1.0
        wait = with_learned(Waits(CEILING, CEILING, 5, 7200), learned(known)).quiet
        monos = [0.0, 0.5, 0.5 + pause, 1 + pause]
        if wait >= pause:
            known = learn(known, k, came(*monos), None)
        else:
            cuts.append(k)
            known = learn(known, k, came(*monos[:2]), None)
            known = learn(known, k, came(*monos), 2)
    assert cuts == [100]
    assert (learned_wait(known) or 0) > 40 and known[100] == Seen(100, 40.0, None, True)


def test_waits() -> None:
    waits = unlearned("auto", 30, 5, 7200)
    assert waits == Waits(CEILING, 30, 5, 7200) == with_learned(waits, Learned()) == with_learned(waits, Learned(math.nan, math.nan))
    assert unlearned(12.5, 30, 5, 7200) == Waits(12.5, 30, 5, 7200)
    assert with_learned(waits, Learned(50, 12)) == Waits(50, 12, 5, 7200)
    # a sender that pauses 40 s between associations looks contiguous in the pause: longer than configured
    assert with_learned(waits, Learned(54, 54)) == Waits(54, 54, 5, 7200)
    # while it is learned, the configured wait is only made longer: 2.25 times the longest gap between associations
    assert with_learned(waits, Learned(None, None, 13)) == waits and with_learned(waits, Learned(None, None, 20)) == Waits(CEILING, 45, 5, 7200)
    assert with_learned(waits, Learned(None, None, 13.4)).contiguous == 31
    assert with_learned(waits, Learned(7, None, 300)) == Waits(7, CEILING, 5, 7200) and with_learned(waits, Learned(7, None, math.nan)).contiguous == 30
    assert with_learned(waits, Learned(0, -1)) == Waits(FLOOR, FLOOR, 5, 7200)
    assert with_learned(waits, Learned(math.inf, math.inf)) == Waits(CEILING, CEILING, 5, 7200)


def test_the_two_waits() -> None:
    assert learned(tuple(Seen(k, 30.0, 2.0) for k in range(WINDOW))) == Learned(41, FLOOR, 2.0)
    assert learned(tuple(Seen(k, 30.0, 30.0) for k in range(WINDOW))) == Learned(41, 41, 30.0)
    assert learned(()) == Learned() and learned((Seen(1, 20.0, 20.0),)) == Learned(None, None, 20.0)
    # a sender that keeps its associations open says nothing about what would follow their end, however many series it sent
    ended = [Seen(WINDOW + k, 1.0, 0.0) for k in range(ENOUGH)]
    assert learned(history(*[1.0] * WINDOW)) == Learned(FLOOR, None, 0.0)
    assert learned((*history(*[1.0] * 100), *ended[1:])).contiguous is None
    assert learned((*history(*[1.0] * 100), *ended)).contiguous == FLOOR
    # the few that ended paused longer than most: never longer than the wait without that evidence
    assert learned((*history(*[1.0] * 180), *(Seen(500 + k, 20.0, 20.0) for k in range(ENOUGH)))) == Learned(27, 27, 20.0)


@pytest.mark.parametrize("value", ["AUTO", "60", True, None, 0.05, 86401, math.inf, math.nan, (1,)])
def test_what_is_no_wait(value: object) -> None:
    with pytest.raises(ValueError, match="neither"):
        auto_or_seconds(value)
    assert auto_or_seconds("auto") == "auto" and auto_or_seconds(60) == 60.0


@pytest.mark.parametrize("text", [None, "", "{", "null", "3", "[1]", '["abc"]', "[[1,2,2]]", "[[1,-1,-1,0]]", "[[1,NaN,0,0]]",
                                  "[[1,1e400,0,0]]", "[[1,601,0,0]]", "[[1,2,3,0]]", "[[1,null,0,0]]", "[[1,2,NaN,0]]", "[" * 100000])
def test_a_damaged_history_is_none(text: str | None) -> None:
    assert from_text(text) == ()


gaps = st.floats(0, LATE)
pairs = st.tuples(gaps, gaps | st.none()).map(lambda p: (round(p[0], 3), None if p[1] is None else min(round(p[0], 3), round(p[1], 3))))
histories = st.lists(pairs, max_size=2 * WINDOW).map(lambda all_: tuple(Seen(k, long, short) for k, (long, short) in enumerate(all_[-WINDOW:])))


@settings(max_examples=200, deadline=None)
@given(histories)
def test_any_history_stays_in_its_limits_and_survives_the_database(known: History) -> None:
    wait, run = learned(known).quiet, learned(known).contiguous
    assert (wait is None) == (len(known) < ENOUGH) and (run is None) == (sum(s.between is not None for s in known) < ENOUGH)
    assert all(w is None or (FLOOR <= w <= CEILING and w == int(w)) for w in (wait, run))
    assert run is None or (wait is not None and run <= wait)
    assert from_text(to_text(known)) == known
    json.loads(to_text(known))
    if wait is not None and wait < CEILING:  # but for one in a hundred, no remembered series would be cut, nor any of the recent ones
        assert sum(seen.longest > wait for seen in known) <= len(known) / 100
        assert all(seen.longest <= wait for seen in known[-RECENT:])


@settings(max_examples=200, deadline=None)
@given(histories, st.integers(0, 2 * WINDOW), gaps)
def test_longer_pauses_never_shorten_the_wait(known: History, place: int, more: float) -> None:
    if not known:
        return
    at = place % len(known)
    longer = tuple(Seen(s.series_id, min(LATE, s.longest + more), s.between) if k == at else s for k, s in enumerate(known))
    assert (learned_wait(longer) or 0) >= (learned_wait(known) or 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=30), st.integers(1, 29))
def test_cutting_a_series_anywhere_hides_nothing(steps: list[float], cut: int) -> None:
    """Learned in two parts or at once: the same longest gap."""
    monos = [sum(steps[:k + 1]) for k in range(len(steps))]
    whole = learn((), 1, came(*monos), None)
    cut = min(cut, len(monos) - 1)
    parts = learn(learn((), 1, came(*monos[:cut]), None), 1, came(*monos), cut)
    assert [s.longest for s in parts] == [s.longest for s in whole] == [round(max(b - a for a, b in pairwise(monos)), 3)]
    assert parts[0].split and not whole[0].split
