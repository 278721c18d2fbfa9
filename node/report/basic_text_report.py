"""The fallback for a PACS that takes no coded report: Basic Text SR, sentences only (PS3.3 A.35.1, TID 2000)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from node.report.common import code_item, finish, local_parts, part10
from node.report.context import RenderContext
from node.report.measurement_report import NOT_FOR_DIAGNOSIS, ascii_text
from node.report.source_header import SourceHeader, put_identity
from qa_engine.assessment import Assessment

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.88.11"
TITLE, FINDINGS = Code("18748-4", "LN", "Diagnostic imaging report"), Code("121070", "DCM", "Findings")
FINDING = Code("121071", "DCM", "Finding")


def _text(words: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [code_item(FINDING)]
    item.TextValue = ascii_text(words)[:1024]
    return item


def lines(a: Assessment) -> list[str]:
    """The sentences of the report."""
    found = []
    if a.score is not None and a.interval is not None:
        found.append(f"Image quality score {a.score:.1f} of 100 (90% interval {a.interval[0]:.1f} to {a.interval[1]:.1f}): {a.verdict}")
        found += [f"Slice {s.ordinal}: score {s.score:.1f}, weight {s.weight:.4f}" for s in sorted(a.slices, key=lambda s: s.score)]
        found += [f"{d.type}: {d.severity}, probability {d.probability:.2f}" for d in a.degradations]
    else:
        found.append(f"Not assessed: {a.end}/{a.reason}")
    found += [a.text, *(f.text for f in a.findings)]
    if a.model is not None:
        found.append(f"Model {a.model.profile} {a.model.version}, sha256 {a.model.sha256}")
    return [line for line in [*found, NOT_FOR_DIAGNOSIS] if line]


def render_basic_text(assessment: Assessment, source: SourceHeader, context: RenderContext, sop_uid: str, series_uid: str,
                      description: str) -> bytes:
    """A Part 10 file."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = SOP_CLASS_UID, sop_uid, series_uid
    put_identity(ds, source)
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription = "SR", context.series_numbers["sr"], description
    ds.InstanceNumber = context.instance_numbers.get("sr", 1)
    ds.ReferencedPerformedProcedureStepSequence = []
    date, time, _ = local_parts(context)
    fixed = context.series.get("sr", {})
    ds.SeriesDate, ds.SeriesTime = fixed.get("SeriesDate", date), fixed.get("SeriesTime", time)
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "FINAL"
    ds.PerformedProcedureCodeSequence = []
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [code_item(TITLE)]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2000"
    ds.ContentTemplateSequence = [template]
    findings = Dataset()
    findings.RelationshipType, findings.ValueType, findings.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    findings.ConceptNameCodeSequence = [code_item(FINDINGS)]
    findings.ContentSequence = [_text(words) for words in lines(assessment)]
    ds.ContentSequence = [findings]
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence_item(source)]
    finish(ds, context, source.charset)
    return part10(ds)


def evidence_item(source: SourceHeader) -> Dataset:
    """All source instances by series (PS3.3 C.17.2)."""
    study = Dataset()
    study.StudyInstanceUID = source.values["StudyInstanceUID"]
    by_series: dict[str, list[Dataset]] = {}
    for ds in source.evidence:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
        by_series.setdefault(ds.SeriesInstanceUID, []).append(item)
    study.ReferencedSeriesSequence = []
    for uid, items in by_series.items():
        one = Dataset()
        one.SeriesInstanceUID, one.ReferencedSOPSequence = uid, items
        study.ReferencedSeriesSequence.append(one)
    return study
