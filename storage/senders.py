"""Rows of what was seen of each sender and modality: its history, its learned wait (DESIGN section 5, completion).

Every function runs inside the caller's transaction. There are at most MOST rows, so that a peer that invents AE titles fills no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from storage import clock
from storage.schema import association, instance, sender_habit

MOST = 1000
"""Pairs of AE title and modality that are remembered; the one that was silent longest makes room."""


def learned_waits(conn: sa.Connection, calling_ae: str, modality: str) -> tuple[float | None, float | None, float]:
    """Seconds (wait_seconds, contiguous_seconds, longest_between_seconds); None, None, 0 where nothing was learned yet."""
    t = sender_habit.c
    found = conn.execute(sa.select(t.wait_seconds, t.contiguous_seconds, t.longest_between_seconds).where(
        t.calling_ae == calling_ae, t.modality == modality)).one_or_none()
    return (None, None, 0.0) if found is None else (found.wait_seconds, found.contiguous_seconds, found.longest_between_seconds)


def habit(conn: sa.Connection, calling_ae: str, modality: str) -> Any | None:
    """The whole row of a sender and modality, None where there is none."""
    return conn.execute(sa.select(sender_habit).where(
        sender_habit.c.calling_ae == calling_ae, sender_habit.c.modality == modality)).one_or_none()


def keep_habit(conn: sa.Connection, calling_ae: str, modality: str, *, wait: float | None, contiguous: float | None, longest: float,
               between: float, seen: int, split: int, history: str) -> None:
    """Write the row of a sender and modality.

    wait, contiguous: the learned waits, longest, between: the longest gaps, seconds. seen, split: series that `history` holds, and those that came in parts.
    """
    values = {"wait_seconds": wait, "contiguous_seconds": contiguous, "longest_gap_seconds": longest,
              "longest_between_seconds": between, "series_seen": seen, "series_split": split, "history": history, "learned_at": clock.utc_now()}
    key = (sender_habit.c.calling_ae == calling_ae, sender_habit.c.modality == modality)
    if conn.execute(sa.update(sender_habit).where(*key).values(**values)).rowcount:
        return
    if conn.execute(sa.select(sa.func.count()).select_from(sender_habit)).scalar_one() >= MOST:
        oldest = conn.execute(sa.select(sender_habit.c.calling_ae, sender_habit.c.modality)
                              .order_by(sender_habit.c.learned_at, sender_habit.c.calling_ae, sender_habit.c.modality).limit(1)).one()
        conn.execute(sa.delete(sender_habit).where(sender_habit.c.calling_ae == oldest.calling_ae,
                                                   sender_habit.c.modality == oldest.modality))
    conn.execute(sender_habit.insert().values(calling_ae=calling_ae, modality=modality, **values))


def new_arrivals(conn: sa.Connection, series_id: int) -> Sequence[Any]:
    """(id, received_mono, association_id, start_id) of the instances new to a series, in order of arrival; the last two None if adopted."""
    return conn.execute(sa.select(instance.c.id, instance.c.received_mono, instance.c.association_id, association.c.start_id)
                        .join(association, association.c.id == instance.c.association_id, isouter=True)
                        .where(instance.c.series_id == series_id, instance.c.arrival == "new", instance.c.own == 0)
                        .order_by(instance.c.id)).all()
