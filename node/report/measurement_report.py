"""The Structured Report: TID 1500 Measurement Report with generic groups of TID 1501 (PS3.16), one tree for three SR classes.

Built of highdicom's content items rather than its templates: containers are SEPARATE, every NUM has an INFERRED FROM child, every group a
tracking identifier of its own and at least one NUM, and the Image Library holds the salient images only (docs/decisions/0005).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    CompositeContentItem,
    ContainerContentItem,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    ScoordContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from highdicom.sr.enum import GraphicTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from node.report import codes
from node.report.common import MODEL_NAME, part10
from node.report.context import RenderContext
from node.report.document import sr_document
from node.report.identifiers import MANUFACTURER, device_uid, tracking_uid
from node.report.source_header import SourceHeader
from qa_engine.assessment import WEIGHT_DIGITS, Assessment, Quantity, SliceScore
from qa_engine.description import describe, describe_other
from qa_engine.description_words import DIFFERENCES

CLASSES = {"comprehensive-3d": "1.2.840.10008.5.1.4.1.1.88.34", "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
           "enhanced": "1.2.840.10008.5.1.4.1.1.88.22"}
R = RelationshipTypeValues
SOURCES = 7
"""Most images that a number of the whole series refers to; the lowest scores first."""
NOT_FOR_DIAGNOSIS = "Technical image quality only; not for diagnosis. The score is trained on simulated degradations."


def ascii_text(value: str) -> str:
    """Our own words stay within ASCII, so that they fit any character set."""
    return value.encode("ascii", "replace").decode("ascii")


def sentences(a: Assessment) -> list[str]:
    """What the report says in words: the engine's text, or the reason where the engine was not asked, and the findings."""
    told = a.text or (describe_other(a.reason) if a.reason is not None else "")
    return [ascii_text(words)[:1024] for words in (told, *(f.text for f in a.findings), NOT_FOR_DIAGNOSIS) if words]


