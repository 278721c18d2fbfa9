"""Reading of header values that may be anything: missing, of a wrong type, absurd. Nothing here raises; a bad value is None or "".

Enhanced multi-frame objects keep values in functional groups (PS3.3 C.7.6.16): `find` looks into the frame's own, then the shared one,
then the root.
"""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import _read_file_meta_info, read_dataset, read_preamble
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

MAX_TEXT = 256
MAX_META = 4096
MAX_HEADER, MAX_READS = 2 ** 28, 2 ** 23
"""Bytes of a header, and reads of a parser: two or three for each element, so that what it makes of them stays below a GiB or so."""
MAX_INFLATED = 2 ** 26
"""Bytes of a deflated data set in which the header must end."""
SURELY_SMALL = 2 ** 22
"""Bytes of a file that holds no such header anyway."""
DEFLATED = b"1.2.840.10008.1.2.1.99"
PIXELS_AT = "pixels_at"
"""Attribute of a data set that `read_header` read: where in the file it stopped, at the pixel data if there are any."""
UNREADABLE = object()
"""Stands for a value that is there but that its VR cannot hold."""


class HeaderTooLarge(ValueError):
    """More bytes or more elements than a header has."""


class _Bounded:
    """A file whose reader may ask for so many bytes and so often, and no more: a hostile header must not fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._bytes, self._reads = file, MAX_HEADER, MAX_READS
        self.seek, self.tell, self.close, self.name = file.seek, file.tell, file.close, getattr(file, "name", None)

    def read(self, size: int = -1) -> bytes:
        self._reads -= 1
        if not 0 <= size <= self._bytes or self._reads < 0:
            raise HeaderTooLarge
        self._bytes -= size
        return self._file.read(size)


def read_header(path: Path) -> Dataset | None:
    """The data set of a file without its pixels; None when it cannot be read as DICOM, or is larger than a header may be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the DICOM library quotes the values that it finds odd
        try:
            with path.open("rb") as file:
                deflated = _inflated(file)
                file.seek(0)
                if deflated is not None:
                    return _of_deflated(path, file, deflated)
                large = os.fstat(file.fileno()).st_size > SURELY_SMALL
                ds = pydicom.dcmread(_Bounded(file) if large else file, stop_before_pixels=True, force=True)  # type: ignore[arg-type]
                ds.buffer = None  # else the data set would keep the file open
                setattr(ds, PIXELS_AT, file.tell())
                return ds
        except Exception:  # whatever a parser says of a hostile file, it is not readable
            return None


def _inflated(file: BinaryIO) -> BytesIO | None:
    """The beginning of a deflated data set (PS3.5 A.5), at most MAX_INFLATED bytes; None where the file is not deflated."""
    start = file.read(MAX_META)
    if start[128:132] != b"DICM" or DEFLATED not in start:
        return None
    # preamble, prefix and the twelve bytes of the group length before what it counts (PS3.10 7.1)
    file.seek(144 + int.from_bytes(start[140:144], "little"))
    inflate, out = zlib.decompressobj(-zlib.MAX_WBITS), BytesIO()
    while out.tell() < MAX_INFLATED and not inflate.eof:
        block = inflate.unconsumed_tail or file.read(1 << 20)
        if not block:
            break
        out.write(inflate.decompress(block, MAX_INFLATED - out.tell()))
    out.seek(0)
    return out


def _of_deflated(path: Path, file: BinaryIO, inflated: BytesIO) -> Dataset:
    """As the parser would read it, had it not to inflate the pixels as well."""
    preamble, meta = read_preamble(file, False), _read_file_meta_info(file)
    ds = read_dataset(_Bounded(inflated), False, True, stop_when=_is_pixel_data)  # type: ignore[arg-type]
    if inflated.tell() >= MAX_INFLATED:
        raise HeaderTooLarge  # what comes behind may belong to it
    return FileDataset(path, ds, preamble, meta, False, True)


def _is_pixel_data(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in (0x7FE00008, 0x7FE00009, 0x7FE00010)


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
