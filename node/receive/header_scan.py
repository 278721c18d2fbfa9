"""The header values that the index needs, from the bytes of a data set; every value is hostile until checked (pure but for reading).

Reading stops at the last wanted element, long before Pixel Data; a deflated data set is inflated up to a limit. A value that is
missing, of a wrong type or absurd is None or "".
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.receive.file_meta import DEFLATED, PROOF_CREATOR_UID

MAX_INFLATED = 16 * 2**20
"""Bytes of a deflated data set that are inflated to find the header."""
MAX_TEXT = 64
MAX_INT = 2**31 - 1
MAX_ITEMS = 16
"""Contributing Equipment items that are looked at."""
PREAMBLE, GROUP_LENGTH = 132, 12
"""Bytes of preamble with prefix, and of the element (0002,0000)."""

TAGS = {
    "sop_class_uid": 0x00080016, "sop_uid": 0x00080018, "series_date": 0x00080021, "modality": 0x00080060,
    "manufacturer": 0x00080070, "station": 0x00081010, "description": 0x0008103E, "manufacturer_model": 0x00081090,
    "body_part": 0x00180015, "device_serial": 0x00181000, "protocol": 0x00181030, "contributing_equipment": 0x0018A001,
    "study_uid": 0x0020000D, "series_uid": 0x0020000E, "series_number": 0x00200011, "acquisition_number": 0x00200012,
    "instance_number": 0x00200013, "position": 0x00200032, "orientation": 0x00200037, "images_in_acquisition": 0x00201002,
    "series_instances": 0x00201209, "number_of_frames": 0x00280008,
}
LAST = max(TAGS.values())
"""Reading stops behind this element."""
_INTEGER = re.compile(r"\s*[+-]?\d{1,10}\s*")


@dataclass(frozen=True)
class Equipment:
    """One item of Contributing Equipment (0018,A001)."""

    manufacturer: str
    device_uid: str


@dataclass(frozen=True)
class Header:
    """Header values of one instance. UIDs as they came without padding; texts of at most 64 printable characters."""

    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    sop_class_uid: str = ""
    modality: str = ""
    manufacturer: str = ""
    manufacturer_model: str = ""
    station: str = ""
    device_serial: str = ""
    protocol: str = ""
    description: str = ""
    body_part: str = ""
    series_date: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    number_of_frames: int | None = None
    images_in_acquisition: int | None = None
    acquisition_number: int | None = None
    series_instances: int | None = None
    position_mm: float | None = None
    """Along the slice normal, for even spacing."""
    contributing_equipment: tuple[Equipment, ...] = ()


@dataclass(frozen=True)
class Scanned:
    """What a file of PS3.10 says before and in its header; `offset` is where the data set begins.

    proof: the digest of the data set, hex, that a file of this node carries (`file_meta`); "" in any other.
    """

    header: Header
    transfer_syntax: str
    source_ae: str
    offset: int
    proof: str


def scan_file(path: Path) -> Scanned | None:
    """Header of a file with meta information; None where it cannot be read. OSError passes."""
    try:
        meta = read_file_meta_info(path)
        syntax = str(meta.get("TransferSyntaxUID") or "")
        offset = PREAMBLE + GROUP_LENGTH + int(meta["FileMetaInformationGroupLength"].value)
        with path.open("rb") as file:
            file.seek(offset)
            header = scan(file, syntax)
        proof = bytes(meta.get("PrivateInformation") or b"").hex() if meta.get("PrivateInformationCreatorUID") == PROOF_CREATOR_UID else ""
        return None if header is None else Scanned(header, syntax, plain_text(meta.get("SourceApplicationEntityTitle")), offset, proof)
    except Exception as error:  # whatever a hostile file raises inside the parser, it is unreadable
        _pass_on(error)
        return None


def scan(file: BinaryIO, transfer_syntax: str) -> Header | None:
    """Header of the data set that starts at the position of `file`; None where it cannot be parsed. OSError passes."""
    try:
        if transfer_syntax in DEFLATED:
            file = _inflated(file)
        ds = read_dataset(file, transfer_syntax == ImplicitVRLittleEndian, transfer_syntax != ExplicitVRBigEndian,
                          stop_when=lambda tag, vr, length: tag > LAST, specific_tags=list(TAGS.values()))
        return _header(ds)
    except Exception as error:  # as above
        _pass_on(error)
        return None


def _pass_on(error: Exception) -> None:
    """Raises an error of the disk; the parser, too, raises OSError for data that end too soon, but no system gave that one a number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _inflated(file: BinaryIO) -> BinaryIO:
    """The first MAX_INFLATED bytes of the inflated stream, read in pieces: a small bomb stays small."""
    engine, out = zlib.decompressobj(-zlib.MAX_WBITS), BytesIO()
    while out.tell() < MAX_INFLATED and not engine.eof:
        piece = engine.unconsumed_tail or file.read(65536)
        if not piece:
            break
        out.write(engine.decompress(piece, MAX_INFLATED - out.tell()))
    out.seek(0)
    return out