class Tree:
    """Builds the content of one report. Image references stay within the evidence. `key`: what tracking UIDs derive from."""

    def __init__(self, assessment: Assessment, source: SourceHeader, context: RenderContext, key: str) -> None:
        self.a, self.source, self.context, self.key = assessment, source, context, key
        self._evidence = {ds.SOPInstanceUID: ds for ds in source.evidence}
        self._first = source.evidence[0]
        self.worst_first = sorted((s for s in assessment.slices if s.sop_uid in self._evidence), key=lambda s: s.score)
        self.leading = self.worst_first[:SOURCES]

    def root(self) -> ContainerContentItem:
        """IMAGING MEASUREMENT REPORT."""
        root = ContainerContentItem(codes.IMAGING_MEASUREMENT_REPORT, is_content_continuous=False, template_id="1500")
        procedure = codes.PROCEDURES.get(self.a.modality, codes.ANY_PROCEDURE)
        content = [CodeContentItem(codes.LANGUAGE, codes.ENGLISH, R.HAS_CONCEPT_MOD), *self._observer(),
                   CodeContentItem(codes.PROCEDURE_REPORTED, procedure, R.HAS_CONCEPT_MOD), *self._library()]
        measurements = ContainerContentItem(codes.IMAGING_MEASUREMENTS, is_content_continuous=False, relationship_type=R.CONTAINS)
        measurements.ContentSequence = [self._series(), *self._slices(), *self._degradations(), *self._measures(), *self._acquisition()]
        root.ContentSequence = [*content, measurements]
        return root

    def _observer(self) -> list[Dataset]:
        uid = device_uid(self.context.node_id)
        pairs = ((codes.DEVICE_OBSERVER_NAME, self.context.node_name), (codes.DEVICE_MANUFACTURER, MANUFACTURER),
                 (codes.DEVICE_MODEL, MODEL_NAME), (codes.DEVICE_SERIAL, self.context.node_id))
        return [CodeContentItem(codes.OBSERVER_TYPE, codes.DEVICE, R.HAS_OBS_CONTEXT),
                UIDRefContentItem(codes.DEVICE_OBSERVER_UID, uid, R.HAS_OBS_CONTEXT),
                *(TextContentItem(name, ascii_text(value), R.HAS_OBS_CONTEXT) for name, value in pairs)]

    def _image(self, name: Code, uid: str, frame: int | None, relation: RelationshipTypeValues) -> ImageContentItem | CompositeContentItem:
        """A reference to a source instance; one without rows is no image."""
        ds = self._evidence[uid]
        if "Rows" not in ds:
            return CompositeContentItem(name, ds.SOPClassUID, uid, relationship_type=relation)
        return ImageContentItem(name, ds.SOPClassUID, uid, referenced_frame_numbers=None if frame is None else [frame], relationship_type=relation)

    def _library(self) -> list[ContainerContentItem]:
        """The images that the report speaks of; none when the source has no image."""
        library = ContainerContentItem(codes.IMAGE_LIBRARY, is_content_continuous=False, relationship_type=R.CONTAINS)
        group = ContainerContentItem(codes.IMAGE_LIBRARY_GROUP, is_content_continuous=False, relationship_type=R.CONTAINS)
        leading = sorted(self.leading, key=lambda s: s.ordinal)
        images = [self._image(codes.SOURCE, s.sop_uid, s.frame, R.CONTAINS) for s in leading]
        for image in images:
            image.ContentSequence = [CodeContentItem(codes.MODALITY, codes.MODALITIES[self.a.modality], R.HAS_ACQ_CONTEXT)]
        if not images and "Rows" in self._first:
            images = [self._image(codes.SOURCE, self._first.SOPInstanceUID, None, R.CONTAINS)]
        group.ContentSequence = images
        library.ContentSequence = [group]
        return [library] if images else []

    def _group(self, name: str, finding: Code, items: Iterable[Dataset]) -> ContainerContentItem:
        group = ContainerContentItem(codes.MEASUREMENT_GROUP, is_content_continuous=False, template_id="1501", relationship_type=R.CONTAINS)
        group.ContentSequence = [TextContentItem(codes.TRACKING_IDENTIFIER, ascii_text(name), R.HAS_OBS_CONTEXT),
                                 UIDRefContentItem(codes.TRACKING_UID, tracking_uid(self.key, name), R.HAS_OBS_CONTEXT),
                                 CodeContentItem(codes.FINDING, finding, R.CONTAINS), *items]
        return group

    def _frame(self, s: SliceScore) -> ScoordContentItem:
        """The outline of the whole frame: what a viewer can jump to."""
        ds = self._evidence[s.sop_uid]
        rows, columns = float(ds.get("Rows", 1)), float(ds.get("Columns", 1))
        outline = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows], [0, 0]], dtype=np.float32)
        item = ScoordContentItem(codes.IMAGE_REGION, GraphicTypeValues.POLYLINE, outline, relationship_type=R.INFERRED_FROM)
        item.ContentSequence = [self._image(codes.SOURCE, s.sop_uid, s.frame, R.SELECTED_FROM)]
        return item

    def _sources(self) -> list[Dataset]:
        """What a number of the series was computed from: the salient images, worst first, or the first image."""
        if not self.leading:
            return [self._image(codes.SOURCE_OF_MEASUREMENT, self._first.SOPInstanceUID, None, R.INFERRED_FROM)]
        return [self._image(codes.SOURCE_OF_MEASUREMENT, s.sop_uid, s.frame, R.INFERRED_FROM) for s in self.leading]

    def _number(self, name: Code, value: float, unit: Code, children: Sequence[Dataset] | None = None) -> NumContentItem:
        item = NumContentItem(name, float(value), unit, relationship_type=R.CONTAINS)
        item.ContentSequence = list(children) if children is not None else self._sources()
        return item

    def _algorithm(self) -> list[Dataset]:
        model = self.a.model
        if model is None:
            return []
        parameters = [f"weights sha256={model.sha256}", f"profile={model.profile}", f"scored slices={len(self.a.slices)}",
                      f"device={self.a.device or 'cpu'}", f"revision={self.context.revision}"]
        return [TextContentItem(codes.ALGORITHM_NAME, "MedIQA", R.HAS_CONCEPT_MOD),
                TextContentItem(codes.ALGORITHM_VERSION, f"{self.context.version} / model {model.version}", R.HAS_CONCEPT_MOD),
                *(TextContentItem(codes.ALGORITHM_PARAMETERS, ascii_text(p), R.HAS_CONCEPT_MOD) for p in parameters),
                CodeContentItem(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, R.HAS_CONCEPT_MOD)]

    def _series(self) -> ContainerContentItem:
        a = self.a
        items: list[Dataset] = [*self._algorithm()]
        if a.score is not None and a.interval is not None:
            items.append(self._number(codes.SERIES_SCORE, round(a.score, 1), codes.POINTS, [self._frame(s) for s in self.leading]))
            for name, value in ((codes.LOWER, a.interval[0]), (codes.UPPER, a.interval[1]), (codes.NOISE_SCORE, a.noise),
                                (codes.SHARPNESS_SCORE, a.sharpness), (codes.ARTEFACT_SCORE, a.artefact)):
                if value is not None:
                    items.append(self._number(name, round(value, 1), codes.POINTS))
            if self.context.standard_verdict:
                items += [CodeContentItem(codes.QUALITY_ASSESSMENT, codes.STANDARD_VERDICTS[str(a.verdict)], R.CONTAINS),
                          CodeContentItem(codes.QUALITY_STANDARD, codes.INSTITUTION_STANDARD, R.CONTAINS)]
        else:
            items.append(self._number(codes.IMAGES_RECEIVED, a.instances, codes.NO_UNITS))
            items.append(TextContentItem(codes.REASON, f"{a.end}/{a.reason}", R.CONTAINS))
        items.append(CodeContentItem(codes.VERDICT, codes.VERDICTS[a.verdict], R.CONTAINS))
        items += self._comments(*sentences(a))
        items += [self._image(codes.SOURCE_OF_MEASUREMENT, s.sop_uid, s.frame, R.CONTAINS) for s in self.leading]
        return self._group("Series", codes.IMAGE_QUALITY, items)

    def _slices(self) -> list[ContainerContentItem]:
        return [self._group(f"Slice {s.ordinal}", codes.IMAGE_QUALITY, [
            self._number(codes.SLICE_SCORE, round(s.score, 1), codes.POINTS, [self._frame(s)]),
            self._number(codes.WEIGHT, round(s.weight, WEIGHT_DIGITS), codes.SHARE, [self._frame(s)]),
            *self._comments(f"Scored since it differs from the slices around: {DIFFERENCES[s.outlier]}." if s.outlier else ""),
            self._image(codes.SOURCE_OF_MEASUREMENT, s.sop_uid, s.frame, R.CONTAINS)]) for s in self.worst_first]

    @staticmethod
    def _comments(*told: str) -> list[TextContentItem]:
        return [TextContentItem(codes.COMMENT, ascii_text(words)[:1024], R.CONTAINS) for words in told if words]

    def _degradations(self) -> list[ContainerContentItem]:
        """Code, probability, severity and amount of each, and beside them its technical cause and its impact in words."""
        found = []
        record = describe(self.a) if self.a.degradations else None
        for k, d in enumerate(self.a.degradations):
            items: list[Dataset] = [self._number(codes.PROBABILITY, round(d.probability, 3), codes.SHARE),
                                    CodeContentItem(codes.SEVERITY, codes.SEVERITIES[str(d.severity)], R.CONTAINS)]
            if d.amount is not None and d.unit in codes.UNITS:
                items.append(self._number(codes.AMOUNT, d.amount, codes.unit(d.unit, codes.UNITS[d.unit])))
            if record is not None:
                items += self._comments(record.causes[k].text, record.impacts[k].text)
            found.append(self._group(f"Degradation: {d.type}", codes.DEGRADATIONS[d.type], items))
        return found

    def _table(self, name: str, quantities: Mapping[str, tuple[Code, float, str]], children: Sequence[Dataset] | None) -> list[ContainerContentItem]:
        items = [self._number(code, value, codes.unit(unit, codes.UNITS[unit]), children) for code, value, unit in quantities.values()]
        return [self._group(name, codes.IMAGE_QUALITY, items)] if items else []

    def _measures(self) -> list[ContainerContentItem]:
        return self._table("Measures", _numeric(self.a.measures, codes.MEASURES), None)

    def _acquisition(self) -> list[ContainerContentItem]:
        first = self._image(codes.SOURCE_OF_MEASUREMENT, self._first.SOPInstanceUID, None, R.INFERRED_FROM)
        return self._table("Acquisition", _numeric(self.a.acquisition, codes.ACQUISITION), [first])


