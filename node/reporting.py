"""From an Assessment to objects that lie durably in the store of results: numbers and predecessors from the rows, rendering, keeping."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydicom.errors import InvalidDicomError

from node import __version__
from node.workplace import Workplace
from qa_engine.assessment import Assessment
from qa_engine.outcome import Reason
from qa_engine.policy import Policy
from storage import index, results
from storage.objects import object_path
from storage.schema import delivery, revision


@dataclass(frozen=True)
class Kept:
    """A rendered object as it lies in the store; fields as in the table result_object."""

    kind: str
    sop_class_uid: str
    sop_uid: str
    series_uid: str
    study_uid: str
    path: str
    digest: str
    bytes: int


@dataclass(frozen=True)
class Rendering:
    """New objects; `notes` are sentences without patient data; `hold` = wait for an operator before anything is sent."""

    kept: tuple[Kept, ...]
    notes: tuple[str, ...] = ()
    hold: bool = False


def renderer(place: Workplace, policy: Policy) -> Callable[[Any, Sequence[Any], Assessment], Rendering]:
    """The report of this workplace, as a step of a revision."""

    def render(row: Any, versions: Sequence[Any], assessment: Assessment) -> Rendering:
        return render_and_keep(place, policy, row, versions, assessment)

    return render


def render_and_keep(place: Workplace, policy: Policy, row: Any, versions: Sequence[Any], assessment: Assessment) -> Rendering:
    """Render the result set of a revision and keep what is new of it; `row` is that of `node.steps.revision_row`.

    The time of making is that of the revision's end, so that rendering it again gives the same content.
    """
    from node.report.context import RenderContext
    from node.report.document import source_of_report
    from node.report.render import render_results, result_series
    from node.report.source_header import read_source_header

    report = place.config.report
    files = [place.objects.path(v.path) for v in versions]
    with place.reader.connect() as conn:
        withdrawals = retractions(conn, row)
        kept = predecessor_file(conn, place, row) if any(v.deleted_at is not None for v in versions) else None
    source = read_source_header(files, report.assumed_charset, report.charset) if kept is None else \
        source_of_report(kept, report.assumed_charset, report.charset)
    notes = tuple(f.text for f in source.findings)
    if not source.answerable:
        return Rendering((), ("the source names no study or no instance, nothing can be answered in it",))
    context = RenderContext(
        node_id=place.node_id, node_name=place.config.node.name, version=__version__, revision=row.number,
        made_at=datetime.fromisoformat(row.ended_at), content_digest=row.content_digest,
        model_digest=model_digest(assessment, policy, withdrawals), charset=report.charset,
        assumed_charset=report.assumed_charset, series_numbers={"sr": report.series_number.sr, "sc": report.series_number.sc},
        standard_verdict=report.standard_verdict)
    kinds = ("sc", "sr") if report.secondary_capture else ("sr",)
    series = {kind: result_series(source, assessment.series_uid, context, kind) for kind in kinds}
    with place.durable.begin() as conn:
        fixed = {kind: results.fixed_series(conn, uid, source.values["StudyInstanceUID"], kind, attributes)
                 for kind, (uid, attributes) in series.items()}
        numbers = {kind: results.next_instance_number(conn, uid) for kind, (uid, _) in series.items()}
        before = {kind: predecessors(conn, row, kind) for kind in kinds}
    context = replace(context, instance_numbers=numbers, series=fixed, predecessors=before)
    rendered = render_results(assessment, files, context, report.sr_classes, report.secondary_capture, source)
    with place.reader.connect() as conn:
        new = [o for o in rendered if not index.is_result_object(conn, o.sop_uid)]
    return Rendering(tuple(_keep(place, o) for o in new), notes, bool(source.doubtful) and report.on_bad_identity == "hold")


def model_digest(assessment: Assessment, policy: Policy, withdrawals: int = 0) -> str:
    """sha256 hex of what made numbers and words: weights, policy, end; another model makes another object.

    withdrawals: how often the result was withdrawn before. What comes after one is another object, although the same model says the same,
    and so is each withdrawal with its words.
    """
    model = assessment.model
    made_by = (model.profile, model.version, model.sha256) if model is not None else ("", "", "")
    words = tuple(f.text for f in assessment.findings) if assessment.reason is Reason.RETRACTED else ()
    after = (f"after {withdrawals} withdrawals",) if withdrawals else ()
    fields = (*made_by, policy.digest(), str(assessment.end), str(assessment.reason), *after, *words)
    return hashlib.sha256("\0".join(fields).encode("utf-8", "surrogateescape")).hexdigest()


def retractions(conn: sa.Connection, row: Any) -> int:
    """How often the result of the series was withdrawn before the revision `row`."""
    return int(conn.execute(sa.select(sa.func.count()).where(
        revision.c.series_id == row.series_id, revision.c.number < row.number, revision.c.reason == str(Reason.RETRACTED))).scalar_one())


def predecessor_file(conn: sa.Connection, place: Workplace, row: Any) -> Path | None:
    """The report of the newest older revision that has one: where retention has deleted the source, it still knows patient and study."""
    older = results.objects_of_series(conn, row.series_id, row.number, "sr")
    return place.results.path(older[0].path) if older else None


def predecessors(conn: sa.Connection, row: Any, kind: str) -> tuple[Any, ...]:
    """The result of the newest older revision that has one: the objects that destinations took, else the first that was rendered."""
    from node.report.context import Predecessor

    older = results.objects_of_series(conn, row.series_id, row.number, kind)
    newest = [o for o in older if o.number == older[0].number]
    taken = set(conn.execute(sa.select(delivery.c.object_id).where(
        delivery.c.revision_id == newest[0].revision_id, delivery.c.kind == kind)).scalars()) if newest else set()
    named = [o for o in newest if o.id in taken] or newest[:1]
    return tuple(Predecessor(o.sop_class_uid, o.sop_uid, o.series_uid, o.study_uid) for o in named)


def _keep(place: Workplace, rendered: Any) -> Kept:
    """The bytes, durable under a name of their own. If they lie there already, their row was lost: what may have been sent stays as it is."""
    sent = _rendered_before(place, rendered)
    if sent is not None:
        return sent
    digest = hashlib.sha256(rendered.data).hexdigest()
    part = place.results.begin()
    try:
        part.write(rendered.data)
        path = part.commit(rendered.study_uid, rendered.series_uid, rendered.sop_uid, digest)
    except BaseException:
        part.discard()
        raise
    return Kept(rendered.kind, rendered.sop_class_uid, rendered.sop_uid, rendered.series_uid, rendered.study_uid, path, digest,
                len(rendered.data))


def _rendered_before(place: Workplace, rendered: Any) -> Kept | None:
    """The object of that SOP Instance UID as it lies in the store, None where it was not rendered yet or cannot be read."""
    import pydicom

    path = object_path(rendered.study_uid, rendered.series_uid, rendered.sop_uid)
    try:
        data = place.results.path(path).read_bytes()
        header = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
        same = (header.SOPInstanceUID, header.SOPClassUID) == (rendered.sop_uid, rendered.sop_class_uid)
    except (OSError, InvalidDicomError, AttributeError):
        return None
    if not same:
        return None
    return Kept(rendered.kind, rendered.sop_class_uid, rendered.sop_uid, rendered.series_uid, rendered.study_uid, path,
                hashlib.sha256(data).hexdigest(), len(data))
