"""The fallback for a PACS that takes no coded report: Basic Text SR, sentences only (PS3.3 A.35.1, TID 2000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset

from node.report import codes
from node.report.common import code_item, part10
from node.report.context import RenderContext
from node.report.document import sr_document
from node.report.measurement_report import sentences
from node.report.source_header import SourceHeader
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
    root, template, findings = Dataset(), Dataset(), Dataset()
    root.ValueType, root.ContinuityOfContent = "CONTAINER", "SEPARATE"
    root.ConceptNameCodeSequence = [code_item(codes.IMAGING_REPORT)]
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2000"
    root.ContentTemplateSequence = [template]
    findings.RelationshipType, findings.ValueType, findings.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    findings.ConceptNameCodeSequence = [code_item(codes.FINDINGS)]
    findings.ContentSequence = [_text(words) for words in lines(assessment)]
    root.ContentSequence = [findings]
    return part10(sr_document(root, source, context, SOP_CLASS_UID, sop_uid, series_uid, series))
