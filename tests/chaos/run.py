"""`make chaos`: senders at full speed, faults by a seeded schedule, then the checks. `python -m tests.chaos.run --kills 1000`.

Prints a line each minute, a table at the end, and writes `chaos.json`. The schedule of faults follows from the seed alone; what a fault hits
depends on the machine, so a violation names its moment and what was done around it, and the data folder is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from tests.chaos import check
from tests.chaos.hands import Hands
from tests.chaos.node import ChaosNode, Disk
from tests.chaos.pacs import CountingPacs
from tests.chaos.poison import Poison
from tests.chaos.schedule import LAST_FAULT, schedule
from tests.chaos.senders import Sender, make_senders
from tests.chaos.truth import Stopwatch, Truth
from tests.support.wall_clock import WallClock

PATIENCE = 4.0
"""deliver.timeout of the node, seconds; a late answer takes twice that."""
QUIET_AFTER = 900.0
"""Seconds that the node gets to finish everything; its longest pause after a failed attempt but one is 300 s."""


@dataclass
class Plan:
    """seed: of the schedule and the senders. Ends after `kills` hits or `minutes`. gap, fault_gap: mean seconds between kills, other faults.

    backlog: unfinished series and deliveries from which on senders send old series again. megabytes: of the small disk.
    """

    folder: Path
    seed: int = 1
    kills: int = 1000
    minutes: float = float("inf")
    gap: float = 2.5
    fault_gap: float = 15.0
    backlog: int = 40
    megabytes: int = 6000
    library_senders: int = 2
    say: Callable[[str], None] = print


@dataclass
class Outcome:
    """Figures of a run and what did not hold."""

    figures: dict[str, Any]
    violations: list[str] = field(default_factory=list)


def run(plan: Plan) -> Outcome:
    """One run; the folder keeps the node's log, the driver's record and, after violations, the node's data."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    since, began = Stopwatch(), datetime.now(UTC)
    compiler = shutil.which("cc")
    with ExitStack() as stack:
        disk = Disk(plan.folder / "disk", plan.megabytes)
        stack.callback(disk.unmount)
        clock = WallClock(plan.folder / "clock") if compiler else None
        poison = Poison(plan.folder / "poison", compiler) if compiler else None
        environment = dict(clock.environment) if clock else {}
        if poison is not None:
            environment |= poison.environment | {"LD_PRELOAD": f"{environment['LD_PRELOAD']}:{poison.environment['LD_PRELOAD']}"}
        pacs = [stack.enter_context(CountingPacs(name, 2 * PATIENCE)) for name in ("FIRST", "SECOND")]
        node = ChaosNode(disk.folder / "node", plan.folder / "node.log", [(p.ae_title.lower(), p.ae_title, p.port) for p in pacs],
                         environment, PATIENCE)
        truth = Truth(plan.folder / "truth", plan.seed, since, None if poison is None else
                      lambda study, series, sop: poison.put(check.object_path(study, series, sop)))
        hands = Hands(node, disk, pacs, clock, since, plan.folder / "faults.txt")
        stack.callback(node.stop)
        node.start()
        load = _Load(node, plan.backlog)
        senders = make_senders(truth, node.port, plan.seed, load.is_high, plan.library_senders)
        _storm(plan, hands, load, truth, senders, since)
        storm_seconds = since()
        hands.tidy(all_of_it=True)
        for sender in senders:
            sender.finish()
        for sender in senders:
            sender.join(300)
        violations = _quiesce(plan, node, truth, senders, since)
        violations += chain(check.stored(node, truth), check.ended(node, truth), *(check.delivered(node, p, p.ae_title.lower()) for p in pacs),
                            check.tidy(node), check.accepts(node, truth))
        figures = _figures(plan, node, truth, hands, pacs, senders, violations)
        figures |= {"began": began.strftime("%Y-%m-%dT%H:%M:%SZ"), "storm_seconds": round(storm_seconds), "seconds": round(since()),
                    "left_out": [w for w in (disk.why_not and f"full disk: {disk.why_not}", "" if compiler else "clock and poison: no cc") if w]}
        said = [f"seed {plan.seed}, {v.moment:.1f} s: {v.rule}: {v.text}; around it: {', '.join(hands.near(v.moment)) or 'nothing'}"
                for v in violations]
        (plan.folder / "chaos.json").write_text(json.dumps({**figures, "violations": said, "moments": hands.moments}, indent=1) + "\n")
        if said:
            shutil.copytree(node.folder, plan.folder / "kept", dirs_exist_ok=True)
    return Outcome(figures, said)


