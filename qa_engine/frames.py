"""Frames of classic and enhanced objects as one thing: where it lies, how its stored values become physical ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from qa_engine.geometry import ABSURD_MM, slice_normal, unit_orientation
from qa_engine.header import UNREADABLE, find, integer, items, number, numbers, raw, text

MAX_FRAMES = 20_000
AIR_HU = -1024.0
PADDING_HU = -900.0
"""CT pads with air or less; a Pixel Padding Value that means tissue is a mistake of the header."""
SAME_DIRECTION = 0.01
SAME_SPACING = 0.002
"""Largest difference of direction cosines and relative difference of pixel sizes within one stack."""


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
    rescale_unusable: bool
    """There is a Rescale Slope or Intercept, but it is zero, absurd or no number."""
    padding: tuple[float, float] | None
    inverted: bool
    bits_stored: int
    signed: bool

    def fits(self, other: Frame) -> bool:
        """Whether the two can lie in one stack: same matrix, orientation and pixel size."""
        return (self.rows, self.columns) == (other.rows, other.columns) and _near(self.orientation, other.orientation, SAME_DIRECTION) \
            and _near(self.spacing_mm, other.spacing_mm, SAME_SPACING * min(self.spacing_mm or (1.0,)))

    @property
    def located(self) -> bool:
        """Whether position and orientation are known."""
        return self.position is not None and self.orientation is not None

    def place(self) -> float:
        """Position along the slice normal, mm; only for frames with position and orientation."""
        assert self.position is not None and self.orientation is not None
        return float(slice_normal(self.orientation) @ np.array(self.position))


def _near(a: tuple[float, ...] | None, b: tuple[float, ...] | None, tolerance: float) -> bool:
    return a is b or (a is not None and b is not None and all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True)))


def frames_of(path: Path, ds: Dataset) -> Iterator[Frame]:
    """The frames of one object."""
    count = min(max(integer(raw(ds, "NumberOfFrames")) or 1, 1), MAX_FRAMES)
    own = len(items(ds, "PerFrameFunctionalGroupsSequence"))
    shared: Frame | None = None
    for index in range(count):
        if index < own or shared is None:
            frame = _frame(path, ds, index, count > 1 or own > 0)
            shared = None if index < own else frame
        else:  # frames without functional groups of their own differ in nothing but their number
            frame = replace(shared, index=index, frame=index + 1)
        yield frame


def _spacing(value: object) -> tuple[float, float] | None:
    found = numbers(value, 2)
    return (found[0], found[1]) if found is not None and all(0.01 <= v <= 100.0 for v in found) else None


def _frame(path: Path, ds: Dataset, index: int, multi: bool) -> Frame:
    where = index if multi else None
    position = numbers(find(ds, "ImagePositionPatient", "PlanePositionSequence", frame=where), 3)
    if position is not None and max(abs(v) for v in position) > ABSURD_MM:
        position = None
    thickness = number(find(ds, "SliceThickness", "PixelMeasuresSequence", frame=where))
    slope, intercept, unusable = _rescale(ds, where)
    return Frame(path, index, index + 1 if multi else None, text(raw(ds, "SOPClassUID")), text(raw(ds, "SOPInstanceUID")),
                 integer(raw(ds, "InstanceNumber")), integer(raw(ds, "Rows")) or 0, integer(raw(ds, "Columns")) or 0, position,
                 unit_orientation(numbers(find(ds, "ImageOrientationPatient", "PlaneOrientationSequence", frame=where), 6)),
                 _spacing(find(ds, "PixelSpacing", "PixelMeasuresSequence", frame=where)),
                 thickness if thickness is not None and 0 < thickness < 500 else None, slope, intercept, unusable, _padding(ds),
                 text(raw(ds, "PhotometricInterpretation")).upper() == "MONOCHROME1", integer(raw(ds, "BitsStored")) or 16,
                 bool(integer(raw(ds, "PixelRepresentation")) or 0))


def _rescale(ds: Dataset, frame: int | None) -> tuple[float, float, bool]:
    """Slope, intercept and whether one that is there cannot be used; absent ones are 1 and 0 (PS3.3 C.11.1)."""
    slope, intercept = (find(ds, keyword, "PixelValueTransformationSequence", frame=frame, unreadable=UNREADABLE)
                        for keyword in ("RescaleSlope", "RescaleIntercept"))
    by, plus = (absent if value is None else None if isinstance(value, MultiValue) else number(value)
                for value, absent in ((slope, 1.0), (intercept, 0.0)))
    usable = by is not None and plus is not None and by != 0.0 and abs(by) <= 1e6 and abs(plus) <= 1e9
    return (by, plus, False) if usable else (1.0, 0.0, True)  # type: ignore[return-value]


def _padding(ds: Dataset) -> tuple[float, float] | None:
    """Range of stored values that mean no data; values whose sign disagrees with Pixel Representation are taken as the bits that they are."""
    ends = [number(raw(ds, keyword)) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    known = [v for v in ends if v is not None]
    if ends[0] is None:
        return None
    signed, span = bool(integer(raw(ds, "PixelRepresentation")) or 0), float(1 << min(32, max(8, integer(raw(ds, "BitsAllocated")) or 16)))
    known = [v - span if signed and v >= span / 2 else v + span if not signed and v < 0 else v for v in known]
    return min(known), max(known)


def physical_frame(stored: np.ndarray, frame: Frame, modality: str, out: np.ndarray) -> np.ndarray | None:
    """Stored values (H,W) -> physical values into `out` float32, and a mask that is False on padding; None where there is no padding.

    CT: HU, padding and what is below -1024 HU become -1024 (air). MR: signal, padding becomes the darkest.
    """
    values, whole = stored, stored.dtype.kind in "ui"
    if whole and frame.bits_stored < values.dtype.itemsize * 8:
        values = _used_bits(values, frame.bits_stored, frame.signed)
    inside = None
    if frame.padding is not None and not (modality == "CT" and frame.padding[0] * frame.slope + frame.intercept > PADDING_HU):
        low, high = (math.ceil(frame.padding[0]), math.floor(frame.padding[1])) if whole else frame.padding
        inside = ~((values >= low) & (values <= high))
    np.multiply(values, np.float32(frame.slope), out=out, dtype=np.float32, casting="unsafe")
    np.add(out, np.float32(frame.intercept), out=out)
    if not whole and not (finite := np.isfinite(out)).all():
        inside = finite if inside is None else inside & finite
        np.nan_to_num(out, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    darkest = out.min()
    if modality == "CT":
        if darkest <= AIR_HU - 1000:
            inside = (out > AIR_HU - 1000) if inside is None else inside & (out > AIR_HU - 1000)
        np.maximum(out, np.float32(AIR_HU), out=out)
        darkest = np.float32(AIR_HU)
    if inside is None or inside.all():
        return None
    out[~inside] = darkest
    return inside


def _used_bits(values: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Values of the lowest `bits` bits; overlays and rubbish above them are cut off."""
    size = values.dtype.itemsize
    if not signed:
        return values & values.dtype.type((1 << bits) - 1)
    return (values.astype(f"u{size}") << (8 * size - bits)).view(f"i{size}") >> (8 * size - bits)
