"""Retention at work: received files are deleted by age and by free space, whole series, oldest first (`storage.keep_days`, `keep_free`).

What may go is decided in `storage/retention.py`; this file looks at clock and disk, runs the deletion in its order and tells the audit log.
Nothing is deleted unless the configuration says so.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator

from node.log import event
from node.steps import report_due
from node.workplace import ACTOR, Workplace
from storage import retention
from storage.retention import Because, Candidate, LetGo, Rule

log = logging.getLogger("node.retention")

DAY = 86400.0
LOOK_EVERY = 60.0
"""Seconds between two looks at the free space."""
AGE_EVERY = 3600.0
"""Seconds between two looks at the age of series, and before the first one after a start or a step of the wall clock: a clock that is wrong
by years is mostly put right within the hour, and until then everything would seem old."""


class Retention:
    """`run` is a thread of the worker; `clock_stepped` is called by its loop."""

    def __init__(self, place: Workplace) -> None:
        self._place, storage = place, place.config.storage
        self.rule = Rule(storage.keep_days * DAY if storage.keep_days else None, place.config.keep_free_bytes)
        self._stopped, self._age_wait = threading.Event(), AGE_EVERY
        self._mark = f"retention {place.config.node.name}"

    @property
    def wanted(self) -> bool:
        """Whether the configuration lets anything be deleted."""
        return self.rule.keep_seconds is not None or self.rule.keep_free > 0

    def run(self) -> None:
        """Look at free space every minute and at ages every hour, until `stop`."""
        while not self._stopped.is_set():
            try:
                self._finish_begun()
                aging = self._age_wait <= 0
                if aging:
                    self._age_wait = AGE_EVERY
                self.look(aging)
            except Exception as error:
                event(log, "retention failed", logging.ERROR, error)
            self._stopped.wait(LOOK_EVERY)
            self._age_wait -= LOOK_EVERY

    def stop(self) -> None:
        self._stopped.set()

    def clock_stepped(self) -> None:
        """The wall clock jumped: ages are looked at in an hour."""
        self._age_wait = AGE_EVERY

    def look(self, aging: bool) -> int:
        """Delete what the rule wants now, by age only where `aging`; the number of series."""
        rule = Rule(self.rule.keep_seconds if aging else None, self.rule.keep_free)
        if rule.keep_seconds is None and self._free() >= rule.keep_free:
            return 0
        deleted, kept = 0, Counter[str]()
        for candidate in self._oldest_first():
            if self._stopped.is_set():
                break
            because = retention.wanted(candidate, self._place.now(), self._free(), rule)
            if because is None:
                break  # what follows is younger
            if (why := retention.needed(candidate)) is not None:
                kept[str(why)] += 1
            elif self._delete(candidate, because):
                deleted += 1
        if deleted or kept:
            short = self._free() < rule.keep_free
            event(log, "retention", logging.WARNING if short else logging.INFO, deleted=deleted, kept=dict(kept), free=self._free(),
                  wanted=rule.keep_free)
        return deleted

    def _oldest_first(self) -> Iterator[Candidate]:
        after = ("", 0)
        while True:
            with self._place.reader.connect() as conn:
                batch = retention.candidates(conn, report_due(self._place.config.report.on), after)
            yield from batch
            if len(batch) < retention.BATCH:
                return
            after = batch[-1].last_at, batch[-1].id

    def _delete(self, candidate: Candidate, because: Because) -> bool:
        """Marks and audit event in one durable commit, then the files; False when the series came to be needed meanwhile."""
        place = self._place
        with place.durable.begin() as conn:
            again = retention.candidates(conn, report_due(place.config.report.on), series_id=candidate.id)
            if not again or again[0].last_at != candidate.last_at or retention.needed(again[0]) is not None:
                return False
            gone = retention.let_go(conn, candidate.id, place.now())
            place.audit.append(conn, "deleted", ACTOR, study_uid=candidate.study_uid, series_uid=candidate.series_uid, reason=str(because),
                               instances=gone.instances, captures=len(gone.captures), bytes=gone.bytes, last_received=candidate.last_at)
            retention.begin(conn, self._mark, candidate.id)
        self._delete_files(candidate.id, gone)
        return True

    def _delete_files(self, series_id: int, gone: LetGo) -> None:
        """Received files last: while one of them is there the rest is known to be unfinished."""
        place = self._place
        for revision_id in gone.revisions:
            (place.pictures / f"{revision_id}.npz").unlink(missing_ok=True)
        place.results.remove(gone.captures)
        retention.delete_files(place.engine, place.objects, series_id)
        with place.engine.begin() as conn:
            retention.finish(conn, self._mark)

    def _finish_begun(self) -> None:
        """Finish what a worker that died had begun. After another boot the receiver has decided at its start (`storage/reconcile.py`)."""
        place = self._place
        with place.reader.connect() as conn:
            series_id = retention.begun(conn, self._mark)
        if series_id is not None:
            with place.reader.connect() as conn:
                gone = retention.marked(conn, series_id)
            self._delete_files(series_id, gone)

    def _free(self) -> int:
        return self._place.objects.free_bytes()