class _Load:
    """How much the node has to do, asked at most twice a second."""

    def __init__(self, node: ChaosNode, limit: int) -> None:
        self._node, self._limit, self.now, self._next = node, limit, 0, 0.0

    def is_high(self) -> bool:
        return self.now > self._limit

    def look(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.5
            try:
                self.now = check.unfinished(self._node)
            except Exception:  # the database is being made, or its disk is full
                pass


class _LiveTime:
    """The time of the schedule: it runs slower while the node is starting, so that a busy machine gets as much work done between two kills."""

    def __init__(self, node: ChaosNode) -> None:
        self._node, self._last, self.now = node, time.monotonic(), 0.0

    def look(self) -> float:
        ready = [self._node.is_ready(what) for what in ("receiver", "worker")]
        rate = 1.0 if all(ready) else 0.5 if any(ready) else 0.2
        last, self._last = self._last, time.monotonic()
        self.now += (self._last - last) * rate
        return self.now


def _storm(plan: Plan, hands: Hands, load: _Load, truth: Truth, senders: list[Sender], since: Stopwatch) -> None:
    """Senders and faults, until enough was killed or the time is over."""
    for sender in senders:
        sender.start()
    next_line, ends, live = since() + 60, since() + plan.minutes * 60, _LiveTime(hands.node)
    for event in schedule(plan.seed, plan.gap, plan.fault_gap, hands.kinds()):
        while live.look() < event.at and since() < ends:
            time.sleep(0.05)
            hands.tidy()
            load.look()
        if since() >= next_line:
            next_line = since() + 60
            plan.say(_line(hands, truth, load, since()))
        if hands.kills() >= plan.kills or since() >= ends:
            return
        hands.do(event)


def _line(hands: Hands, truth: Truth, load: _Load, now: float) -> str:
    return (f"{now / 60:4.0f} min: {hands.kills()} kills, {len(truth.acknowledged)} instances acknowledged ({truth.answers} answers), "
            f"{len(truth.series)} series, {load.now} to do, {sum(len(p.held) for p in hands.pacs)} results at the PACSs")


def _quiesce(plan: Plan, node: ChaosNode, truth: Truth, senders: list[Sender], since: Stopwatch) -> list[check.Violation]:
    """Nothing is sent and nothing goes wrong any more: the node finishes what it has."""
    found = [check.Violation("stuck", f"sender {s.name} did not get through: {s.failure or 'it still tries'}", since())
             for s in senders if s.is_alive() or s.failure is not None]
    deadline, next_line = time.monotonic() + QUIET_AFTER, time.monotonic() + 60
    time.sleep(LAST_FAULT / 2)
    while (left := check.unfinished(node)) and time.monotonic() < deadline:
        time.sleep(0.5)
        if time.monotonic() > next_line:
            next_line += 60
            plan.say(f"{since() / 60:4.0f} min: quiet, {left} to do")
    return [*found, *([check.Violation("without end", f"{left} things are unfinished after {QUIET_AFTER:.0f} s of quiet", since())] if left else [])]


def _figures(plan: Plan, node: ChaosNode, truth: Truth, hands: Hands, pacs: list[CountingPacs], senders: list[Sender],
             violations: list[check.Violation]) -> dict[str, Any]:
    rules = Counter(v.rule for v in violations)
    log = node.log.read_text(errors="replace")
    ends = Counter("/".join(filter(None, (r["outcome"], r["reason"]))) for r in node.rows("select outcome, reason from revision"))
    return {"seed": plan.seed, "kills": hands.kills(), "faults": dict(sorted(hands.done.items())), "node_starts": node.starts,
            "acknowledged": len(truth.acknowledged), "answers": truth.answers, "series": len(truth.series),
            "revisions": sum(ends.values()), "ends": dict(ends.most_common()), "senders": {s.name: s.calls for s in senders},
            "results_at_pacs": {p.ae_title: len(p.held) for p in pacs},
            "sent_again": {p.ae_title: sum(sum(c.values()) - 1 for c in p.copies.values()) for p in pacs},
            "answers_lost": {p.ae_title: p.unanswered for p in pacs}, "tracebacks": log.count("Traceback"),
            "lost": rules["lost"], "doubled": rules["doubled"], "without_end": rules["without end"], "other": sum(
                n for rule, n in rules.items() if rule not in ("lost", "doubled", "without end"))}


def main(arguments: list[str] | None = None) -> int:
    """0 when everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=None, help="ends after so many; default: 1000, without end where minutes are given")
    parser.add_argument("--minutes", type=float, default=None, help="ends after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gap", type=float, default=2.5, help="mean seconds between kills")
    parser.add_argument("--fault-gap", type=float, default=15.0, help="mean seconds between other faults")
    parser.add_argument("--megabytes", type=int, default=6000, help="of the small file system in memory")
    parser.add_argument("--folder", type=Path, default=None, help="kept; default: a new one below the system's temporary folder")
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mediqa-chaos-"))
    kills = options.kills or (1000 if options.minutes is None else sys.maxsize)
    done = run(Plan(folder, options.seed, kills, options.minutes or float("inf"), options.gap, options.fault_gap, megabytes=options.megabytes,
                    say=lambda line: print(line, flush=True)))
    width = max(map(len, done.figures))
    for name, value in done.figures.items():
        print(f"{name:{width}}  {json.dumps(value) if isinstance(value, (dict, list)) else value}")
    for line in done.violations:
        print(line)
    print(f"log and record: {folder}")
    return 1 if done.violations else 0


if __name__ == "__main__":
    sys.exit(main())
