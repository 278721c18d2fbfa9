"""The Secondary Capture: RGB, single frame, Explicit VR Little Endian (PS3.3 A.8.1), what people see of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from node.report import codes
from node.report.common import MODEL_NAME, code_item, finish, local_parts, part10, put_series
from node.report.context import RenderContext
from node.report.identifiers import MANUFACTURER
from node.report.source_header import SourceHeader, put_identity
from qa_engine.assessment import Assessment

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.7"
UNPAIRED = frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BACK", "BLADDER", "BRAIN", "CEREBELLUM", "CERVIX", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS",
    "CIRCLEOFWILLIS", "COCCYX", "COLON", "CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM", "ESOPHAGUS", "FACE", "GALLBLADDER", "HEAD", "HEADNECK",
    "HEART", "ILEUM", "ILIUM", "JAW", "JEJUNUM", "LARYNX", "LIVER", "LSPINE", "LSSPINE", "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK", "NECKCHEST",
    "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "PANCREAS", "PELVIS", "PENIS", "PHARYNX", "PROSTATE", "RECTUM", "SCALP", "SKULL", "SPINE", "SPLEEN",
    "SSPINE", "STERNUM", "STOMACH", "THYMUS", "THYROID", "TLSPINE", "TONGUE", "TRACHEA", "TSPINE", "URETER", "URETHRA", "UTERUS", "VAGINA", "VULVA",
    "WHOLEBODY"))
"""Body parts (PS3.16 annex L) for which Laterality (0020,0060), type 2C, is not present; it is empty for any other."""
FACE_REGIONS = frozenset({"head", "neck", "whole-body"})


def render_capture(assessment: Assessment, source: SourceHeader, context: RenderContext, picture: np.ndarray, sop_uid: str, series_uid: str,
                   series: Mapping[str, Any]) -> bytes:
    """A Part 10 file of `picture` (H,W,3) uint8; `series` are the attributes of the result series."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = SOP_CLASS_UID, sop_uid, series_uid
    put_identity(ds, source)
    put_series(ds, series)
    ds.Modality, ds.InstanceNumber = "OT", context.instance_numbers.get("sc", 1)
    date, time, _ = local_parts(context)
    if series["BodyPartExamined"]:
        ds.BodyPartExamined = series["BodyPartExamined"]
    if series["BodyPartExamined"] not in UNPAIRED:
        ds.Laterality = ""
    ds.ConversionType = "WSD"
    ds.SecondaryCaptureDeviceManufacturer, ds.SecondaryCaptureDeviceManufacturerModelName = MANUFACTURER, MODEL_NAME
    ds.SecondaryCaptureDeviceSoftwareVersions = context.version
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = date, time
    ds.ImageType = ["DERIVED", "SECONDARY", "QUALITY"]
    ds.PatientOrientation = ""
    ds.BurnedInAnnotation = "YES"
    region = (assessment.region or "").split(" ")[0]
    if region and region not in FACE_REGIONS:
        ds.RecognizableVisualFeatures = "NO"
    ds.LossyImageCompression = "00"
    older = context.predecessors.get("sc", ())
    ds.DerivationDescription = ("Technical image quality of the source series, revision "
                                f"{context.revision}{', replaces ' + older[0].sop_uid if older else ''}. Not for diagnosis.")
    images = _sources(assessment, source)
    if images:  # without a reference to an image there is no reference to its series either (PS3.3 C.12.2)
        ds.SourceImageSequence, ds.ReferencedSeriesSequence = images, _referenced(source)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    data = np.ascontiguousarray(picture, dtype=np.uint8).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB"
    finish(ds, context, source.charset)
    return part10(ds)


def _sources(assessment: Assessment, source: SourceHeader) -> list[Dataset]:
    """The images that the picture shows, with their frames; the first image of the source when it shows none."""
    known = {ds.SOPInstanceUID: ds.SOPClassUID for ds in source.evidence if "Rows" in ds}
    frames: dict[str, list[int]] = {}
    for s in assessment.slices:
        frames.setdefault(s.sop_uid, []).extend([] if s.frame is None else [s.frame])
    found = []
    for uid in [uid for uid in frames if uid in known] or list(known)[:1]:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = known[uid], uid
        item.PurposeOfReferenceCodeSequence = [code_item(codes.PURPOSE_SOURCE_IMAGE)]
        if frames.get(uid):
            item.ReferencedFrameNumber = frames[uid]
        found.append(item)
    return found


def _referenced(source: SourceHeader) -> list[Dataset]:
    """Common Instance Reference (PS3.3 C.12.2): the source series, all instances."""
    by_series: dict[str, list[Dataset]] = {}
    for ds in source.evidence:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
        by_series.setdefault(ds.SeriesInstanceUID, []).append(item)
    found = []
    for uid, items in by_series.items():
        one = Dataset()
        one.SeriesInstanceUID, one.ReferencedInstanceSequence = uid, items
        found.append(one)
    return found
