"""Series that are still arriving: names for second versions, the end of the wait, the frozen revision.

The revision, its state and the planned assessment are one commit. Decisions are pure functions elsewhere (`node/completion.py`,
`node/classify.py`); this file reads the rows for them and writes what they said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from node import retraction
from node.classify import Arrival as Version
from node.classify import Pixels, classify, identity_only
from node.completion import Arrival, Complete, CompletedBy, SeriesArrivals, decide, missing_slices
from node.deliver.retry import later
from node.early import SHARE, EarlyWork, begins
from node.habits import Habits
from node.log import event
from node.workplace import ACTOR, Workplace
from qa_engine.outcome import Reason
from storage import clock, index
from storage.schema import association, instance, revision, series

log = logging.getLogger("node.arrivals")

DAY = timedelta(days=1).total_seconds()

Enqueue = Callable[[sa.Connection, int, int], None]
"""(connection, revision id, attempt): plans the assessment in the same transaction."""


class ArrivalDesk:
    """Looks at open series; `look` is called several times a second by one thread, `name_versions` by another."""

    def __init__(self, place: Workplace, enqueue: Enqueue, early: EarlyWork | None = None) -> None:
        self._place, self._enqueue, self._early = place, enqueue, early
        self._habits = Habits(place)
        self._started, self._boot = clock.monotonic(), clock.boot_id()
        self._known: dict[int, tuple[int, tuple[Arrival, ...]]] = {}  # series id -> (changes, what has arrived)

    def look(self) -> int:
        """Freeze a revision of every series that is complete; the number of them."""
        with self._place.reader.connect() as conn:
            rows = index.open_series(conn)
        self._known = {row.id: self._known[row.id] for row in rows if row.id in self._known}
        if self._early is not None:
            self._early.forget({row.id for row in rows})
        return sum(self._look_at(row) for row in rows)

    def _look_at(self, row: Any) -> bool:
        """Whether a revision was frozen. A series that cannot be looked at holds up no other."""
        try:
            if row.operator_word == retraction.WORD:
                return self._retract(row)
            return not self._too_early(row) and self._decide(row)
        except Exception as error:
            event(log, "a series could not be looked at", logging.ERROR, error, series=row.series_uid)
            return False

    def _retract(self, row: Any) -> bool:
        """Withdraw the result of a series and plan the report of that, in one commit."""
        with self._place.reader.connect() as conn:
            if retraction.must_wait(conn, self._place, row):
                return False
        with self._place.engine.begin() as conn:
            revision_id = retraction.withdraw(conn, self._place, row)
            if revision_id is not None:
                self._enqueue(conn, revision_id, 1)
        return revision_id is not None

    def _too_early(self, row: Any) -> bool:
        """Whether not even the shortest wait can be over, or so much of it that early work begins: then nothing needs to be read."""
        now, habits = clock.monotonic(), self._habits
        if row.operator_word is not None or row.boot_id != self._boot or row.last_mono > now:
            return False
        shortest = habits.shortest * (1 if self._early is None else SHARE)
        return now < max(row.last_mono, self._started) + shortest and now < max(row.first_mono, self._started) + habits.forced

    def _decide(self, row: Any) -> bool:
        with self._place.reader.connect() as conn:
            arrivals = self._arrivals(conn, row)
            waits = self._habits.waits(conn, row)
        if arrivals is None:
            return False
        said = decide(arrivals, clock.monotonic(), self._boot, waits, self._started)
        if not isinstance(said, Complete):
            self._work_early(row, said.until_mono)
            return False
        return self._complete(row, said.by, waits.of(said.by), arrivals.last_association_released)

    def _work_early(self, row: Any, until: float) -> None:
        """Let the engine look at what has arrived, where the wait for a first revision is partly over and nothing else is to do."""
        now = clock.monotonic()
        if self._early is None or row.revision or row.boot_id != self._boot or row.last_mono > now:
            return
        at = begins(max(row.last_mono, self._started), until)
        if at is None or now < at or not self._early.wants(row.id, row.changes):
            return
        with self._place.reader.connect() as conn:
            current = index.current_instances(conn, row.id)
        files = [self._place.objects.path(i.path) for i in current if not i.own]
        if files and all(i.deleted_at is None for i in current):
            self._early.want(row.id, row.changes, files)

    def _arrivals(self, conn: sa.Connection, row: Any) -> SeriesArrivals | None:
        """What is known of a series; None while a second version waits for its name."""
        if index.unclassified(conn, row.id):
            self._known.pop(row.id, None)
            return None
        if self._known.get(row.id, (None, ()))[0] != row.changes:
            self._known[row.id] = (row.changes, tuple(
                Arrival(i.received_mono, i.instance_number, i.position_mm, i.acquisition_number, i.number_of_frames,
                        i.images_in_acquisition, i.series_instances) for i in index.current_instances(conn, row.id)))
        how = conn.execute(sa.select(association.c.how).where(association.c.id == row.last_association_id)).scalar()
        return SeriesArrivals(
            self._known[row.id][1], row.first_mono, row.last_mono, row.boot_id, how == "released",
            bool(index.open_associations(conn, row.id) - {row.last_association_id}), row.operator_word is not None)

    def _complete(self, row: Any, by: CompletedBy, waited: float, released: bool) -> bool:
        """Freeze what has arrived as the next revision and plan its assessment, in one commit; then learn from it."""
        with self._place.reader.connect() as conn:
            before = _revision_before(conn, row)
            seen_before = None if before is None else index.newest_instance(conn, before.id)
            purpose = "score" if row.operator_word is not None else self._purpose(conn, row, before)
        with self._place.engine.begin() as conn:
            if conn.execute(sa.select(series.c.changes).where(series.c.id == row.id)).scalar_one() != row.changes:
                return False  # something new came while we looked
            current = index.current_instances(conn, row.id)
            same = before is not None and before.content_digest == index.content_digest([(i.sop_uid, i.digest) for i in current])
            if same and row.operator_word != "rescore":
                conn.execute(sa.update(series).where(series.c.id == row.id).values(state="complete", operator_word=None))
                return False  # what came anew was the same in another transfer syntax, or stands beside the first as a conflict
            if by is not CompletedBy.OPERATOR and index.revisions_since(conn, row.id, later(self._place.now(), -DAY)) \
                    >= self._place.config.completion.revisions_per_day:
                return self._park(conn, row, "revisions-per-day", limit=self._place.config.completion.revisions_per_day)
            if by is not CompletedBy.OPERATOR and before is not None and before.reason == str(Reason.RETRACTED):
                return self._park(conn, row, str(Reason.RETRACTED))
            holes = missing_slices([i.instance_number for i in current], [i.position_mm for i in current])
            missing = sum(hole.count for hole in holes)
            revision_id = index.freeze_revision(conn, row.id, str(by), missing, purpose)
            if revision_id is None:
                return False
            self._place.audit.append(conn, "completed", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid,
                                     revision=row.revision + 1, reason=str(by), waited=waited, instances=len(current), missing=missing, purpose=purpose)
            self._enqueue(conn, revision_id, 1)
        self._habits.learn(row, seen_before, released)
        return True

    def _purpose(self, conn: sa.Connection, row: Any, before: Any) -> str:
        """`identity` where since the last revision only things changed that the engine does not read, else `score`."""
        if before is None or before.assessment is None or before.outcome == "failed":
            return "score"
        seen = {i.sop_uid: i for i in index.revision_files(conn, before.id)}
        current = {i.sop_uid: i for i in index.current_instances(conn, row.id)}
        if seen.keys() != current.keys():
            return "score"
        path = self._place.objects.path
        changed = [(seen[uid], current[uid]) for uid in current if seen[uid].id != current[uid].id]
        same = changed and all(identity_only(path(a.path), path(b.path)) for a, b in changed)
        return "identity" if same else "score"

    def _park(self, conn: sa.Connection, row: Any, reason: str, **more: Any) -> bool:
        index.park(conn, row.id)
        self._place.audit.append(conn, "parked", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, reason=reason, **more)
        event(log, "series parked, no more automatic revisions; `mediqa series complete UID` goes on", logging.WARNING, reason=reason,
              series=row.series_uid)
        return False

    def name_versions(self, pixels: Pixels, limit: int = 50) -> int:
        """Classify second versions that wait for it, oldest first; the number of them."""
        with self._place.reader.connect() as conn:
            rows = list(conn.execute(sa.select(instance, series.c.study_uid, series.c.series_uid).join(
                series, series.c.id == instance.c.series_id).where(instance.c.arrival == "unclassified")
                .order_by(instance.c.id).limit(limit)))
        for row in rows:
            self._name(row, pixels)
        return len(rows)

    def _name(self, row: Any, pixels: Pixels) -> None:
        with self._place.reader.connect() as conn:
            first = index.first_version(conn, row.sop_uid, row.id)
        path = self._place.objects.path
        gone = first is not None and first.deleted_at is not None
        if first is None:
            arrival = "new"
        elif first.series_id != row.series_id:
            arrival = str(Version.CONFLICT)
        elif gone:
            arrival = str(Version.UPDATE)  # retention deleted what it could be compared with, so the newest is what there is
        else:
            arrival = str(classify(path(first.path), path(row.path), pixels))
        with self._place.engine.begin() as conn:
            index.set_arrival(conn, row.id, arrival, make_current=arrival in ("new", str(Version.UPDATE)))
            self._place.audit.append(conn, arrival, ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, sop_uid=row.sop_uid,
                                     elsewhere=first is not None and first.series_id != row.series_id, compared=False if gone else None)


def _revision_before(conn: sa.Connection, row: Any) -> Any | None:
    """The newest revision of a series, None before the first."""
    return conn.execute(sa.select(revision).where(revision.c.series_id == row.id, revision.c.number == row.revision)).one_or_none()
