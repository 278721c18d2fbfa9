"""The repair loop: our tables are the truth, the workflow engine is made to agree with them. Runs at start and every minute.

Engine rows may be lost, orphaned or failed; nothing that was received or rendered depends on them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from node.deliver import ledger
from node.deliver.retry import longest_wait
from node.log import event
from node.steps import TRIES, end_revision, report_due, revision_row, without_engine
from node.workflow import FAILED, LIVE, WorkflowEngine, assess_id, deliver_id
from node.workplace import ACTOR, Workplace
from qa_engine.outcome import Reason
from storage import clock
from storage.schema import revision, series

log = logging.getLogger("node.repair")

PAUSES = (30.0, 300.0, 1800.0)
"""Seconds after the first, second and third attempt that failed, so that a full disk or a locked database can pass."""
KEEP_DAYS = 7.0
"""Ended rows of the workflow engine are deleted after this."""


class Repair:
    """Compares tables and engine. monotonic: the clock of the pauses. busy: destinations to which a try is under way."""

    def __init__(self, place: Workplace, engine: WorkflowEngine, monotonic: Callable[[], float] = clock.monotonic,
                 busy: Callable[[str], bool] = lambda name: False) -> None:
        self._place, self._engine, self._monotonic, self._busy = place, engine, monotonic, busy
        self._failed: dict[str, float] = {}  # workflow that failed -> since when we know

    def run(self) -> None:
        """One round; each part stands alone, so that one that fails does not stop the others."""
        for part in (self.revisions, self.reports, self.deliveries, self.orphans, self.prune):
            try:
                part()
            except Exception as error:
                event(log, "repair failed", logging.ERROR, error, part=part.__name__)

    def waiting(self) -> int:
        """How many revisions have no end yet."""
        with self._place.reader.connect() as conn:
            return int(conn.execute(sa.select(sa.func.count()).where(revision.c.outcome.is_(None))).scalar_one())

    def revisions(self) -> None:
        """A revision without end has a live workflow, or gets one, or is set aside after three tries."""
        with self._place.reader.connect() as conn:
            rows = list(conn.execute(sa.select(revision.c.id, revision.c.attempt).where(revision.c.outcome.is_(None))))
        self._plan_again(rows, self._set_aside)

    def reports(self) -> None:
        """A revision that should have result objects and has none is reported again, three times at most."""
        with self._place.reader.connect() as conn:
            rows = list(conn.execute(sa.select(revision.c.id, revision.c.attempt).join(series, series.c.id == revision.c.series_id).where(
                report_due(self._place.config.report.on))))
        self._plan_again(rows, self._give_report_up)

    def _plan_again(self, rows: list[Any], last_resort: Callable[[int], None]) -> None:
        states = self._engine.states([assess_id(r.id, r.attempt) for r in rows])
        for row in rows:
            workflow_id = assess_id(row.id, row.attempt)
            state = states.get(workflow_id)
            if state in LIVE or (state == FAILED and self._too_soon(workflow_id, row.attempt)):
                continue
            self._failed.pop(workflow_id, None)
            attempt = row.attempt if state is None else row.attempt + 1
            if attempt > TRIES:
                last_resort(row.id)
                continue
            with self._place.engine.begin() as conn:
                conn.execute(sa.update(revision).where(revision.c.id == row.id).values(attempt=attempt))
                self._engine.enqueue_assess(conn, row.id, attempt)
            event(log, "planned again", logging.WARNING, revision=row.id, attempt=attempt, was=state or "lost")

    def _too_soon(self, workflow_id: str, attempt: int) -> bool:
        """Whether the pause after a failed attempt is not over."""
        now = self._monotonic()
        return now - self._failed.setdefault(workflow_id, now) < PAUSES[min(attempt, TRIES) - 1]

    def _set_aside(self, revision_id: int) -> None:
        with self._place.engine.begin() as conn:
            row = revision_row(conn, revision_id)
            end_revision(conn, self._place, row, without_engine(row, row.instances, Reason.SET_ASIDE))

    def _give_report_up(self, revision_id: int) -> None:
        with self._place.engine.begin() as conn:
            conn.execute(sa.update(revision).where(revision.c.id == revision_id).values(attempt=TRIES + 1))
            row = revision_row(conn, revision_id)
            self._place.audit.append(conn, "report-set-aside", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid,
                                     revision=row.number, tries=TRIES)

    def deliveries(self) -> None:
        """A row that says `sending` has a live workflow; else its try is taken up again under the same identifier."""
        if self._place.config.deliver.mode != "live":
            return
        with self._place.engine.begin() as conn:
            moved = ledger.bring_near(conn, self._place.now(), longest_wait(self._place.config.deliver.last_retry))
            found = ledger.unattended(conn)
        if moved:
            event(log, "due times beyond every wait are due now: the wall clock stepped unseen", logging.WARNING, rows=moved)
        self.hand_over(found)

    def dispatch(self) -> int:
        """Hand every delivery that is due to the workflow engine; how many. Called several times a second."""
        if self._place.config.deliver.mode != "live":
            return 0
        with self._place.reader.connect() as conn:
            found = ledger.due(conn, self._place.now())
        return self.hand_over(found)

    def hand_over(self, found: list[ledger.Due]) -> int:
        """Enqueue tries that are not on their way already, and that no association which is open takes along."""
        found = [d for d in found if not self._busy(d.destination)]
        if not found:
            return 0
        states = self._engine.states([deliver_id(d.delivery_id, d.attempt) for d in found])
        waiting = [d for d in found if states.get(deliver_id(d.delivery_id, d.attempt)) not in LIVE]
        # a try that found its destination held, or was lost, ended without being one: the same identifier runs again
        self._engine.forget([i for d in waiting if (i := deliver_id(d.delivery_id, d.attempt)) in states])
        with self._place.engine.begin() as conn:
            for d in waiting:
                self._engine.enqueue_deliver(conn, d.delivery_id, d.attempt, d.destination)
        return len(waiting)

    def orphans(self) -> None:
        """Workflows that claim to run and do not go back onto their queue."""
        for workflow_id in self._engine.requeue_orphans(clock.monotonic()):
            event(log, "orphaned workflow put back", logging.WARNING, workflow=workflow_id)

    def prune(self) -> None:
        self._engine.prune(KEEP_DAYS)
