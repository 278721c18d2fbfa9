"""Work before the end of the wait: the Assessment that a series will need if nothing else comes (docs/decisions/0014).

The engine is a pure function of files. So the worker may ask it while a series is still waited for, keep the answer in memory, and give it
to the step of the frozen revision if that has exactly the same files: same paths, sizes and times of writing, in the same order. If anything
came in between, the answer is thrown away and the step asks the engine as ever. Nothing is written and nothing is published early.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from node.log import event
from node.workplace import Workplace
from storage.schema import node_fact

log = logging.getLogger("node.early")

SHARE, LEAST = 0.4, 1.5
"""Early work begins when this share of the wait is over, and not before so many seconds of silence: most pauses end before."""
TRIES = 3
"""Early Assessments of one series: a sender with many pauses costs no more."""
KEPT = 8
"""Answers in memory, of a few megabytes each; the oldest makes room."""
MARK = "early-work"
"""Fact in the database, with the worker's name, while the engine works early: a worker that finds it at its start died in that."""

Assess = Callable[[Sequence[Path]], Any]
Key = tuple[tuple[str, int, int], ...]


def begins(last: float, until: float) -> float | None:
    """When early work begins for a series that is silent since `last` and complete at `until` (monotonic seconds), None for so short a wait."""
    at = last + max(LEAST, SHARE * (until - last))
    return at if at < until else None


class EarlyWork:
    """`assess` takes the place of the engine for the steps; `want` is called by the loop, `run` is a thread.

    idle: whether no frozen revision waits for the engine; those come first.
    """

    def __init__(self, place: Workplace, assess: Assess, idle: Callable[[], bool]) -> None:
        self._place, self._engine, self._idle = place, assess, idle
        self._one = threading.Lock()  # model and decoder serve one series at a time
        self._made: OrderedDict[Key, Any] = OrderedDict()
        self._tried: dict[int, list[int]] = {}  # series id -> `changes` at each try
        self._slot: list[Path] | None = None
        self._filled, self._stopped = threading.Event(), threading.Event()
        self._mark = f"{MARK} {place.config.node.name}"
        self._on = not self._unmark()
        if not self._on:
            event(log, "the worker died in early work: none until the next start", logging.WARNING)

    def assess(self, files: Sequence[Path]) -> Any:
        """The Assessment of `files`: made early if they are the same, else by the engine. Early work that is under way is waited for."""
        with self._one:
            key = _key(files)
            made = None if key is None else self._made.pop(key, None)
            return self._engine(files) if made is None else made

    def wants(self, series_id: int, changes: int) -> bool:
        """Whether early work on this series, as it is now, is possible."""
        tried = self._tried.get(series_id, [])
        return self._on and self._slot is None and changes not in tried and len(tried) < TRIES and self._idle()

    def want(self, series_id: int, changes: int, files: list[Path]) -> None:
        """Ask for early work; `wants` has just said yes."""
        self._tried.setdefault(series_id, []).append(changes)
        self._slot = files
        self._filled.set()

    def forget(self, open_series: Collection[int]) -> None:
        """Series that are open no more may be tried anew when they open again."""
        self._tried = {k: v for k, v in self._tried.items() if k in open_series}

    def run(self) -> None:
        """Work on what is wanted until `stop`."""
        while not self._stopped.is_set():
            self._filled.wait()
            self._filled.clear()
            if self._slot is not None:
                try:
                    self._work(self._slot)
                except Exception as error:  # the step of the frozen revision meets it too, and judges it
                    event(log, "early work failed", logging.WARNING, error)
                finally:
                    self._slot = None

    def stop(self) -> None:
        self._stopped.set()
        self._filled.set()

    def _work(self, files: list[Path]) -> None:
        key = _key(files)
        with self._one:
            if self._stopped.is_set():
                return
            with self._place.engine.begin() as conn:
                conn.execute(node_fact.insert().values(name=self._mark, value=""))
            try:
                made = self._engine(files)
            finally:
                self._unmark()
            if key is not None:
                self._made[key] = made
            while len(self._made) > KEPT:
                self._made.popitem(last=False)

    def _unmark(self) -> bool:
        """Whether the mark was there."""
        with self._place.engine.begin() as conn:
            return bool(conn.execute(sa.delete(node_fact).where(node_fact.c.name == self._mark)).rowcount)


def _key(files: Sequence[Path]) -> Key | None:
    """What makes files the same; None where one cannot be looked at, which the engine then tells in its own words."""
    try:
        return tuple((str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files)
    except OSError:
        return None
