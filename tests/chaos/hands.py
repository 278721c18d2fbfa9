"""The hands that make faults: each event of the schedule is done here, noted with its moment, and undone when its time is over."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.node import ChaosNode, Disk
from tests.chaos.pacs import CountingPacs
from tests.chaos.schedule import Event
from tests.support.wall_clock import WallClock

LITTLE = 32 * 2**20
"""Bytes left when the disk is filled below the reserve of the configuration, 64 MiB."""

STARTING = 0.25
"""Share of the kills that may hit a process that is still starting; the others wait until it has said that it is ready."""


@dataclass
class Hands:
    """since: seconds since the start. clock: None where the wall clock cannot be stepped. record: file that tells what was done, as it is done."""

    node: ChaosNode
    disk: Disk
    pacs: list[CountingPacs]
    clock: WallClock | None
    since: Callable[[], float]
    record: Path
    done: Counter[str] = field(default_factory=Counter)
    """Fault -> how often; kills are counted when a process was hit."""
    moments: list[tuple[float, str]] = field(default_factory=list)
    _undo: list[tuple[float, Callable[[], Any]]] = field(default_factory=list)

    def kinds(self) -> tuple[str, ...]:
        """Faults that are possible here."""
        return tuple(k for k, there in (("pacs", True), ("lock", True), ("full", not self.disk.why_not), ("clock", self.clock is not None)) if there)

    def do(self, event: Event) -> None:
        """Begin a fault; a kill is done at once."""
        what = f"{event.kind} {event.what}"
        if event.kind == "kill":
            hit = self._kill(event)
            if not hit:
                return
            what = f"kill {hit}"
        elif event.kind == "pacs":
            pacs = self.pacs[int(event.amount) % len(self.pacs)]
            pacs.be(event.what)
            self._later(event, lambda: pacs.be("well"))
            what += f" {pacs.ae_title}"
        elif event.kind == "lock":
            threading.Thread(target=self._lock, args=(event.seconds,), daemon=True).start()
        elif event.kind == "full":
            self.disk.fill(LITTLE if event.what == "reserve" else 0)
            self._later(event, self.disk.clear)
        elif self.clock is not None:
            # the sum stays within a few hours, or deliver.give_up_after would end what nobody took
            hours = event.amount if abs(self.clock.seconds / 3600 + event.amount) <= 20 else -event.amount
            self.clock.step(hours)
            what += f" {hours:+g} h"
        self.done[what if event.kind == "kill" else f"{event.kind} {event.what}"] += 1
        self.moments.append((self.since(), what + (f" for {event.seconds} s" if event.seconds else "")))
        with self.record.open("a", encoding="ascii") as record:
            record.write(f"{self.moments[-1][0]:.1f} {self.moments[-1][1]}\n")

    def tidy(self, all_of_it: bool = False) -> None:
        """Undo what is over, or everything."""
        due = [u for u in self._undo if all_of_it or u[0] <= self.since()]
        self._undo = [u for u in self._undo if u not in due]
        for _, undo in due:
            undo()

    def near(self, moment: float, seconds: float = 5.0) -> list[str]:
        """What was done within `seconds` of a moment, for the report of a violation."""
        return [f"{at:.1f} {what}" for at, what in self.moments if abs(at - moment) <= seconds]

    def kills(self) -> int:
        return sum(n for what, n in self.done.items() if what.startswith("kill "))

    def _kill(self, event: Event) -> str:
        """Whom it hit, "" for nobody: where the one that was meant is absent or still starts, the receiver is hit, if that is ready."""
        how = self.node.kill(event.what, event.amount < STARTING)
        if how == "killed":
            return event.what
        self.done[f"put off: {event.what} {how}"] += 1
        return "receiver" if event.what != "receiver" and self.node.kill("receiver", starting=False) == "killed" else ""

    def _later(self, event: Event, undo: Callable[[], Any]) -> None:
        self._undo.append((self.since() + event.seconds, undo))

    def _lock(self, seconds: float) -> None:
        """A foreign program holds the write lock of the database."""
        if not self.node.database.exists():
            return
        con = sqlite3.connect(self.node.database, timeout=5, isolation_level=None)
        try:
            con.execute("begin exclusive")
            threading.Event().wait(seconds)
            con.execute("rollback")
        except sqlite3.Error:
            pass  # the node was faster for five seconds, or the disk is full
        finally:
            con.close()
