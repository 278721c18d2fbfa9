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

log = logging.getLogger("node.timers")

JUMP_SECONDS = 5.0
"""A difference between wall and monotonic clock above this is a step, not slewing."""


@dataclass
class ClockWatch:
    """Compares the wall clock with the monotonic one; pure but for the clocks handed in."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._offset = self.wall() - self.monotonic()

    def jump(self) -> float:
        """Seconds that the wall clock stepped since the last call, 0.0 for what slewing explains."""
        offset = self.wall() - self.monotonic()
        step, self._offset = offset - self._offset, offset
        return step if abs(step) > JUMP_SECONDS else 0.0


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
