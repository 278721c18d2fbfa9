"""What a second version of a SOP instance is: the table of DESIGN section 5, by comparing data sets and decoded pixels.

Everything read here is hostile. Pixels are decoded by the decoder handed in (a process of its own); what cannot be decoded is compared
as it stands, and what then differs is a conflict: both are kept, the first stays current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag


class Arrival(StrEnum):
    """How a version is called from then on (`instance.arrival`)."""

    TRANSCODED = "transcoded"
    UPDATE = "update"
    CONFLICT = "conflict"


PIXEL_TAGS = frozenset(Tag(t) for t in (0x7FE00008, 0x7FE00009, 0x7FE00010, 0x7FE00001, 0x7FE00002))
"""Pixel Data in its forms and the extended offset table."""

CODING_TAGS = frozenset(Tag(t) for t in (0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114, 0x00080005, 0xFFFCFFFC))
"""What a change of transfer syntax may touch beside the pixels: photometric interpretation, plane order, lossy marks, padding."""

NOT_READ_GROUPS = frozenset({0x0010, 0x0032, 0x0038})
"""Patient, requested procedure, visit."""
READ_ANYWAY = frozenset({Tag(0x00102210), Tag(0x00321060)})
"""Anatomical orientation type; Requested Procedure Description, a word about the body part."""
NOT_READ_TAGS = frozenset(Tag(t) for t in (
    0x00080005, 0x00080012, 0x00080013, 0x00080014, 0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080080, 0x00080081, 0x00080082,
    0x00080090, 0x00080092, 0x00080094, 0x00080096, 0x0008009C, 0x0008009D, 0x00080201, 0x00081040, 0x00081048, 0x00081049, 0x00081050,
    0x00081052, 0x00081060, 0x00081062, 0x00081070, 0x00081072, 0x00081110, 0x00081111, 0x00081120, 0x0018A001, 0x00200010,
    0x00400244, 0x00400245, 0x00400250, 0x00400251, 0x00400253, 0x00400254, 0x00400260, 0x00400275, 0x00400280,
    0x04000561, 0xFFFCFFFC))
"""Who, where and under which order: identity, dates of the study, institution, physicians, request and procedure step identifiers."""


Pixels = Callable[[Path], Any]
"""Decodes a file to an object with `pixels` (numpy array), or raises."""


def classify(first: Path, second: Path, pixels: Pixels) -> Arrival:
    """What `second` is beside `first`, two versions of one SOP Instance UID. Never raises for what the files hold."""
    try:
        one, two = pydicom.dcmread(first, force=True), pydicom.dcmread(second, force=True)
        if any(str(one.get(k, "")) != str(two.get(k, "")) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID")):
            return Arrival.CONFLICT
        other_syntax = _syntax(one) != _syntax(two)
        if not same_pixels(one, two, first, second, pixels):
            return Arrival.CONFLICT
        changed = changed_tags(one, two)
        if other_syntax and not changed - CODING_TAGS:
            return Arrival.TRANSCODED
        return Arrival.UPDATE
    except Exception:  # pydicom raises many kinds of errors on hostile files, of no common class
        return Arrival.CONFLICT


def same_pixels(one: Dataset, two: Dataset, first: Path, second: Path, pixels: Pixels) -> bool:
    """Whether two versions show the same: equal encoded bytes in one transfer syntax, else equal arrays after decoding."""
    in_one, in_two = (sorted(t for t in PIXEL_TAGS if t in ds) for ds in (one, two))
    if not in_one and not in_two:
        return True
    if _syntax(one) == _syntax(two) and in_one == in_two and all(_raw(one, t) == _raw(two, t) for t in in_one):
        return all(one.get(k) == two.get(k) for k in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"))
    try:
        a, b = np.asarray(pixels(first)), np.asarray(pixels(second))
    except Exception:  # whatever the decoder says about hostile pixel data, it is no proof of sameness
        return False
    return a.shape == b.shape and bool(np.array_equal(a, b))


def changed_tags(one: Dataset, two: Dataset) -> frozenset[BaseTag]:
    """Top-level elements that differ, pixels and file meta information aside."""
    tags = {*one.keys(), *two.keys()} - PIXEL_TAGS
    return frozenset(t for t in tags if t.element != 0 and _value(one, t) != _value(two, t))


def identity_only(first: Path, second: Path) -> bool:
    """Whether an update changes nothing that the engine reads: results are then rendered anew without scoring."""
    try:
        one, two = (pydicom.dcmread(p, force=True, stop_before_pixels=True) for p in (first, second))
        changed = changed_tags(one, two)
    except Exception:  # pydicom raises many kinds of errors on hostile files, of no common class
        return False
    return not any(_is_read(tag) for tag in changed)


def _is_read(tag: BaseTag) -> bool:
    """Whether the engine may read an element; private ones may be anything, so they count as read."""
    if tag in READ_ANYWAY:
        return True
    return tag.group not in NOT_READ_GROUPS and tag not in NOT_READ_TAGS


def _syntax(ds: Dataset) -> str:
    return str(getattr(ds, "file_meta", {}).get("TransferSyntaxUID", ""))


def _raw(ds: Dataset, tag: BaseTag) -> bytes:
    return bytes(ds[tag].value or b"")


def _value(ds: Dataset, tag: BaseTag) -> Any:
    """Value of an element for comparison, the same whatever VR encoding it came in."""
    if tag not in ds:
        return None
    try:
        return _comparable(ds[tag])
    except Exception:  # an element that cannot be parsed is compared by its bytes
        raw = ds.get_item(tag)
        return hashlib.sha256(raw.value or b"").hexdigest() if isinstance(raw, RawDataElement) else repr(raw)


def _comparable(element: Any) -> Any:
    if element.VR == "SQ":
        return [{t: _value(item, t) for t in tuple(item.keys())} for item in element.value]
    value = element.value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [str(v) for v in value]
    return "" if value is None else str(value)
