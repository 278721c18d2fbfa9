"""Sends any file once, as raw as it goes: the bytes of its data set as they lie there, under the UIDs that it names itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import CTImageStorage

from tests.support.receiver import association, raw_store

NAMES = ["SOPClassUID", "SOPInstanceUID"]

@dataclass(frozen=True)
class RawObject:
    """What goes over the line: the UIDs of the request, the transfer syntax, the bytes of the data set."""

    sop_class: str
    sop_uid: str
    syntax: str
    data: bytes


def raw_object(file: Path) -> RawObject:
    """UIDs of the data set as DCMTK takes them, else of the file meta information, else (no DICOM at all) those of a CT image."""
    content, offset = file.read_bytes(), 0
    meta, ds = pydicom.Dataset(), pydicom.Dataset()
    with file.open("rb") as f:
        try:
            pydicom.filereader.read_preamble(f, force=True)
            meta = pydicom.filereader._read_file_meta_info(f)  # also where its group length is wrong
            offset = f.tell() if meta else 0
        except Exception:  # whatever a parser says, there is no usable meta information
            pass
    try:
        ds = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=NAMES)
    except Exception:  # as above
        pass
    invented = "2.25." + str(int(hashlib.sha256(file.name.encode()).hexdigest()[:30], 16))
    sop_class, sop_uid = (_text(ds, name) or _text(meta, f"MediaStorage{name}") for name in NAMES)
    as_found = {(False, True): ExplicitVRLittleEndian, (False, False): ExplicitVRBigEndian}
    syntax = _text(meta, "TransferSyntaxUID") or as_found.get(getattr(ds, "original_encoding", (True, True)), ImplicitVRLittleEndian)
    return RawObject(sop_class or CTImageStorage, sop_uid or invented, syntax, content[offset:])


def _text(ds: pydicom.Dataset, keyword: str) -> str:
    try:
        value = ds.get(keyword)
    except Exception:  # a value that cannot be parsed
        return ""
    return str(value).strip("\0 ") if isinstance(value, str) else ""


def send_raw(what: RawObject, port: int) -> str:
    """The node's answer as four hexadecimal digits, or why there was none."""
    if not (UID(what.sop_class).is_valid and UID(what.syntax).is_valid):
        return "invalid-uid"  # cannot be proposed
    with association(port, [(what.sop_class, what.syntax)]) as assoc:
        if not assoc.is_established:
            return "rejected" if assoc.is_rejected else "no-context"
        answer = raw_store(assoc, what.data or None, what.sop_class, what.sop_uid)
        return f"{answer.Status:04X}" if "Status" in answer else "no-answer"
