"""Frames of classic and enhanced objects as one thing: where it lies, how its stored values become physical ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from qa_engine.geometry import ABSURD_MM, ORIENTATION_DECIMALS, slice_normal, unit_orientation
from qa_engine.header import find, integer, items, number, numbers, raw, text

MAX_FRAMES = 20_000
AIR_HU = -1024.0


@dataclass(frozen=True)
class Frame:
    """One image. index: 0-based in its file; frame: 1-based, None for single-frame objects; lengths in mm."""

    file: Path
    index: int
    frame: int | None
    sop_class_uid: str
    sop_uid: str
    instance_number: int | None
    rows: int
    columns: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, float] | None
    thickness_mm: float | None
    slope: float
    intercept: float
    rescale_note: str
    padding: tuple[float, float] | None
    inverted: bool
    bits_stored: int
    signed: bool

    def geometry_key(self) -> tuple[object, ...]:
        """Frames that can form a stack have the same."""
        turned = None if self.orientation is None else tuple(round(v, ORIENTATION_DECIMALS) + 0.0 for v in self.orientation)
        spacing = None if self.spacing_mm is None else tuple(round(v, 3) for v in self.spacing_mm)
        return self.rows, self.columns, turned, spacing

    def place(self) -> float:
        """Position along the slice normal, mm; only for frames with position and orientation."""
        assert self.position is not None and self.orientation is not None
        return float(slice_normal(self.orientation) @ np.array(self.position))


def frames_of(path: Path, ds: Dataset) -> Iterator[Frame]:
    """The frames of one object."""
    count = integer(raw(ds, "NumberOfFrames")) or 1
    multi = count > 1 or bool(items(ds, "PerFrameFunctionalGroupsSequence"))
    for index in range(min(max(count, 1), MAX_FRAMES)):
        yield _frame(path, ds, index, multi)


def _spacing(value: object) -> tuple[float, float] | None:
    found = numbers(value, 2)
    return (found[0], found[1]) if found is not None and all(0.01 <= v <= 100.0 for v in found) else None


def _frame(path: Path, ds: Dataset, index: int, multi: bool) -> Frame:
    where = index if multi else None
    position = numbers(find(ds, "ImagePositionPatient", "PlanePositionSequence", frame=where), 3)
    if position is not None and max(abs(v) for v in position) > ABSURD_MM:
        position = None
    thickness = number(find(ds, "SliceThickness", "PixelMeasuresSequence", frame=where))
    slope = number(find(ds, "RescaleSlope", "PixelValueTransformationSequence", frame=where))
    intercept = number(find(ds, "RescaleIntercept", "PixelValueTransformationSequence", frame=where))
    note = ""
    if slope is None or slope == 0.0 or abs(slope) > 1e6:
        note = "" if raw(ds, "RescaleSlope") is None else "Rescale Slope is zero or no number; 1 was used."
        slope = 1.0
    if intercept is None or abs(intercept) > 1e9:
        intercept = 0.0
    padding = number(raw(ds, "PixelPaddingValue"))
    limit = number(raw(ds, "PixelPaddingRangeLimit"))
    span = None if padding is None else (min(padding, limit if limit is not None else padding),
                                         max(padding, limit if limit is not None else padding))
    return Frame(path, index, index + 1 if multi else None, text(raw(ds, "SOPClassUID")), text(raw(ds, "SOPInstanceUID")),
                 integer(raw(ds, "InstanceNumber")), integer(raw(ds, "Rows")) or 0, integer(raw(ds, "Columns")) or 0, position,
                 unit_orientation(numbers(find(ds, "ImageOrientationPatient", "PlaneOrientationSequence", frame=where), 6)),
                 _spacing(find(ds, "PixelSpacing", "PixelMeasuresSequence", frame=where)),
                 thickness if thickness is not None and 0 < thickness < 500 else None, slope, intercept, note, span,
                 text(raw(ds, "PhotometricInterpretation")).upper() == "MONOCHROME1", integer(raw(ds, "BitsStored")) or 16,
                 bool(integer(raw(ds, "PixelRepresentation")) or 0))


def physical_frame(stored: np.ndarray, frame: Frame, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Stored values (H,W) -> physical values float32 and a mask that is False on padding.

    CT: HU, padding and what is below -1024 HU become -1024 (air). MR: signal, inverted back where the object is MONOCHROME1.
    """
    values = stored
    if values.dtype.kind in "ui" and frame.bits_stored < values.dtype.itemsize * 8:
        values = _used_bits(values, frame.bits_stored, frame.signed)
    inside = np.ones(values.shape, bool)
    if frame.padding is not None:
        inside = ~((values >= frame.padding[0]) & (values <= frame.padding[1]))
    physical = values.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
    if not np.isfinite(physical).all():
        inside &= np.isfinite(physical)
        physical = np.nan_to_num(physical, nan=0.0, posinf=0.0, neginf=0.0)
    if modality == "CT":
        inside &= physical > AIR_HU - 1000
        return np.where(inside, np.maximum(physical, AIR_HU), AIR_HU).astype(np.float32), inside
    if frame.inverted:
        physical = physical.max() - physical
    return np.where(inside, physical, physical.min()).astype(np.float32), inside


def _used_bits(values: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Values of the lowest `bits` bits; overlays and rubbish above them are cut off."""
    kept = values.astype(np.int64) & ((1 << bits) - 1)
    return np.where(kept >= 1 << (bits - 1), kept - (1 << bits), kept) if signed else kept
