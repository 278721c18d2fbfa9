"""Wall-clock jobs and the watch over the clock itself.

APScheduler runs what belongs to a time of day; nothing that a patient waits for. It stands still after a step backwards, so the watch
adds its jobs anew and tells the others how far the clock jumped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.schema import node_fact

log = logging.getLogger("node.timers")

JUMP_SECONDS = 5.0
"""A difference between wall and monotonic clock above this is a step, not slewing."""


@dataclass
class ClockWatch:
    """Compares the wall clock with the monotonic one; pure but for the clocks handed in.

    offset: seconds from monotonic to wall clock, None = as it is now. One that an earlier worker of this boot saw makes a step known
    that the clock made while no worker ran.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    offset: float | None = None

    def __post_init__(self) -> None:
        if self.offset is None:
            self.offset = self.wall() - self.monotonic()

    def jump(self) -> float:
        """Seconds that the wall clock stepped since the last call, 0.0 for what slewing explains."""
        offset = self.wall() - self.monotonic()
        step, self.offset = offset - (self.offset or 0.0), offset
        return step if abs(step) > JUMP_SECONDS else 0.0


class KeptClock:
    """The offset of the clocks in the database, with the boot that it belongs to: a fact of the worker `name`."""

    def __init__(self, name: str, boot_id: str) -> None:
        self._name, self._boot_id = f"clock-offset {name}", boot_id

    def read(self, conn: sa.Connection) -> float | None:
        """The offset that was kept in this boot."""
        kept = conn.execute(sa.select(node_fact.c.value).where(node_fact.c.name == self._name)).scalar()
        boot_id, _, offset = (kept or "").partition(" ")
        return float(offset) if boot_id == self._boot_id and offset else None

    def write(self, conn: sa.Connection, offset: float) -> None:
        value = f"{self._boot_id} {offset:.3f}"
        if not conn.execute(node_fact.update().where(node_fact.c.name == self._name).values(value=value)).rowcount:
            conn.execute(node_fact.insert().values(name=self._name, value=value))


@dataclass(frozen=True)
class DailyJob:
    """A job at `hour`:`minute` UTC."""

    name: str
    hour: int
    minute: int
    run: Callable[[], None]


class Timers:
    """The wall-clock jobs of the worker."""

    def __init__(self, jobs: list[DailyJob], on_error: Callable[[str], None] = lambda name: None) -> None:
        self._jobs, self._on_error = jobs, on_error
        self._scheduler: Any = None

    def start(self) -> None:
        from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED
        from apscheduler.schedulers.background import BackgroundScheduler

        self._scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1,
                                                                            "misfire_grace_time": None})
        self._scheduler.add_listener(lambda event: self._on_error(event.job_id), EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        self.rearm()
        self._scheduler.start()

    def rearm(self) -> None:
        """Compute every next run from the clock as it stands now; called after each clock step."""
        for job in self._jobs:
            self._scheduler.add_job(job.run, "cron", hour=job.hour, minute=job.minute, id=job.name, replace_existing=True)

    def stop(self) -> None:
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
