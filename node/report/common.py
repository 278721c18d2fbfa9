"""What every object of ours shares: general modules, our mark in Contributing Equipment, and bytes that never differ."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from node.receive.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.report import codes
from node.report.context import RenderContext
from node.report.identifiers import MANUFACTURER, device_uid

MODEL_NAME = "MedIQA Node"


def code_item(code: Code) -> Dataset:
    """A code sequence item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    if code.scheme_version:
        item.CodingSchemeVersion = code.scheme_version
    return item


def local_parts(context: RenderContext) -> tuple[str, str, str]:
    """Date, time and offset from UTC of the making, in local time (DICOM wants it so; the offset says which)."""
    local = context.made_at.astimezone()
    return local.strftime("%Y%m%d"), local.strftime("%H%M%S"), local.strftime("%z")


def contributing_equipment(context: RenderContext) -> Dataset:
    """Our mark (PS3.3 C.12.1): the loop guard reads it."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer, item.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    item.StationName = context.node_name[:16]
    item.DeviceSerialNumber = context.node_id[:64]
    item.SoftwareVersions = context.version
    item.DeviceUID = device_uid(context.node_id)
    date, time, _ = local_parts(context)
    item.ContributionDateTime = date + time
    item.ContributionDescription = "Technical image quality. Not for diagnosis."
    return item


def put_series(ds: Dataset, series: Mapping[str, Any]) -> None:
    """Attributes of a result series, as its first instance got them."""
    ds.SeriesDate, ds.SeriesTime = series["SeriesDate"], series["SeriesTime"]
    ds.SeriesNumber, ds.SeriesDescription = series["SeriesNumber"], series["SeriesDescription"]


def finish(ds: Dataset, context: RenderContext, charset: str | list[str] | None) -> None:
    """The attributes that would otherwise carry the moment or another program's name."""
    date, time, offset = local_parts(context)
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time
    ds.ContentDate, ds.ContentTime = date, time
    ds.TimezoneOffsetFromUTC = offset
    ds.ContributingEquipmentSequence = [contributing_equipment(context)]
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    ds.DeviceSerialNumber, ds.SoftwareVersions = context.node_id[:64], context.version
    if charset is None:
        if "SpecificCharacterSet" in ds:
            del ds.SpecificCharacterSet
    else:
        ds.SpecificCharacterSet = charset


def part10(ds: Dataset) -> bytes:
    """The data set as a file in Explicit VR Little Endian, our file meta information (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
    plain = Dataset()
    plain.update(ds)
    plain.file_meta = meta
    plain.preamble = b"\0" * 128
    out = BytesIO()
    plain.save_as(out, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return out.getvalue()
