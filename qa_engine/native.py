"""Pixel data that nothing has encoded, read without a decoder: a run of numbers in the file, once the header is consistent.

Only what is beyond doubt is read here (little endian, one sample, the described length); all else, and every error, is the decoder's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from qa_engine.decode import DecodeError, pixel_description
from qa_engine.header import PIXELS_AT, raw

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
PIXEL_DATA = b"\xe0\x7f\x10\x00"
GREY = ("MONOCHROME1", "MONOCHROME2")


def native_frames(path: Path, ds: Dataset, max_pixels: int) -> np.ndarray | None:
    """Stored values (F,H,W) of a file whose header is `ds`; bits above Bits Stored are as they are. None: the decoder shall say."""
    place, syntax = getattr(ds, PIXELS_AT, None), raw(getattr(ds, "file_meta", None) or Dataset(), "TransferSyntaxUID")
    signed = raw(ds, "PixelRepresentation")
    if place is None or syntax not in (IMPLICIT, EXPLICIT) or raw(ds, "PhotometricInterpretation") not in GREY or signed not in (0, 1):
        return None
    try:
        rows, columns, frames, samples = pixel_description(ds, max_pixels, whole=True)
    except DecodeError:
        return None
    bits = raw(ds, "BitsAllocated")
    if samples != 1 or bits not in (8, 16, 32):
        return None
    size = rows * columns * frames * bits // 8
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(place)
            there = _length(file.read(12), syntax == IMPLICIT)
            if there is None or not size <= there < size + max(size // (rows * frames), 2):
                return None
            file.seek(place + (8 if syntax == IMPLICIT else 12))
            values = np.empty((frames, rows, columns), f"<{'i' if signed else 'u'}{bits // 8}")
            return values if _filled(file, memoryview(values).cast("B")) else None
    except (OSError, MemoryError):
        return None


def _length(start: bytes, implicit: bool) -> int | None:
    """Value length in the first 12 bytes of the element Pixel Data (PS3.5 7.1); None when they are something else."""
    if len(start) < 12 or start[:4] != PIXEL_DATA or not (implicit or start[4:6] in (b"OB", b"OW")):
        return None
    return int.from_bytes(start[4:8] if implicit else start[8:12], "little")


def _filled(file: object, buffer: memoryview) -> bool:
    """Whether the file had as many bytes as the buffer takes."""
    at = 0
    while at < len(buffer):
        count = file.readinto(buffer[at:])  # type: ignore[attr-defined]
        if not count:
            return False
        at += count
    return True
