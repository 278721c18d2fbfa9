"""Objects that are made to kill or to fill whoever reads them: small files, each valid enough to be received. Of nobody."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
from pydicom.encaps import encapsulate

from tests.support.receiver import encoded
from tests.support.small_objects import CT, image
from tests.support.sweep import RawObject

EXPLICIT, DEFLATED, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.80"
LEVELS = 10_000
UNDEFINED = 2 ** 32 - 1


def poison(name: str, seed: int) -> RawObject:
    """One of NAMES, as a CT image of a series of its own."""
    return NAMES[name](seed)


def _object(seed: int, change=lambda data: data, syntax: str = EXPLICIT, **more: object) -> RawObject:
    ds = image(CT, seed=seed, **more)
    return RawObject(CT, str(ds.SOPInstanceUID), syntax, change(encoded(ds, EXPLICIT)))


def _before_pixels(data: bytes, more: bytes) -> bytes:
    at = data.index(b"\xe0\x7f\x10\x00OW")
    return data[:at] + more + data[at:]


def _element(group: int, element: int, vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2s2xL", group, element, vr, length)


def _deep(seed: int) -> RawObject:
    """Sequences in sequences, none of which says where it ends."""
    level = _element(0x0040, 0x0275, b"SQ", UNDEFINED) + struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
    return _object(seed, lambda data: _before_pixels(data, level * LEVELS))


def _deep_with_lengths(seed: int) -> RawObject:
    """Sequences in sequences of known length."""
    deep = b""
    for _ in range(LEVELS):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(deep)) + deep
        deep = _element(0x0040, 0x0275, b"SQ", len(item)) + item
    return _object(seed, lambda data: _before_pixels(data, deep))


def _wide(seed: int) -> RawObject:
    """Half a million empty private elements."""
    wide = b"".join(struct.pack("<HH2sH", group, k, b"LO", 0) for group in range(0x0029, 0x0029 + 16, 2) for k in range(0x1000, 0xFFFF))
    return _object(seed, lambda data: _before_pixels(data, wide))


def _huge_text(seed: int) -> RawObject:
    """A text of 32 MB."""
    return _object(seed, lambda data: _before_pixels(data, _element(0x0040, 0xA160, b"UT", 2 ** 25) + b"x" * 2 ** 25))


def _four_gigabytes(seed: int) -> RawObject:
    """A text that claims 4 GiB."""
    return _object(seed, lambda data: _before_pixels(data, _element(0x0040, 0xA160, b"UT", 2 ** 32 - 2)))


def _pixels_of_four_gigabytes(seed: int) -> RawObject:
    """Pixel Data that claims 4 GiB."""
    def change(data: bytes) -> bytes:
        at = data.index(b"\xe0\x7f\x10\x00OW")
        return data[:at + 8] + struct.pack("<L", 2 ** 32 - 2) + data[at + 12:]
    return _object(seed, change)


def _deflate_bomb(seed: int) -> RawObject:
    """A text of 600 MB in 600 kB."""
    def change(data: bytes) -> bytes:
        squeeze, out = zlib.compressobj(wbits=-15), []
        at = data.index(b"\xe0\x7f\x10\x00OW")
        out.append(squeeze.compress(data[:at] + _element(0x0040, 0xA160, b"UT", 600 * 10 ** 6)))
        out += [squeeze.compress(b"x" * 10 ** 6) for _ in range(600)]
        return b"".join([*out, squeeze.compress(data[at:]), squeeze.flush()])
    return _object(seed, change, DEFLATED)


def _deflated_pixels(seed: int) -> RawObject:
    """Pixels of 400 MB in 400 kB."""
    def change(data: bytes) -> bytes:
        squeeze, out = zlib.compressobj(wbits=-15), []
        at = data.index(b"\xe0\x7f\x10\x00OW")
        out.append(squeeze.compress(data[:at] + _element(0x7FE0, 0x0010, b"OW", 400 * 10 ** 6)))
        out += [squeeze.compress(bytes(10 ** 6)) for _ in range(400)]
        return b"".join([*out, squeeze.flush()])
    return _object(seed, change, DEFLATED, Rows=10_000, Columns=20_000)


def _jpeg_ls(seed: int, rows: int, told: int) -> RawObject:
    ds = image(CT, seed=seed)
    ds.Rows = ds.Columns = told
    code = imagecodecs.jpegls_encode(np.zeros((rows, rows), np.uint16))
    ds.PixelData = encapsulate([code])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return RawObject(CT, str(ds.SOPInstanceUID), JPEG_LS, encoded(ds, EXPLICIT))


NAMES = {
    "deep": _deep, "deep-with-lengths": _deep_with_lengths, "wide": _wide, "huge-text": _huge_text, "four-gigabytes": _four_gigabytes,
    "pixels-of-four-gigabytes": _pixels_of_four_gigabytes, "deflate-bomb": _deflate_bomb, "deflated-pixels": _deflated_pixels,
    "frame-told": lambda seed: _jpeg_ls(seed, 12_000, 12_000), "frame-not-told": lambda seed: _jpeg_ls(seed, 12_000, 64)}