def _header(ds: Dataset) -> Header:
    texts = ("modality", "manufacturer", "manufacturer_model", "station", "device_serial", "protocol", "description",
             "body_part", "series_date")
    numbers = ("series_number", "instance_number", "number_of_frames", "images_in_acquisition", "acquisition_number",
               "series_instances")
    return Header(**{name: uid_text(_value(ds, name)) for name in ("study_uid", "series_uid", "sop_uid", "sop_class_uid")},
                  **{name: plain_text(_value(ds, name)) for name in texts},
                  **{name: whole_number(_value(ds, name)) for name in numbers},
                  position_mm=along_normal(_value(ds, "position"), _value(ds, "orientation")),
                  contributing_equipment=_equipment(_value(ds, "contributing_equipment")))


def _value(ds: Dataset, name: str) -> Any:
    try:
        return ds[TAGS[name]].value
    except Exception:  # absent, or a value that does not fit its VR
        return None


def uid_text(value: Any) -> str:
    """A UID as it came, without padding; "" for anything that is not one text."""
    return str(value).strip("\0 ") if isinstance(value, (str, UID)) else ""


def plain_text(value: Any) -> str:
    """The first value as at most 64 printable characters."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = value[0] if len(value) else ""
    if not isinstance(value, str):
        return ""
    return "".join(c for c in value if c.isprintable()).strip()[:MAX_TEXT]


def whole_number(value: Any) -> int | None:
    """An integer within 32 bits; None for anything else."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, str):
        value = int(value) if _INTEGER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value != int(value):
        return None
    return int(value) if abs(value) <= MAX_INT else None


def _vector(value: Any, length: int) -> list[float] | None:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != length:
        return None
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError):
        return None
    return numbers if all(math.isfinite(v) and abs(v) < 1e6 for v in numbers) else None


def along_normal(position: Any, orientation: Any) -> float | None:
    """Image Position (Patient) along the normal of Image Orientation (Patient), mm (PS3.3 C.7.6.2.1.1); None where either is unfit."""
    p, o = _vector(position, 3), _vector(orientation, 6)
    if p is None or o is None:
        return None
    a, b = o[:3], o[3:]
    normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    length = math.sqrt(sum(n * n for n in normal))
    if not 0.5 < length < 2:
        return None
    return round(sum(x * n for x, n in zip(p, normal, strict=True)) / length, 4)


def _equipment(items: Any) -> tuple[Equipment, ...]:
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes)):
        return ()
    found = []
    for item in list(items)[:MAX_ITEMS]:
        if isinstance(item, Dataset):
            values = []
            for tag in (0x00080070, 0x00181002):
                try:
                    values.append(item[tag].value)
                except Exception:  # as above
                    values.append(None)
            found.append(Equipment(plain_text(values[0]), uid_text(values[1])))
    return tuple(found)
