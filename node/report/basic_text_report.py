"""The fallback for a PACS that takes no coded report: Basic Text SR, sentences only (PS3.3 A.35.1, TID 2000)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from node.report import codes
from node.report.common import code_item, finish, part10, put_series
from node.report.context import Predecessor, RenderContext
from node.report.measurement_report import sentences
from node.report.source_header import SourceHeader, put_identity
from qa_engine.assessment import Assessment

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.88.11"


def _text(words: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [code_item(codes.FINDING)]
    item.TextValue = words
    return item


def lines(a: Assessment) -> list[str]:
    """The sentences of the report."""
    found = []
    if a.score is not None and a.interval is not None:
        found.append(f"Image quality score {a.score:.1f} of 100 (90% interval {a.interval[0]:.1f} to {a.interval[1]:.1f}): {a.verdict}")
        found += [f"Slice {s.ordinal}: score {s.score:.1f}, weight {s.weight:.4f}" for s in sorted(a.slices, key=lambda s: s.score)]
        found += [f"{d.type}: {d.severity}, probability {d.probability:.2f}" for d in a.degradations]
    else:
        found += [f"Not assessed: {a.end}/{a.reason}", f"Images received: {a.instances}"]
    if a.model is not None:
        found.append(f"Model {a.model.profile} {a.model.version}, sha256 {a.model.sha256}")
    return [*found, *sentences(a)]


def render_basic_text(assessment: Assessment, source: SourceHeader, context: RenderContext, sop_uid: str, series_uid: str,
                      series: Mapping[str, Any]) -> bytes:
    """A Part 10 file; `series` are the attributes of the result series."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = SOP_CLASS_UID, sop_uid, series_uid
    put_identity(ds, source)
    put_series(ds, series)
    ds.Modality, ds.InstanceNumber = "SR", context.instance_numbers.get("sr", 1)
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "FINAL"
    ds.PerformedProcedureCodeSequence = []
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [code_item(codes.IMAGING_REPORT)]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2000"
    ds.ContentTemplateSequence = [template]
    findings = Dataset()
    findings.RelationshipType, findings.ValueType, findings.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    findings.ConceptNameCodeSequence = [code_item(codes.FINDINGS)]
    findings.ContentSequence = [_text(words) for words in lines(assessment)]
    ds.ContentSequence = [findings]
    ds.CurrentRequestedProcedureEvidenceSequence = [
        _study(source.values["StudyInstanceUID"], ((d.SeriesInstanceUID, d.SOPClassUID, d.SOPInstanceUID) for d in source.evidence))]
    older = context.predecessors.get("sr", ())
    if older:
        ds.PredecessorDocumentsSequence = _predecessors(older)
    finish(ds, context, source.charset)
    return part10(ds)


def _study(study_uid: str, instances: Iterable[tuple[str, str, str]]) -> Dataset:
    """(series, SOP Class, SOP Instance UID) of a study by series (PS3.3 C.17.2.1)."""
    study = Dataset()
    study.StudyInstanceUID = study_uid
    by_series: dict[str, list[Dataset]] = {}
    for series_uid, sop_class_uid, sop_uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_uid
        by_series.setdefault(series_uid, []).append(item)
    study.ReferencedSeriesSequence = []
    for uid, items in by_series.items():
        one = Dataset()
        one.SeriesInstanceUID, one.ReferencedSOPSequence = uid, items
        study.ReferencedSeriesSequence.append(one)
    return study


def _predecessors(older: Iterable[Predecessor]) -> list[Dataset]:
    by_study: dict[str, list[tuple[str, str, str]]] = {}
    for p in older:
        by_study.setdefault(p.study_uid, []).append((p.series_uid, p.sop_class_uid, p.sop_uid))
    return [_study(uid, instances) for uid, instances in by_study.items()]
