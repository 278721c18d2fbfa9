"""The worker process: `python -m node.worker --config PATH`. One per database, held by a lock.

Its loop, on the monotonic clock: series that are complete become revisions, due deliveries go to the workflow engine, the clock is
watched, and once a minute the tables are compared with the engine and the audit log is anchored. It may be killed at any moment.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.config import Config, ConfigError, load
from node.log import configure, event, tell_unexpected
from node.serve import StartError, lock

log = logging.getLogger("node.worker")

TICK = 0.3
"""Seconds between looks at open series and due deliveries."""
UNFINISHED_EVERY, REPAIR_EVERY = 10.0, 60.0
"""Seconds between looks at revisions without end, and between whole rounds of repair."""
DRAIN_SECONDS = 25.0
"""Time that running workflows get at SIGTERM; a C-STORE or a series in the middle is resumed at the next start otherwise."""
FAILED, WRONG_USE = 1, 2


class Worker:
    """The parts of the worker and the loop that calls them.

    assess: files of one series -> Assessment. render: (workplace, policy) -> `node.steps.Render`.
    """

    def __init__(self, config: Config, assess: Callable[..., Any], render: Callable[..., Any]) -> None:
        from node.arrivals import ArrivalDesk
        from node.build import open_workplace, policy_of, sender_of
        from node.early import EarlyWork
        from node.repair import Repair
        from node.retention import Retention
        from node.steps import RevisionSteps
        from node.timers import ClockWatch, KeptClock
        from node.workflow import WorkflowEngine
        from storage.clock import boot_id
        from storage.database import database_url

        self.place = open_workplace(config)
        self.place.sweep_parts()
        self._awake = threading.Event()
        self._stop = threading.Event()
        self.early = EarlyWork(self.place, assess, lambda: not self.repair.waiting()) if config.completion.quiet == "auto" else None
        sender = sender_of(self.place)
        steps = RevisionSteps(self.place, self.early.assess if self.early else assess, render(self.place, policy_of(config)), sender,
                              self._awake.set)
        self.engine = WorkflowEngine(database_url(config.database_target), config.node.name, steps,
                                     "FULL" if config.storage.durability == "full" else "NORMAL")
        self.desk = ArrivalDesk(self.place, self.engine.enqueue_assess, self.early)
        self.repair = Repair(self.place, self.engine, busy=sender.busy)
        self.retention = Retention(self.place)
        self.kept_clock = KeptClock(config.node.name, boot_id())
        with self.place.reader.connect() as conn:
            self.clock = ClockWatch(offset=self.kept_clock.read(conn))

    def run(self) -> None:
        """Until `stop` is called; running workflows then get some time to end."""
        from node.build import daily_jobs
        from node.timers import Timers
        from node.workplace import ACTOR

        self.engine.launch()
        timers = Timers(daily_jobs(self.place), lambda name: event(log, "timed job failed", logging.ERROR, job=name))
        others = [threading.Thread(target=self._name_versions, name="versions", daemon=True)]
        if self.early is not None:
            others.append(threading.Thread(target=self.early.run, name="early", daemon=True))
        if self.retention.wanted:
            others.append(threading.Thread(target=self.retention.run, name="retention", daemon=True))
        self._tell_start()
        self.repair.run()
        timers.start()
        for thread in others:
            thread.start()
        event(log, "worker runs")
        try:
            self._loop(timers)
        finally:
            timers.stop()
            self.retention.stop()
            if self.early is not None:
                self.early.stop()
            self.engine.stop(DRAIN_SECONDS)
            for thread in others:
                thread.join(5)
            with self.place.durable.begin() as conn:
                self.place.audit.append(conn, "application-stop", ACTOR)
            self._guarded(self.place.audit.anchor)

    def stop(self) -> None:
        self._stop.set()
        self._awake.set()

    def _tell_start(self) -> None:
        """The audit log hears of the start, and whether the configuration is another one than at the last start."""
        from node.workplace import ACTOR

        audit, now = self.place.audit, self.place.config.digest
        starts = [r["details"].get("configuration") for r in audit.records(event="application-start", limit=20) if r["actor"] == ACTOR]
        with self.place.engine.begin() as conn:
            self.kept_clock.write(conn, self.clock.offset)
            if starts and starts[-1] != now:
                audit.append(conn, "configuration-changed", ACTOR, before=starts[-1], after=now)
            audit.append(conn, "application-start", ACTOR, configuration=now)

    def _loop(self, timers: Any) -> None:
        from storage import clock

        began = clock.monotonic()
        next_unfinished, next_repair = began + UNFINISHED_EVERY, began + REPAIR_EVERY
        while not self._stop.is_set():
            # before anything is written: a due time made by the new clock must not be moved with the old ones
            self._guarded(lambda: self._watch_clock(timers))
            self._guarded(self.desk.look)
            self._guarded(self._pace)
            self._guarded(self.repair.dispatch)
            now = clock.monotonic()
            if now >= next_unfinished:
                next_unfinished = now + UNFINISHED_EVERY
                self._guarded(self.repair.revisions)
            if now >= next_repair:
                next_repair = now + REPAIR_EVERY
                self.repair.run()
                self._guarded(self.place.audit.anchor)  # often, so that a tail that was cut off is found within minutes
            self._awake.wait(TICK)
            self._awake.clear()

    def _pace(self) -> None:
        self.engine.pace(self.repair.waiting() > 1)

    def _guarded(self, part: Callable[[], Any]) -> None:
        """A part of the loop that fails (disk full, database busy) is logged and tried again; the loop goes on."""
        try:
            part()
        except Exception as error:
            event(log, "a part of the loop failed", logging.ERROR, error, part=getattr(part, "__qualname__", ""))
            self._stop.wait(1.0)

    def _watch_clock(self, timers: Any) -> None:
        """After a step of the wall clock: due times move with it, wall-clock jobs are armed anew, the audit log is told."""
        from node.deliver import ledger
        from node.workplace import ACTOR

        before = self.clock.offset
        jump = self.clock.jump()
        if not jump:
            return
        try:
            with self.place.engine.begin() as conn:
                ledger.shift_due_times(conn, jump)
                self.kept_clock.write(conn, self.clock.offset)
                self.place.audit.append(conn, "clock-step", ACTOR, seconds=round(jump, 1))
        except BaseException:
            self.clock.offset = before  # the database was locked or full: the step is still to be told
            raise
        timers.rearm()
        self.retention.clock_stepped()
        event(log, "the wall clock stepped", logging.WARNING, seconds=round(jump, 1))

    def _name_versions(self) -> None:
        """Second versions of SOP instances need decoding to be compared; that has a thread and a decoder of its own."""
        from node.build import decoded_pixels

        while not self._stop.is_set():
            try:
                with decoded_pixels(self.place.config) as pixels:
                    while not self._stop.is_set():
                        if not self.desk.name_versions(pixels):
                            self._stop.wait(TICK)
            except Exception as error:
                event(log, "comparison of versions failed", logging.ERROR, error)
                self._stop.wait(1.0)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m node.worker")
    parser.add_argument("--config", type=Path)
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return WRONG_USE
    configure(config.node.log_level, "worker")
    tell_unexpected(log)
    os.umask(0o077)
    try:
        held = lock(config.data_folder / "worker.lock", "a worker")
    except StartError as error:
        print(f"mediqa: {error}", file=sys.stderr)
        return FAILED
    try:
        import sqlalchemy as sa

        from node.build import assess_with
        from node.reporting import renderer
        from storage.audit_log import AuditKeyError
        from storage.database import DatabaseTooNew

        try:
            worker = Worker(config, assess_with(config), renderer)
        except (DatabaseTooNew, AuditKeyError) as error:
            event(log, str(error), logging.ERROR)
            return WRONG_USE
        except sa.exc.SQLAlchemyError as error:
            event(log, "the database cannot be used; check the key database, its disk and its rights", logging.ERROR, error)
            return FAILED
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.run()
    finally:
        held.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
