"""The document around a content tree, the same for every SR class (PS3.3 A.35): flags, evidence, predecessors; and what a stored one says of its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from node.report.common import finish, put_series
from node.report.context import RenderContext
from node.report.source_header import SourceHeader, put_identity, read_source_header


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


def source_of_report(file: Path, assumed_charset: str = "iso8859-1", policy: str = "source") -> SourceHeader:
    """What `read_source_header` would say, from a report of ours: for a series whose files are gone. The evidence has no rows and columns."""
    found = read_source_header([file], assumed_charset, policy)
    report = pydicom.dcmread(file, stop_before_pixels=True)
    evidence = []
    for study in report.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            for instance in series.ReferencedSOPSequence:
                ds = Dataset()
                ds.SOPClassUID, ds.SOPInstanceUID = instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID
                ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality = series.SeriesInstanceUID, study.StudyInstanceUID, ""
                evidence.append(ds)
    return replace(found, evidence=evidence)
