"""A result is withdrawn on an operator's word: a revision of its own that carries no number and names the one before (docs/decisions/0020).

It has the instances of the revision that it withdraws, its end when it is made (`abstained/retracted`), and is reported and delivered like any
other, whatever `report.on` says, if there is something at a destination that it can replace. What of older revisions still waits to be sent
is dropped. From then on nothing is scored in that series by itself; `mediqa series rescore UID` or `complete UID` goes on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import sqlalchemy as sa

from node.assessment_text import load
from node.deliver import ledger
from node.steps import end_revision, report_due, revision_row
from node.workplace import ACTOR, Workplace
from qa_engine.assessment import Assessment, Finding
from qa_engine.outcome import End, Reason
from storage import clock
from storage.schema import delivery, revision, revision_instance, series

WORD = "retract"
"""`series.operator_word` of a retraction."""
LONGEST = 200
"""Characters of the operator's words; they stand in the picture and in the report."""


def standing(conn: sa.Connection, series_id: int) -> Any | None:
    """The newest revision of a series that was assessed, None when there is none or when it is withdrawn already."""
    rows = conn.execute(sa.select(revision).where(
        revision.c.series_id == series_id, sa.or_(revision.c.outcome == str(End.ASSESSED), revision.c.reason == str(Reason.RETRACTED)))
        .order_by(revision.c.number.desc()).limit(1)).all()
    return rows[0] if rows and rows[0].outcome == str(End.ASSESSED) else None


def refusal(conn: sa.Connection, series_uid: str) -> str:
    """Why nothing can be retracted under this Series Instance UID, "" when something can."""
    rows = conn.execute(sa.select(series).where(series.c.series_uid == series_uid)).all()
    if not rows:
        return f"no series {series_uid} is known here"
    if any(row.operator_word for row in rows):
        return f"the word {next(r.operator_word for r in rows if r.operator_word)} about {series_uid} waits for the worker, which must be running"
    if any(standing(conn, row.id) is not None for row in rows):
        return ""
    gone = conn.execute(sa.select(revision.c.number, revision.c.ended_at).where(
        revision.c.series_id.in_([row.id for row in rows]), revision.c.reason == str(Reason.RETRACTED)).order_by(revision.c.number.desc())).first()
    if gone is not None:
        return f"{series_uid} is retracted already, by revision {gone.number} at {gone.ended_at}"
    return f"nothing of {series_uid} was assessed, so there is nothing to retract; see mediqa series show {series_uid}"


def must_wait(conn: sa.Connection, place: Workplace, row: Any) -> bool:
    """Whether something of the series is being assessed or reported, which would come after what withdraws it."""
    return conn.execute(sa.select(revision.c.id).join(series, series.c.id == revision.c.series_id).where(
        revision.c.series_id == row.id, sa.or_(revision.c.outcome.is_(None), report_due(place.config.report.on))).limit(1)).first() is not None


def withdraw(conn: sa.Connection, place: Workplace, row: Any) -> int | None:
    """The revision that withdraws the result of the series `row`; None while it must wait, or when there is nothing any more."""
    if must_wait(conn, place, row):
        return None
    old = standing(conn, row.id)
    conn.execute(series.update().where(series.c.id == row.id).values(operator_word=None, operator_text=None))
    if old is None:
        return None
    number = conn.execute(sa.select(series.c.revision).where(series.c.id == row.id)).scalar_one() + 1
    new = int(conn.execute(revision.insert().values(
        series_id=row.id, number=number, changes=old.changes, completed_at=clock.utc_now(), completed_by="operator", purpose=WORD,
        instances=old.instances, missing=old.missing, content_digest=old.content_digest)).inserted_primary_key[0])
    conn.execute(revision_instance.insert().from_select(["revision_id", "instance_id"], sa.select(
        sa.literal(new), revision_instance.c.instance_id).where(revision_instance.c.revision_id == old.id)))
    conn.execute(series.update().where(series.c.id == row.id).values(revision=number))
    _drop_waiting(conn, place, row, number)
    end_revision(conn, place, revision_row(conn, new), withdrawn(load(old.assessment), old.number, row.operator_text or ""))
    return new


def withdrawn(of: Assessment, number: int, why: str) -> Assessment:
    """The Assessment that withdraws `of`, revision `number`: what was assessed, and nothing that was said of it."""
    words = f"The result of revision {number} was withdrawn by an operator" + (f": {why}" if why else "")
    return Assessment(series_uid=of.series_uid, modality=of.modality, end=End.ABSTAINED, reason=Reason.RETRACTED, instances=of.instances,
                      region=of.region, description=of.description, facts=dataclasses.replace(of.facts),
                      findings=(Finding(str(Reason.RETRACTED), words if words.endswith((".", "!", "?")) else words + "."),))


def _drop_waiting(conn: sa.Connection, place: Workplace, row: Any, number: int) -> None:
    """A result that is withdrawn must not be sent afterwards."""
    waiting = conn.execute(sa.select(delivery.c.id, delivery.c.destination, delivery.c.kind).join(
        revision, revision.c.id == delivery.c.revision_id).where(
        revision.c.series_id == row.id, revision.c.number < number, delivery.c.state.in_(ledger.WAITING))).all()
    for one in waiting:
        if ledger.drop(conn, one.id, place.now()):
            place.audit.append(conn, "delivery-drop", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, delivery=one.id,
                               destination=one.destination, kind=one.kind, reason=str(Reason.RETRACTED))
