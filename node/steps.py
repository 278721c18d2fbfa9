"""The steps of a series revision: assess it, render its results, plan their deliveries. Each may run again after a kill.

A revision gets its end exactly once; result objects and the deliveries of them are one durable commit, made before anything leaves.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from node.assessment_text import dump, load, load_pictures, save_pictures
from node.deliver import ledger
from node.deliver.attempt import Sender
from node.deliver.routing import serving
from node.log import describe, event
from node.receive.admission import STAND_IN
from node.reporting import Rendering
from node.workplace import ACTOR, Workplace
from qa_engine.assessment import Assessment, Finding
from qa_engine.outcome import End, Reason, end_of
from storage import index, results
from storage.schema import instance, result_object, revision, series

log = logging.getLogger("node.steps")

PASSING = (OSError, sa.exc.OperationalError, sqlite3.OperationalError)
"""Errors of the machine (disk, database), not of the series: the step fails and is tried again."""


CONFLICT, DELETED = "uid-conflict", "files-deleted"
"""Findings: SOP Instance UIDs that came again with other content; instances whose files retention has deleted."""


TRIES = 3
"""Attempts of a revision; what then has no end is set aside for an operator."""


class StepFailed(Exception):
    """Name of an error without its text, which could quote a data element or the values of a row: the workflow engine stores it."""


def _may_pass(step: Callable[..., None]) -> Callable[..., None]:
    """A step that the machine did not let run fails as `StepFailed`; `node/repair.py` plans it anew."""
    @functools.wraps(step)
    def run(self: RevisionSteps, row_id: int) -> None:
        try:
            step(self, row_id)
        except PASSING as error:
            event(log, "a step could not run", logging.ERROR, error, step=step.__name__, revision=row_id)
            raise StepFailed(type(error).__name__) from None

    return run


Assess = Callable[[Sequence[Path]], Assessment]
"""Files of one series -> Assessment; `node.worker` passes `qa_engine.assess.assess` with the policy of the configuration."""


Render = Callable[[Any, Sequence[Any], Assessment], Rendering]
"""(row of `revision_row`, rows of its instances, Assessment) -> new objects that lie durably in the store of results."""


class RevisionSteps:
    """The steps that `node.workflow` runs. assess: the engine. render: the report. sender: tries deliveries.

    wake: called when a delivery may have become due.
    """

    def __init__(self, place: Workplace, assess: Assess, render: Render, sender: Sender,
                 wake: Callable[[], None] = lambda: None) -> None:
        self._place, self._assess_files, self._render, self._sender, self._wake = place, assess, render, sender, wake

    @_may_pass
    def assess(self, revision_id: int) -> None:
        """Give the revision its end, unless it has one."""
        with self._place.reader.connect() as conn:
            row = revision_row(conn, revision_id)
            if row is None or row.outcome is not None:
                return
            versions = index.revision_files(conn, revision_id)
            conflicts = _conflicts(conn, row.series_id)
            before = _latest_assessment(conn, row) if row.purpose == "identity" else None
        assessment = self._decide(row, versions, before)
        if conflicts and all(f.code != CONFLICT for f in assessment.findings):
            assessment = dataclasses.replace(assessment, findings=(*assessment.findings, Finding(
                CONFLICT, f"{conflicts} instances came again with other pixel data or elsewhere; the first version was assessed.")))
        if assessment.pictures:
            save_pictures(assessment.pictures, self._pictures(revision_id))
        else:
            self._pictures(revision_id).unlink(missing_ok=True)  # never those of another revision that bore this number before a restore
        with self._place.engine.begin() as conn:
            end_revision(conn, self._place, row, assessment)

    def _decide(self, row: Any, versions: Sequence[Any], before: tuple[int, str] | None) -> Assessment:
        """The Assessment of a revision: by the engine, or without it where none of its numbers is wanted."""
        foreign = [v for v in versions if not v.own]
        if not foreign:
            return without_engine(row, len(versions), Reason.OWN_RESULT)
        if row.number < row.newest:
            return without_engine(row, len(versions), Reason.SUPERSEDED)
        if gone := sum(v.deleted_at is not None for v in foreign):
            return dataclasses.replace(without_engine(row, len(versions), Reason.INCOMPLETE_SERIES), findings=(Finding(
                DELETED, f"{gone} of {len(foreign)} instances were deleted by retention; send the whole series again to have it judged."),))
        if before is not None:
            known, kept = load(before[1]), load_pictures(self._pictures(before[0]))
            if kept is not None or known.end is not End.ASSESSED:
                return dataclasses.replace(known, pictures=kept or ())
        try:
            return self._assess_files([self._place.objects.path(v.path) for v in foreign])
        except PASSING:
            raise
        except Exception as error:
            event(log, "assessment failed", logging.ERROR, error, revision=row.id)
            self._note(row, "assessment-error", error=describe(error))
            return without_engine(row, len(versions), Reason.INTERNAL_ERROR)

    @_may_pass
    def report(self, revision_id: int) -> None:
        """Render what the configuration wants rendered, keep it, plan its deliveries; again is harmless."""
        with self._place.reader.connect() as conn:
            row = revision_row(conn, revision_id)
            if row is None or row.outcome is None or not _wants_report(conn, row, self._place.config.report.on):
                return
            if row.reason == str(Reason.OWN_RESULT):
                return
            if row.study_uid.startswith(STAND_IN) or row.series_uid.startswith(STAND_IN):
                return  # what names no study or series cannot be answered in it
            versions = [v for v in index.revision_files(conn, revision_id) if not v.own]
            done = conn.execute(sa.select(result_object.c.id).where(result_object.c.revision_id == revision_id).limit(1)).first()
        if done is not None or not versions:
            return
        pictures = load_pictures(self._pictures(revision_id))
        if pictures is None and row.outcome == str(End.ASSESSED):
            # the file of pictures went away with a disk or a hand; the engine is a pure function and makes them again
            pictures = self._assess_files([self._place.objects.path(v.path) for v in versions]).pictures
        began = time.monotonic()
        try:
            made = self._render(row, versions, load(row.assessment, pictures or ()))
        except PASSING:
            raise
        except Exception as error:
            event(log, "report failed", logging.ERROR, error, revision=row.id)
            self._note(row, "report-error", error=describe(error))
            raise StepFailed(type(error).__name__) from None
        with self._place.durable.begin() as conn:
            # the same content has the same UID: scored again with the same model, nothing is new
            for o in made.kept:
                results.add_object(conn, revision_id=revision_id, made_at=self._place.now(), **dataclasses.asdict(o))
            conn.execute(sa.update(revision).where(revision.c.id == revision_id).values(report_seconds=time.monotonic() - began))
            kinds = sorted({o.kind for o in made.kept})
            names = serving(row.calling_ae, self._place.config.destinations)
            live = self._place.config.deliver.mode == "live" and not made.hold
            planned = ledger.plan(conn, revision_id, kinds, names, self._place.now(), self._place.config.deliver.last_retry, live)
            self._place.audit.append(conn, "reported", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, revision=row.number,
                                     objects=[{"kind": o.kind, "sop_class": o.sop_class_uid, "sop_uid": o.sop_uid} for o in made.kept],
                                     destinations=names, planned=planned, mode=self._place.config.deliver.mode, held=made.hold or None,
                                     notes=list(made.notes) or None)
            older = conn.execute(sa.select(revision.c.id).where(
                revision.c.series_id == row.series_id, revision.c.number < row.number)).scalars().all()
        for revision_id in older:
            self._pictures(revision_id).unlink(missing_ok=True)  # only the newest are needed, for a corrected identity
        self._wake()

    def deliver(self, delivery_id: int, attempt: int) -> None:
        """One try of one delivery, and on its association what else is due at the destination."""
        if self._place.config.deliver.mode != "live":
            return  # planned before the mode was changed; its row keeps it for later
        try:
            self._sender.attempt(delivery_id, attempt)
        except Exception as error:
            event(log, "try failed", logging.ERROR, error, delivery=delivery_id)
            raise StepFailed(type(error).__name__) from None
        self._wake()

    def _note(self, row: Any, what: str, **details: Any) -> None:
        with self._place.engine.begin() as conn:
            self._place.audit.append(conn, what, ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, revision=row.number, **details)

    def _pictures(self, revision_id: int) -> Path:
        return self._place.pictures / f"{revision_id}.npz"


def end_revision(conn: sa.Connection, place: Workplace, row: Any, assessment: Assessment) -> bool:
    """Write the end of a revision with all its columns and tell the audit log; False when it has one already."""
    from node import __version__

    worst = assessment.worst_slice
    low, high = assessment.interval or (None, None)
    reject_below, good_from = assessment.thresholds or (None, None)
    model, seconds = assessment.model, assessment.seconds
    done = conn.execute(sa.update(revision).where(revision.c.id == row.id, revision.c.outcome.is_(None)).values(
        outcome=str(assessment.end), reason=None if assessment.reason is None else str(assessment.reason), ended_at=place.now(),
        modality=assessment.modality, region=assessment.region, score=assessment.score, low=low, high=high, raw_score=assessment.score,
        verdict=assessment.verdict, good_from=good_from, reject_below=reject_below, noise=assessment.noise,
        sharpness=assessment.sharpness, artefact=assessment.artefact, model_profile=model and model.profile,
        model_version=model and model.version, model_sha256=model and model.sha256, node_version=__version__, device=assessment.device,
        read_seconds=seconds.get("read"), network_seconds=seconds.get("network"), total_seconds=seconds.get("total"),
        assessment=dump(assessment), lease_owner=None, lease_until=None))
    if not done.rowcount:
        return False
    place.audit.append(conn, "ended", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, revision=row.number,
                       end=str(assessment.end), reason=None if assessment.reason is None else str(assessment.reason),
                       score=None if assessment.score is None else round(assessment.score, 1), verdict=assessment.verdict,
                       worst=None if worst is None else worst.ordinal, model=model and model.sha256,
                       findings=[f.code for f in assessment.findings])
    return True


def revision_row(conn: sa.Connection, revision_id: int) -> Any:
    """The revision's row with what is needed of its series; `newest` is the number of the newest revision."""
    about = (series.c.study_uid, series.c.series_uid, series.c.calling_ae, series.c.modality.label("series_modality"),
             series.c.description, series.c.revision.label("newest"))
    return conn.execute(sa.select(revision, *about).join(series, series.c.id == revision.c.series_id)
                        .where(revision.c.id == revision_id)).one_or_none()


