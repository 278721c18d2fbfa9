"""Reading of header values that may be anything: missing, of a wrong type, absurd. Nothing here raises; a bad value is None or "".

Enhanced multi-frame objects keep values in functional groups (PS3.3 C.7.6.16): `find` looks into the frame's own, then the shared one,
then the root.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

MAX_TEXT = 256
MAX_META = 4096
MAX_INFLATED = 2 ** 30
DEFLATED = b"1.2.840.10008.1.2.1.99"
PIXELS_AT = "pixels_at"
"""Attribute of a data set that `read_header` read: where in the file it stopped, at the pixel data if there are any."""
UNREADABLE = object()
"""Stands for a value that is there but that its VR cannot hold."""


def read_header(path: Path) -> Dataset | None:
    """The data set of a file without its pixels; None when it cannot be read as DICOM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the DICOM library quotes the values that it finds odd
        try:
            with path.open("rb") as file:
                if _inflates_too_far(file):
                    return None
                file.seek(0)
                ds = pydicom.dcmread(file, stop_before_pixels=True, force=True)
                setattr(ds, PIXELS_AT, file.tell())
                return ds
        except Exception:  # whatever a parser says of a hostile file, it is not readable
            return None


def _inflates_too_far(file: BinaryIO) -> bool:
    """Whether a deflated data set (PS3.5 A.5) is larger than MAX_INFLATED: the parser would inflate all of it into memory."""
    start = file.read(MAX_META)
    if start[128:132] != b"DICM" or DEFLATED not in start:
        return False
    # preamble, prefix and the twelve bytes of the group length before what it counts (PS3.10 7.1)
    file.seek(144 + int.from_bytes(start[140:144], "little"))
    inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while block := file.read(1 << 20):
        while block and size <= MAX_INFLATED:
            size += len(inflate.decompress(block, 1 << 24))
            block = inflate.unconsumed_tail
    return size > MAX_INFLATED


@cache
def _tag(keyword: str) -> BaseTag | None:
    number = tag_for_keyword(keyword)
    return None if number is None else Tag(number)


def raw(ds: Dataset, keyword: str, unreadable: Any = None) -> Any:
    """The value of a keyword, None when absent or empty, `unreadable` when it is impossible to decode."""
    try:
        element = ds.get(_tag(keyword))  # by keyword it takes three times as long
        value = None if element is None else element.value
    except Exception:  # pydicom raises many kinds of errors on hostile elements; any of them means: no value
        return unreadable
    return None if value is None or value == "" else value


def number(value: Any) -> float | None:
    """A finite float out of a value or the first of several; None otherwise."""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite floats; None otherwise."""
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        found = [number(v) for v in value]
    except TypeError:
        return None
    return tuple(found) if len(found) == count and all(v is not None for v in found) else None  # type: ignore[arg-type]


def integer(value: Any) -> int | None:
    """An int below 2^31 in size; None otherwise."""
    found = number(value)
    return int(found) if found is not None and abs(found) < 2 ** 31 and found == int(found) else None


def text(value: Any) -> str:
    """Printable text of at most MAX_TEXT characters; several values joined by a backslash."""
    if value is None or isinstance(value, (bytes, Sequence, Dataset)):
        return ""
    if not isinstance(value, str) and isinstance(value, Iterable):
        value = "\\".join(str(v) for v in value)
    return "".join(c for c in str(value) if c.isprintable()).strip()[:MAX_TEXT]


def texts(value: Any) -> tuple[str, ...]:
    """Each value of a multi-valued text, upper case."""
    return tuple(part.strip().upper() for part in text(value).split("\\") if part.strip())


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; [] when it is none."""
    value = raw(ds, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def groups(ds: Dataset, frame: int | None) -> Iterator[Dataset]:
    """The data sets in which a value of a frame (0-based) may stand: its own functional groups, the shared ones, the root."""
    if frame is not None:
        own = items(ds, "PerFrameFunctionalGroupsSequence")
        if frame < len(own):
            yield own[frame]
        yield from items(ds, "SharedFunctionalGroupsSequence")[:1]
    yield ds


def find(ds: Dataset, keyword: str, *sequences: str, frame: int | None = None, unreadable: Any = None) -> Any:
    """The value of `keyword` at the root, or in the functional groups under one of `sequences` (the frame's own first)."""
    for group in groups(ds, frame):
        if group is ds:
            value = raw(ds, keyword, unreadable)
            if value is not None:
                return value
        for sequence in sequences:
            for item in items(group, sequence)[:1]:
                value = raw(item, keyword, unreadable)
                if value is not None:
                    return value
    return None