def _numeric(quantities: Mapping[str, Quantity], table: Mapping[str, Code]) -> dict[str, tuple[Code, float, str]]:
    """The quantities that are finite numbers with a unit that we can code; others are left out (no NaN, no text)."""
    found = {}
    for name, quantity in quantities.items():
        value = quantity.value
        if name in table and not isinstance(value, str) and math.isfinite(value) and quantity.unit in codes.UNITS:
            found[name] = (table[name], float(value), quantity.unit)
    return found


def coding_scheme() -> Dataset:
    """Identification of the private scheme (PS3.3 C.12.1, Coding Scheme Identification Sequence)."""
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName, item.CodingSchemeVersion = codes.SCHEME, codes.SCHEME_NAME, codes.SCHEME_VERSION
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item


def build_report(assessment: Assessment, source: SourceHeader, context: RenderContext, key: str, series_uid: str,
                 series: Mapping[str, Any]) -> Dataset:
    """The report, still of no class (`in_class`); `key` is its UID in all classes, `series` are the attributes of the result series."""
    root = Tree(assessment, source, context, key).root()
    report = sr_document(root, source, context, CLASSES["comprehensive-3d"], key, series_uid, series)
    report.CodingSchemeIdentificationSequence = [coding_scheme()]
    return report


def in_class(report: Dataset, sr_class: str, sop_uid: str) -> bytes:
    """A Part 10 file of the report in `sr_class` (a key of CLASSES): what the tree holds is allowed in each."""
    report.SOPClassUID, report.SOPInstanceUID = CLASSES[sr_class], sop_uid
    return part10(report)
