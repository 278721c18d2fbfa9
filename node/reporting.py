"""From an Assessment to objects that lie durably in the store of results: what a rendering needs is fixed and kept first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from node import __version__
from node.workplace import ACTOR, SR_CLASSES, Workplace
from qa_engine.assessment import Assessment
from storage import results


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


def model_digest(assessment: Assessment, policy_digest: str) -> str:
    """sha256 hex of what made the numbers and words: weights and policy; another model makes another object."""
    model = assessment.model
    told = (model.profile, model.version, model.sha256) if model is not None else ("", "", "")
    return hashlib.sha256("\0".join((*told, policy_digest, str(assessment.end), str(assessment.reason))).encode()).hexdigest()


def renderer(place: Workplace) -> Callable[[Any, Sequence[Any], Assessment], list[Kept]]:
    """`render_and_keep` at this workplace, as the steps of a revision call it."""
    return partial(render_and_keep, place)


def render_and_keep(place: Workplace, row: Any, versions: Sequence[Any], assessment: Assessment) -> list[Kept]:
    """Render the result set of a revision and put it durably into the store of results; nothing leaves before the caller's commit.

    `row` is a `revision_row`, `versions` rows of its instances. The time of making is that of the revision's end, so that rendering it
    again gives the same bytes. An identity that had to be cut holds everything back where the site wants that.
    """
    from node.build import policy_of
    from node.report.context import RenderContext
    from node.report.render import DESCRIPTIONS, render_sc, render_sr, result_series
    from node.report.source_header import read_source_header

    report = place.config.report
    source = read_source_header([place.objects.path(v.path) for v in versions], report.assumed_charset, report.charset)
    if source.cut and report.on_bad_identity == "hold":
        with place.engine.begin() as conn:
            place.audit.append(conn, "report-held", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, attributes=list(source.cut))
        return []
    context = RenderContext(
        node_id=place.node_id, node_name=place.config.node.name, version=__version__, revision=row.number,
        made_at=datetime.fromisoformat(row.ended_at), content_digest=row.content_digest,
        model_digest=model_digest(assessment, policy_of(place.config).digest()), charset=report.charset,
        assumed_charset=report.assumed_charset, series_numbers={"sr": report.series_number.sr, "sc": report.series_number.sc},
        standard_verdict=report.standard_verdict, completed_by=row.completed_by)
    kinds = [kind for kind in DESCRIPTIONS if kind == "sr" and report.sr_classes or kind == "sc" and report.secondary_capture]
    fixed, numbers, older = {}, {}, {}
    with place.durable.begin() as conn:
        for kind in kinds:
            uid, attributes = result_series(source, assessment.series_uid, context, kind)
            fixed[kind] = results.fixed_series(conn, uid, source.values["StudyInstanceUID"], kind, attributes)
            numbers[kind] = results.next_instance_number(conn, uid)
            older[kind] = results.objects_of_series(conn, row.series_id, row.number, kind)
    told = replace(assessment, findings=(*assessment.findings, *source.findings))
    context = replace(context, series=fixed, instance_numbers=numbers)
    rendered = []
    if "sc" in kinds:
        rendered.append(render_sc(told, source, replace(context, predecessors={"sc": _newest(older["sc"], None)})))
    for name in report.sr_classes:
        rendered.append(render_sr(told, source, replace(context, predecessors={"sr": _newest(older["sr"], SR_CLASSES[name])}), name))
    return [_keep(place, one) for one in rendered]


def _newest(objects: Sequence[Any], sop_class_uid: str | None) -> tuple[Any, ...]:
    """The object of the newest older revision in the same class, as a predecessor."""
    from node.report.context import Predecessor

    for o in objects:
        if sop_class_uid in (None, o.sop_class_uid):
            return (Predecessor(o.sop_class_uid, o.sop_uid, o.series_uid, o.study_uid),)
    return ()


def _keep(place: Workplace, one: Any) -> Kept:
    digest = hashlib.sha256(one.data).hexdigest()
    part = place.results.begin()
    try:
        part.write(one.data)
        path = part.commit(one.study_uid, one.series_uid, one.sop_uid, digest)
    finally:
        part.discard()
    return Kept(one.kind, one.sop_class_uid, one.sop_uid, one.series_uid, one.study_uid, path, digest, len(one.data))
