"""What senders do, kept: the rows that `node/quiet.py` learns from and the wait that it learned."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa

from node import quiet
from node.completion import Waits
from node.log import event
from node.workplace import ACTOR, Workplace
from storage import senders

log = logging.getLogger("node.habits")


class Habits:
    """The waits in force for each calling AE title and modality. The database is the only memory: a restart forgets nothing."""

    def __init__(self, place: Workplace) -> None:
        c = place.config.completion
        self._place, self._auto = place, c.quiet == "auto"
        self._unlearned = quiet.unlearned(c.quiet, c.contiguous, c.announced, c.forced)

    @property
    def shortest(self) -> float:
        """Seconds after the newest instance before which no series of any sender can be complete by what arrived."""
        return min(self._unlearned.shortest, quiet.FLOOR) if self._auto else self._unlearned.shortest

    @property
    def forced(self) -> float:
        """Seconds after the first instance that end any wait."""
        return self._unlearned.forced

    def waits(self, conn: sa.Connection, row: Any) -> Waits:
        """The waits for the series of `row`, by its calling AE title and modality."""
        if not self._auto:
            return self._unlearned
        return quiet.with_learned(self._unlearned, quiet.Learned(*senders.learned_waits(conn, row.calling_ae, row.modality)))

    def learn(self, row: Any, seen_before: int | None, released: bool) -> None:
        """Learn from the series of `row`, which was just taken for complete; what goes wrong here never holds up a series.

        seen_before: the newest instance of the revision before, None at the first one. released: the association that brought the newest
        had ended by A-RELEASE. Learned with fixed waits too, so that `mediqa check` tells what they miss and `auto` knows its senders at once.
        """
        try:
            with self._place.engine.begin() as conn:
                self._learn(conn, row, seen_before, released)
        except Exception as error:
            event(log, "nothing was learned from a series", logging.ERROR, error, series=row.series_uid)

    def _learn(self, conn: sa.Connection, row: Any, seen_before: int | None, released: bool) -> None:
        known = senders.habit(conn, row.calling_ae, row.modality)
        before = quiet.from_text(known and known.history)
        arrived = [quiet.Arrived(a.id, a.received_mono, a.start_id, a.association_id) for a in senders.new_arrivals(conn, row.id)]
        history = quiet.learn(before, row.id, arrived, seen_before, released)
        if history == before:
            return
        was = self.waits(conn, row)
        learned, longest = quiet.learned(history), max(seen.longest for seen in history)
        senders.keep_habit(conn, row.calling_ae, row.modality, wait=learned.quiet, contiguous=learned.contiguous, longest=longest,
                           between=learned.between, seen=len(history), split=sum(seen.split for seen in history),
                           history=quiet.to_text(history))
        waits = self.waits(conn, row)
        if waits != was:
            self._place.audit.append(conn, "wait-learned", ACTOR, calling_ae=row.calling_ae, modality=row.modality,
                                     before=[was.quiet, was.contiguous], quiet=waits.quiet, contiguous=waits.contiguous,
                                     series=len(history), longest_gap=longest)