def report_due(wanted: Sequence[str]) -> sa.ColumnElement[bool]:
    """Condition on `revision` and its `series`: its end is one of `wanted` or withdraws what was reported, and its report is still to be made."""
    earlier = revision.alias()
    withdraws = (revision.c.reason == str(Reason.RETRACTED)) & sa.exists().where(
        earlier.c.series_id == revision.c.series_id, earlier.c.number < revision.c.number, result_object.c.revision_id == earlier.c.id)
    return sa.and_(
        sa.or_(revision.c.outcome.in_(wanted), withdraws), revision.c.attempt <= TRIES, revision.c.report_seconds.is_(None),
        sa.func.coalesce(revision.c.reason, "") != str(Reason.OWN_RESULT),
        ~series.c.study_uid.startswith(STAND_IN), ~series.c.series_uid.startswith(STAND_IN),
        ~sa.exists().where(result_object.c.revision_id == revision.c.id))


def _wants_report(conn: sa.Connection, row: Any, ends: Sequence[str]) -> bool:
    """Whether its end is one of `ends`; what withdraws a result is reported where that was."""
    if row.reason != str(Reason.RETRACTED):
        return row.outcome in ends
    return any(results.objects_of_series(conn, row.series_id, row.number, kind) for kind in ("sr", "sc"))


def _conflicts(conn: sa.Connection, series_id: int) -> int:
    return conn.execute(sa.select(sa.func.count()).where(
        instance.c.series_id == series_id, instance.c.arrival == "conflict")).scalar_one()


def _latest_assessment(conn: sa.Connection, row: Any) -> tuple[int, str] | None:
    """Revision id and text of the newest Assessment of the series before this one."""
    found = conn.execute(sa.select(revision.c.id, revision.c.assessment).where(
        revision.c.series_id == row.series_id, revision.c.number < row.number, revision.c.assessment.is_not(None))
        .order_by(revision.c.number.desc()).limit(1)).one_or_none()
    return None if found is None else (found.id, found.assessment)


def without_engine(row: Any, instances: int, reason: Reason) -> Assessment:
    """The Assessment of a revision that ends for `reason` without a look at its pixels; `row` is that of `revision_row`."""
    return Assessment(series_uid=row.series_uid, modality=row.series_modality, end=end_of(reason), reason=reason, instances=instances,
                      description=row.description)
