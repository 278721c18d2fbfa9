"""The document around a content tree, the same for every SR class (PS3.3 A.35): flags, evidence, predecessors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from node.report.common import finish, put_series
from node.report.context import RenderContext
from node.report.source_header import SourceHeader, put_identity


def sr_document(root: Dataset, source: SourceHeader, context: RenderContext, sop_class_uid: str, sop_uid: str, series_uid: str,
                series: Mapping[str, Any]) -> Dataset:
    """`root`: the root content item; `series`: the attributes of the result series. A machine's word is complete and final, never verified."""
    ds = Dataset()
    ds.update(root)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = sop_class_uid, sop_uid, series_uid
    put_identity(ds, source)
    put_series(ds, series)
    ds.Modality, ds.InstanceNumber = "SR", context.instance_numbers.get("sr", 1)
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "FINAL"
    ds.ReferencedPerformedProcedureStepSequence, ds.PerformedProcedureCodeSequence = [], []
    study_uid = source.values["StudyInstanceUID"]
    ds.CurrentRequestedProcedureEvidenceSequence = _by_study((study_uid, d.SeriesInstanceUID, d.SOPClassUID, d.SOPInstanceUID) for d in source.evidence)
    older = context.predecessors.get("sr", ())
    if older:
        ds.PredecessorDocumentsSequence = _by_study((p.study_uid, p.series_uid, p.sop_class_uid, p.sop_uid) for p in older)
    finish(ds, context, source.charset)
    return ds


def _by_study(instances: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    """(study, series, SOP Class, SOP Instance UID) as items by study and series (PS3.3 C.17.2.1)."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for study_uid, series_uid, sop_class_uid, sop_uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_uid
        studies.setdefault(study_uid, {}).setdefault(series_uid, []).append(item)
    found = []
    for study_uid, by_series in studies.items():
        study = Dataset()
        study.StudyInstanceUID, study.ReferencedSeriesSequence = study_uid, []
        for series_uid, items in by_series.items():
            one = Dataset()
            one.SeriesInstanceUID, one.ReferencedSOPSequence = series_uid, items
            study.ReferencedSeriesSequence.append(one)
        found.append(study)
    return found
