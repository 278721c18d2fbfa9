"""The replay of arrivals: its senders keep their habits, its desk decides as the node's functions say, and the learned wait reaches its goals."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.senders import SENDERS, SERIES, Image, Release, Sender, events
from benchmarks.verdict import GOAL_MEDIAN, GOAL_SPLIT, Desk, Series, figures, replay
from node.quiet import CEILING, FLOOR, Seen
from node.worker import TICK

ROOT = Path(__file__).resolve().parents[2]


def images(sender: Sender, count: int = 60) -> dict[int, list[Image]]:
    """Images by series."""
    found: dict[int, list[Image]] = {}
    for came in events(sender, count, 1):
        if isinstance(came, Image):
            found.setdefault(came.series, []).append(came)
    return found


@pytest.mark.parametrize("sender", SENDERS, ids=[s.name for s in SENDERS])
def test_senders_keep_their_habits(sender: Sender) -> None:
    came = list(events(sender, 60, 1))
    assert came == list(events(sender, 60, 1)) != list(events(sender, 60, 2))
    assert all(a.at <= b.at for a, b in pairwise(came))
    series = images(sender)
    assert sorted(series) == list(range(60))
    assert all(sorted(i.number for i in s) == list(range(1, len(s) + 1)) and len(s) >= sender.images[0] for s in series.values())
    sent = [e for e in came if isinstance(e, Image)]
    inside = [b.at - a.at for a, b in pairwise(sent) if a.series == b.series and a.number < b.number]
    paused = [k for k, s in series.items() if max(b.at - a.at for a, b in pairwise(s)) > 5]
    if sender.uniform_gap:
        assert min(inside) >= 0.3 and 7 < max(inside) < 8
    elif sender.paused_share:
        assert max(inside) <= 40 and 0.1 <= len(paused) / 60 <= 0.5
    else:
        assert max(inside) < 2
    brought_by = {i.association for i in sent}
    least, most = {"image": (len(sent), len(sent)), "day": (1, 1), "acquisition": (30, 60), "piece": (40, 240)}[sender.association]
    assert least <= len(brought_by) <= most
    released = {e.association for e in came if isinstance(e, Release)}
    assert released == (set() if sender.association == "day" else brought_by)


def test_some_reconstructions_are_interleaved() -> None:
    series = images(SENDERS[1])
    ends = [(s[0].at, s[-1].at) for s in series.values()]
    together = sum(any(a < other[0] < b for other in ends) for a, b in ends)
    assert 5 <= together < 60


def arrive(desk: Desk, *times: float, association: int = 1, first: int = 1) -> Series:
    for k, at in enumerate(times):
        desk.image(Image(at, 0, first + k, association))
    return desk.series[0]


def test_the_desk_waits_as_configured() -> None:
    desk = Desk(20.0)
    series = arrive(desk, 1, 2, 3)
    desk.until(22.9)
    assert series.revisions == []
    desk.until(24)
    assert series.revisions == [pytest.approx(23, abs=TICK)] and desk.history == (Seen(0, 1.0),)
    desk = Desk(60.0)
    series = arrive(desk, 1, 2, 3)
    desk.release(Release(3.5, 1))
    desk.until(1000)
    assert series.revisions == [pytest.approx(33, abs=TICK)]  # contiguous


def test_the_desk_counts_parts_and_parks() -> None:
    desk = Desk(20.0)
    series = arrive(desk, 1, 2, 50, 100)
    desk.until(200)
    assert len(series.revisions) == 3 and not series.parked
    assert desk.history == (Seen(0, 50.0, None, True),)
    assert figures([series], 7)["split"] == 1 and figures([series], 7)["median"] == pytest.approx(27, abs=TICK + 0.1)
    arrive(desk, 300, first=9)
    desk.until(400)
    assert series.parked and figures([series], 7) == {
        "series": 1, "median": None, "p90": None, "p99": None, "longest": None, "split": 1, "split_share": 1.0, "parked": 1}


def test_the_learned_wait_reaches_the_goals() -> None:
    """The benchmark's own run, learned wait alone; the steady senders end at the shortest wait, the pausing ones near the longest."""
    desks = {sender.name: replay(sender, SERIES, "auto", 1) for sender in SENDERS}
    found = figures([s for desk in desks.values() for s in desk.series.values()], work=7.5)
    assert found["series"] == 2000 and found["median"] <= GOAL_MEDIAN and found["split_share"] <= GOAL_SPLIT
    assert desks["STEADY1"].waits.quiet == FLOOR and 40 < desks["PAUSING1"].waits.quiet <= CEILING
    assert desks["PAUSING1"].waits.contiguous == FLOOR < desks["PAUSING2"].waits.contiguous


def test_json() -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "verdict.py", "--quick", "--json", "--work", "3"], capture_output=True, text=True,
                          check=True)
    found = json.loads(done.stdout)
    assert (found["series"], found["work_seconds"]) == (300, 3) and set(found["goals"]) == {"median", "median_stretch", "split"}
    assert list(found["lines"]) == ["auto", "auto, never released", "quiet 60", "quiet 5"]
    assert found["lines"]["quiet 60"]["median"] > found["lines"]["quiet 5"]["median"] > 3 + 5 - 0.1
    assert found["lines"]["quiet 5"]["split_share"] > 0.1 > found["lines"]["auto"]["split_share"]
    assert set(found["lines"]["auto"]["senders"]) == {s.name for s in SENDERS}


@pytest.mark.slow
@pytest.mark.model
def test_a_node_that_learned_answers_in_the_budget() -> None:
    """The real thing: twenty small series teach the wait, then 300 slices are in the PACS as report and picture in half a minute."""
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "verdict_node.py", "--quick", "--json"], capture_output=True, text=True,
                          check=True)
    found = json.loads(done.stdout)
    [run] = found["runs"]["auto"]
    assert found["slices"] == 300 and FLOOR <= run["waited"] < FLOOR + 3 and run["waited"] < run["total"] < GOAL_MEDIAN
