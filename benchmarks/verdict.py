"""Seconds from the last image to the report in the PACS, and the share of series cut in two: the learned wait beside fixed ones.

    python benchmarks/verdict.py [--json] [--quick] [--work SECONDS] [--seed N]

Replays 2,000 series of the ten senders of `benchmarks/senders.py` on a simulated clock, learning phase included. What is complete, and when,
is decided by the node's own functions (`node.completion.decide`, `node.quiet`), asked when the worker would ask them. `--quick` replays 300.
Goals: a median of at most 30 s (15 is the stretch), at most 0.5 % of series cut.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.senders import SEED, SENDERS, SERIES, SPACING, Image, Release, Sender, events
from node.completion import Arrival, Complete, CompletedBy, SeriesArrivals, Waits, decide
from node.config import Config
from node.quiet import ENOUGH, FLOOR, Arrived, History, learn, learned, unlearned, with_learned
from node.worker import TICK

WORK = 7.5
"""Seconds from a complete series to its report in the PACS: read, score, render, deliver. A parameter, taken above what
`benchmarks/verdict_node.py` finds for 300 CT slices on two busy cores: 4 to 6 s, 2 to 3 s where the engine worked before the wait was over."""
GOAL_MEDIAN, STRETCH_MEDIAN, GOAL_SPLIT = 30.0, 15.0, 0.005
QUICK_SERIES = 30
BOOT, DAY = "simulated", 86400.0
LINES: dict[str, tuple[float | str, bool]] = {
    "auto": ("auto", False), "auto, never released": ("auto", True), "quiet 60": (60.0, False), "quiet 5": (5.0, False)}
"""Value of `completion.quiet` (the other keys have their defaults), and whether every sender keeps its associations open for ever."""


@dataclass
class Series:
    """A series that arrives; times are seconds of the simulated clock."""

    number: int
    arrived: list[Arrived] = field(default_factory=list)
    instances: list[Arrival] = field(default_factory=list)
    associations: list[int] = field(default_factory=list)
    open_since: float | None = None
    revisions: list[float] = field(default_factory=list)
    seen_before: int | None = None
    parked: bool = False

    @property
    def last(self) -> float:
        return self.arrived[-1].mono


class Desk:
    """`node.arrivals.ArrivalDesk` for one sender, on a simulated clock and without rows; the decisions are the node's own."""

    def __init__(self, quiet: float | str) -> None:
        c = Config().completion
        self._auto, self._limit = quiet == "auto", c.revisions_per_day
        self._unlearned = unlearned(quiet, c.contiguous, c.announced, c.forced)
        self._shortest = min(self._unlearned.shortest, FLOOR) if self._auto else self._unlearned.shortest
        self.history: History = ()
        self.series: dict[int, Series] = {}
        self._open: dict[int, Series] = {}
        self._released: set[int] = set()
        self._now, self._instances = 0.0, 0

    @property
    def waits(self) -> Waits:
        return with_learned(self._unlearned, learned(self.history)) if self._auto else self._unlearned

    def image(self, came: Image) -> None:
        """An image has arrived; it opens its series, or opens it again."""
        self.until(came.at)
        series = self.series.setdefault(came.series, Series(came.series))
        self._instances += 1
        series.arrived.append(Arrived(self._instances, came.at, "receiver", came.association))
        series.instances.append(Arrival(came.at, came.number, SPACING * came.number, 1))
        series.associations.append(came.association)
        if not series.parked:
            series.open_since = came.at if series.open_since is None else series.open_since
            self._open[came.series] = series

    def release(self, came: Release) -> None:
        self.until(came.at)
        self._released.add(came.association)

    def until(self, at: float) -> None:
        """Let the clock run until `at`: the worker looks each TICK and completes what is due."""
        while due := [(when, series) for series in self._open.values() if (when := self._due(series, at)) <= at]:
            self._now, series = min(due, key=lambda entry: (entry[0], entry[1].number))
            self._complete(series)
        self._now = max(self._now, at) if math.isfinite(at) else self._now

    def _due(self, series: Series, before: float) -> float:
        """The look at which `series` will be taken for complete if nothing else comes; infinite if that is not before `before`."""
        now, opened = max(self._now, series.last), series.open_since or 0.0
        if min(series.last + self._shortest, opened + self._unlearned.forced) > before:
            return math.inf
        last = series.associations[-1]
        others = any(a != last and a not in self._released for a in set(series.associations))
        known = SeriesArrivals(tuple(series.instances), opened, series.last, BOOT, last in self._released, others)
        said = decide(known, now, BOOT, self.waits, 0.0)
        return TICK * math.ceil((now if isinstance(said, Complete) else said.until_mono) / TICK)

    def _complete(self, series: Series) -> None:
        self._open.pop(series.number)
        series.open_since = None
        if sum(at > self._now - DAY for at in series.revisions) >= self._limit:
            series.parked = True
            return
        series.revisions.append(self._now)
        self.history = learn(self.history, series.number, series.arrived, series.seen_before,
                             series.associations[-1] in self._released)
        series.seen_before = series.arrived[-1].instance_id


