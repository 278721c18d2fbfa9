"""Assessment -> the objects that are kept and sent: one SR in the class asked for, one Secondary Capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from node.report.basic_text_report import SOP_CLASS_UID as BASIC_TEXT
from node.report.basic_text_report import render_basic_text
from node.report.common import local_parts
from node.report.context import Predecessor, RenderContext, RenderedObject
from node.report.identifiers import result_series_uid, result_sop_uid
from node.report.measurement_report import CLASSES, build_report, in_class
from node.report.overlay import draw_overlay
from node.report.secondary_capture import SOP_CLASS_UID as SECONDARY_CAPTURE
from node.report.secondary_capture import render_capture
from node.report.source_header import SourceHeader, read_source_header
from qa_engine.assessment import Assessment

__all__ = ["Predecessor", "RenderContext", "RenderedObject", "render_overlay_png", "render_results", "result_series"]

SR_CLASS_UIDS = CLASSES | {"basic-text": BASIC_TEXT}
DESCRIPTIONS = {"sr": "MedIQA image quality report", "sc": "MedIQA image quality"}


def result_series(source: SourceHeader, source_series_uid: str, context: RenderContext, kind: str) -> tuple[str, dict[str, Any]]:
    """Series Instance UID of the results of that kind, and the attributes that a new series of that kind gets."""
    date, time, _ = local_parts(context)
    uid = result_series_uid(context.node_id, kind, source.values["StudyInstanceUID"], source_series_uid, source.digest)
    return uid, {"SeriesDate": date, "SeriesTime": time, "SeriesNumber": context.series_numbers[kind], "SeriesDescription": DESCRIPTIONS[kind],
                 "BodyPartExamined": source.body_part}


def _object(kind: str, sop_class: str, assessment: Assessment, source: SourceHeader, context: RenderContext) -> tuple[str, str, dict[str, Any]]:
    """Series and SOP Instance UID of a result, and the attributes of its series."""
    series_uid, attributes = result_series(source, assessment.series_uid, context, kind)
    sop_uid = result_sop_uid(context.node_id, kind, sop_class, source.values["StudyInstanceUID"], assessment.series_uid,
                             context.content_digest, source.digest, context.model_digest)
    return series_uid, sop_uid, attributes | dict(context.series.get(kind, {}))


def _reports(assessment: Assessment, source: SourceHeader, context: RenderContext, sr_classes: Sequence[str]) -> list[RenderedObject]:
    """The report in each class: comprehensive-3d, comprehensive, enhanced (one tree for these three) or basic-text."""
    found, coded = [], None
    for name in sr_classes:
        series_uid, sop_uid, attributes = _object("sr", SR_CLASS_UIDS[name], assessment, source, context)
        if name == "basic-text":
            data = render_basic_text(assessment, source, context, sop_uid, series_uid, attributes)
        else:
            if coded is None:
                key = _object("sr", "", assessment, source, context)[1]
                coded = build_report(assessment, source, context, key, series_uid, attributes)
            data = in_class(coded, name, sop_uid)
        found.append(RenderedObject("sr", SR_CLASS_UIDS[name], sop_uid, series_uid, source.values["StudyInstanceUID"], data, attributes,
                                    source.findings))
    return found


def _capture(assessment: Assessment, source: SourceHeader, context: RenderContext) -> RenderedObject:
    """The Secondary Capture."""
    series_uid, sop_uid, attributes = _object("sc", SECONDARY_CAPTURE, assessment, source, context)
    picture = np.asarray(draw_overlay(assessment, context).image)
    data = render_capture(assessment, source, context, picture, sop_uid, series_uid, attributes)
    return RenderedObject("sc", SECONDARY_CAPTURE, sop_uid, series_uid, source.values["StudyInstanceUID"], data, attributes, source.findings)


def render_results(assessment: Assessment, files: Sequence[Path], context: RenderContext, sr_classes: Sequence[str],
                   secondary_capture: bool = True, source: SourceHeader | None = None) -> list[RenderedObject]:
    """Every object of a result set: the capture first, then the report in each class that a destination might take.

    What is wrong with the source's header is told with the findings of the engine. Nothing for a source that names no study or no instance.
    """
    source = source or read_source_header(files, context.assumed_charset, context.charset)
    if not source.answerable:
        return []
    told = replace(assessment, findings=(*assessment.findings, *source.findings))
    captures = [_capture(told, source, context)] if secondary_capture else []
    return [*captures, *_reports(told, source, context, sr_classes)]


def render_overlay_png(assessment: Assessment, context: RenderContext) -> bytes:
    """The picture of the Secondary Capture as PNG."""
    out = BytesIO()
    draw_overlay(assessment, context).image.save(out, "PNG")
    return out.getvalue()
