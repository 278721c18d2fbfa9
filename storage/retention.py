"""What may be deleted to make room, oldest first, and how (DESIGN section 4; docs/decisions/0018): files go, rows and numbers stay.

Whole series go, with every version of their instances and the pictures that each destination has. Nothing goes that may still be needed:
a series that is open, parked or spoken for, that is being assessed or reported, or whose results have a delivery without an end.

The marks are committed with synchronous FULL before the first file goes, so that a file which is missing has a row that says why. A file
is deleted inside a short writing transaction, while its row still bears the mark: reception takes the mark away in such a transaction too,
so what comes again meanwhile is either kept or, if its file went, not acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from storage import clock
from storage.objects import ObjectStore
from storage.schema import delivery, instance, node_fact, result_object, revision, series

LEAST_AGE = 3600.0
"""Seconds after its newest instance in which a series is not deleted, however little space is left: late slices and corrections come then."""
CHUNK = 20
"""Files that are deleted in one transaction."""
BATCH = 200


class Needed(StrEnum):
    """Why the files of a series are not deleted."""

    OPEN = "open"
    PARKED = "parked"
    SPOKEN = "operator-word"
    UNNAMED = "unclassified-version"
    UNENDED = "being-assessed"
    UNREPORTED = "not-reported"
    UNDELIVERED = "not-delivered"


class Because(StrEnum):
    """Why they are."""

    AGE = "age"
    SPACE = "space"


@dataclass(frozen=True)
class Rule:
    """keep_seconds: age of the newest instance from which a series is deleted, None = never. keep_free: bytes to be free, 0 = never."""

    keep_seconds: float | None = None
    keep_free: int = 0


@dataclass(frozen=True)
class Candidate:
    """A series with files. `last_at` is UTC text; the flags say whether something of it has no end yet."""

    id: int
    study_uid: str
    series_uid: str
    state: str
    last_at: str
    spoken: bool = False
    unnamed: bool = False
    unended: bool = False
    unreported: bool = False
    undelivered: bool = False


def needed(c: Candidate) -> Needed | None:
    """What the files of a series are still needed for; None when for nothing. Pure."""
    if c.state != "complete":
        return Needed.PARKED if c.state == "parked" else Needed.OPEN
    for flag, why in ((c.spoken, Needed.SPOKEN), (c.unnamed, Needed.UNNAMED), (c.unended, Needed.UNENDED),
                      (c.unreported, Needed.UNREPORTED), (c.undelivered, Needed.UNDELIVERED)):
        if flag:
            return why
    return None


def wanted(c: Candidate, now: str, free: int, rule: Rule) -> Because | None:
    """Whether a series is to be deleted at the UTC time `now` with `free` bytes free, and why; `needed` has the last word. Pure."""
    age = (datetime.fromisoformat(now) - datetime.fromisoformat(c.last_at)).total_seconds()
    if rule.keep_seconds is not None and age >= rule.keep_seconds:
        return Because.AGE
    return Because.SPACE if free < rule.keep_free and age >= LEAST_AGE else None


def candidates(conn: sa.Connection, unreported: sa.ColumnElement[bool], after: tuple[str, int] = ("", 0),
               series_id: int | None = None) -> list[Candidate]:
    """The next series with files, the longest quiet first, behind `after` (last_at, id); at most BATCH, or the one `series_id`.

    unreported: condition on `revision`: it has its end, and its report is still to be made.
    """
    def some(*where: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        return sa.exists().where(*where)

    mine = revision.c.series_id == series.c.id
    query = sa.select(
        series.c.id, series.c.study_uid, series.c.series_uid, series.c.state, series.c.last_at, series.c.operator_word.is_not(None).label("spoken"),
        some(instance.c.series_id == series.c.id, instance.c.arrival == "unclassified").label("unnamed"),
        some(mine, revision.c.outcome.is_(None)).label("unended"), some(mine, unreported).label("unreported"),
        some(mine, delivery.c.revision_id == revision.c.id, delivery.c.ended_at.is_(None)).label("undelivered"))
    if series_id is not None:
        query = query.where(series.c.id == series_id, series.c.emptied_at.is_(None))
    else:
        query = query.where(series.c.emptied_at.is_(None), sa.tuple_(series.c.last_at, series.c.id) > sa.tuple_(*map(sa.literal, after))) \
            .order_by(series.c.last_at, series.c.id).limit(BATCH)
    return [Candidate(*row) for row in conn.execute(query)]


@dataclass(frozen=True)
class LetGo:
    """What was marked: instances and captures whose files go now, and the bytes of both; the revisions of the series."""

    instances: int
    captures: tuple[str, ...]
    bytes: int
    revisions: tuple[int, ...]


def let_go(conn: sa.Connection, series_id: int, at: str) -> LetGo:
    """Mark the files of a series as deleted. To be committed with synchronous FULL before any of them goes."""
    here = (instance.c.series_id == series_id) & instance.c.deleted_at.is_(None)
    count, size = conn.execute(sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(instance.c.bytes), 0)).where(here)).one()
    conn.execute(instance.update().where(here).values(deleted_at=at))
    conn.execute(series.update().where(series.c.id == series_id).values(emptied_at=at))
    of_series = result_object.c.revision_id.in_(sa.select(revision.c.id).where(revision.c.series_id == series_id))
    captures = of_series & (result_object.c.kind == "sc") & result_object.c.deleted_at.is_(None) & _everywhere()
    more = conn.execute(sa.select(sa.func.coalesce(sa.func.sum(result_object.c.bytes), 0)).where(captures)).scalar_one()
    conn.execute(result_object.update().where(captures).values(deleted_at=at))
    return replace(marked(conn, series_id), instances=int(count), bytes=int(size) + int(more))


def marked(conn: sa.Connection, series_id: int) -> LetGo:
    """What bears the mark in a series already, counted as nothing."""
    revisions = conn.execute(sa.select(revision.c.id).where(revision.c.series_id == series_id)).scalars().all()
    captures = conn.execute(sa.select(result_object.c.path).where(
        result_object.c.revision_id.in_(revisions), result_object.c.deleted_at.is_not(None))).scalars()
    return LetGo(0, tuple(captures), 0, tuple(revisions))


def _everywhere() -> sa.ColumnElement[bool]:
    """The picture was sent somewhere, and every destination that it was meant for has it: nobody can ask for it again."""
    meant = (delivery.c.revision_id == result_object.c.revision_id) & (delivery.c.kind == result_object.c.kind)
    return sa.exists().where(meant) & ~sa.exists().where(meant, delivery.c.state.not_in(("delivered", "committed")))


def delete_files(engine: sa.Engine, store: ObjectStore, series_id: int) -> None:
    """Delete the received files of a series whose rows bear the mark; what came again meanwhile bears none and stays."""
    with engine.connect() as conn:
        marked = conn.execution_options(readonly=True).execute(sa.select(instance.c.id).where(
            instance.c.series_id == series_id, instance.c.deleted_at.is_not(None))).scalars().all()
    for at in range(0, len(marked), CHUNK):
        _delete(engine, store, marked[at:at + CHUNK])


def _delete(engine: sa.Engine, store: ObjectStore, ids: Sequence[int]) -> None:
    """A few files in one writing transaction: the lock that reception needs to acknowledge one of them."""
    with engine.begin() as conn:
        store.remove(conn.execute(sa.select(instance.c.path).where(
            instance.c.id.in_(ids), instance.c.deleted_at.is_not(None)).with_for_update()).scalars())


def begun(conn: sa.Connection, name: str) -> int | None:
    """The series whose deletion `name` began and did not finish in this boot; None when there is none.

    After another boot the last commits may be gone, a mark that reception took away among them: then a file that is there stays.
    """
    value = conn.execute(sa.select(node_fact.c.value).where(node_fact.c.name == name)).scalar()
    boot, _, number = (value or "").partition(" ")
    return int(number) if boot == clock.boot_id() else None


def begin(conn: sa.Connection, name: str, series_id: int) -> None:
    """Note that `name` deletes the files of a series, in the transaction that marks them."""
    finish(conn, name)
    conn.execute(node_fact.insert().values(name=name, value=f"{clock.boot_id()} {series_id}"))


def finish(conn: sa.Connection, name: str) -> None:
    """The files are gone."""
    conn.execute(node_fact.delete().where(node_fact.c.name == name))