def replay(sender: Sender, count: int, quiet: float | str, seed: int) -> Desk:
    """The desk after all `count` series of `sender` have come and the last wait is over."""
    desk = Desk(quiet)
    for came in events(sender, count, seed):
        if isinstance(came, Image):
            desk.image(came)
        else:
            desk.release(came)
    desk.until(math.inf)
    return desk


def figures(series: list[Series], work: float) -> dict[str, Any]:
    """Of these series: seconds from last image to report (parked ones have none), and how many were cut."""
    seconds = [s.revisions[-1] - s.last + work for s in series if not s.parked]
    split = sum(len(s.revisions) > 1 or s.parked for s in series)
    quantiles = {name: round(float(np.quantile(seconds, q)), 1) if seconds else None
                 for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("longest", 1.0))}
    return {"series": len(series), **quantiles, "split": split, "split_share": round(split / len(series), 5),
            "parked": sum(s.parked for s in series)}


def summary(desks: dict[str, Desk], work: float) -> dict[str, Any]:
    """Figures of all series, of those before and after their sender was known, and by sender with its waits at the end (quiet, contiguous)."""
    everything = [s for desk in desks.values() for s in desk.series.values()]
    parts = {"first series": [s for s in everything if s.number < ENOUGH], "later series": [s for s in everything if s.number >= ENOUGH]}
    return {**figures(everything, work), "parts": {name: figures(part, work) for name, part in parts.items() if part},
            "senders": {name: {**figures(list(desk.series.values()), work), "waits": [desk.waits.quiet, desk.waits.of(CompletedBy.CONTIGUOUS)]}
                        for name, desk in desks.items()}}


def run(count: int, work: float, seed: int) -> dict[str, Any]:
    """The whole object that `--json` prints."""
    lines: dict[str, Any] = {}
    for name, (quiet, never_released) in LINES.items():
        print(f"verdict: {name}", file=sys.stderr, flush=True)
        desks = {sender.name: replay(replace(sender, association="day") if never_released else sender, count, quiet, seed)
                 for sender in SENDERS}
        lines[name] = summary(desks, work)
    auto = lines["auto"]
    goals = {"median": auto["median"] <= GOAL_MEDIAN, "median_stretch": auto["median"] <= STRETCH_MEDIAN,
             "split": auto["split_share"] <= GOAL_SPLIT}
    return {"series": count * len(SENDERS), "seed": seed, "work_seconds": work, "lines": lines, "goals": goals}


def show(found: dict[str, Any]) -> None:
    """Tables on stdout."""
    columns = ("median", "p90", "p99", "longest", "split", "split_share", "parked")
    head = f"{'':24}" + "".join(f"{c:>12}" for c in columns)
    print(f"Seconds from last image to report in the PACS, {found['work_seconds']:g} s of work included; {found['series']} series, seed {found['seed']}")
    print(head)

    def line(name: str, values: dict[str, Any], more: str = "") -> None:
        print(f"{name:24}" + "".join(f"{'-' if values[c] is None else values[c]:>12}" for c in columns) + more)

    for name, values in found["lines"].items():
        line(name, values)
        for part, of in values["parts"].items():
            line(f"  {part}", of)
    for name, values in found["lines"].items():
        print(f"\n{name}, by sender\n{head}{'waits':>10}")
        for sender, of in values["senders"].items():
            line(f"  {sender}", of, f"{of['waits'][0]:>6g}/{of['waits'][1]:g}")
    print("\nGoals (auto): " + ", ".join(f"{name} {'reached' if reached else 'MISSED'}" for name, reached in found["goals"].items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SERIES} series of each sender instead of {SERIES}")
    parser.add_argument("--work", type=float, default=WORK, help=f"seconds from a complete series to its report in the PACS ({WORK:g})")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    found = run(QUICK_SERIES if options.quick else SERIES, options.work, options.seed)
    if options.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
