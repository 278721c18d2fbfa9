"""Small CT and MR series on disk, one change at a time; nothing of a patient."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from tests.support.small_objects import CT, image, write

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
Change = Callable[[int, Dataset], object]


def axial(count: int, change: Change | None = None, *, sop_class: str = CT, step: float = 5.0, rows: int = 64, **more: object) -> list[Dataset]:
    """`count` axial slices of one series, InstanceNumber 1 to `count`; `change(k, ds)` may alter slice k (0-based)."""
    study, series = generate_uid(), generate_uid()
    found = []
    for k in range(count):
        ds = image(sop_class, study=study, series=series, number=k + 1, rows=rows, Modality="CT" if "1.1.2" in sop_class else "MR", **more)
        ds.ImagePositionPatient = [0, 0, step * k]
        if change is not None:
            change(k, ds)
        found.append(ds)
    return found


def write_all(objects: list[Dataset], folder: Path) -> list[Path]:
    return [write(ds, folder / f"{k:04}.dcm") for k, ds in enumerate(objects)]


def item(**values: object) -> Dataset:
    """An item of a sequence."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, Sequence(value) if isinstance(value, list) and value and isinstance(value[0], Dataset) else value)
    return ds


def enhanced(sop_class: str, frames: int, shared: Dataset, own: Callable[[int], Dataset], *, rows: int = 64, **more: object) -> Dataset:
    """An enhanced multi-frame object with shared and per-frame functional groups, and nothing of theirs at the root."""
    ds = image(sop_class, rows=rows, Modality="CT" if "1.1.2" in sop_class else "MR")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, keyword)
    ds.NumberOfFrames = frames
    ds.PixelData = np.random.default_rng(0).integers(0, 2000, (frames, rows, rows), np.uint16).tobytes()
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence([own(k) for k in range(frames)])
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def file_with_raw(ds: Dataset, keyword: str, vr: str, value: bytes) -> bytes:
    """The file of `ds` in which an element stands with any VR and any bytes: what no library would write."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    value += b" " * (len(value) % 2)
    long = vr in ("OB", "OW", "OF", "OD", "SQ", "UN", "UT", "UC", "UR")
    length = struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))
    before, after = Dataset({e.tag: e for e in ds if e.tag < tag}), Dataset({e.tag: e for e in ds if e.tag > tag})
    for part in (before, after):
        if "PixelData" in part:
            part["PixelData"].VR = "OW"
    meta = io.BytesIO()
    head = Dataset()
    head.file_meta, head.SOPClassUID, head.SOPInstanceUID = ds.file_meta, ds.SOPClassUID, ds.SOPInstanceUID
    head.save_as(meta, enforce_file_format=True)
    group_length = struct.unpack("<I", meta.getvalue()[140:144])[0]
    return b"".join([meta.getvalue()[:144 + group_length], _bytes(before), struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode()), length, value,
                     _bytes(after)])


def _bytes(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def with_raw(ds: Dataset, keyword: str, vr: str, value: bytes) -> Dataset:
    """`file_with_raw` as it is read."""
    return pydicom.dcmread(io.BytesIO(file_with_raw(ds, keyword, vr, value)), force=True)
