"""A clean donor of patient and study attributes from source headers that may hold anything (PS3.3 C.7.1, C.7.2; PS3.5 6.1).

The raw bytes of twelve attributes are decoded strictly, repaired, and put onto light data sets; nothing else of a source reaches a report.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.dataset import Dataset

from qa_engine.assessment import Finding
from qa_engine.header import integer, raw, text

LIMITS = {"PatientName": 64, "PatientID": 64, "IssuerOfPatientID": 64, "PatientBirthDate": 8, "PatientSex": 1, "StudyInstanceUID": 64,
          "StudyDate": 8, "StudyTime": 16, "AccessionNumber": 16, "StudyID": 16, "ReferringPhysicianName": 64, "StudyDescription": 64}
"""The attributes that are copied, and how many characters each may have (PS3.5 6.2)."""
IDENTIFYING = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "AccessionNumber")
PERSON_NAMES = frozenset({"PatientName", "ReferringPhysicianName"})
DATES, TIMES = frozenset({"PatientBirthDate", "StudyDate"}), frozenset({"StudyTime"})
_DATE = re.compile(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})")
_TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(\.\d{1,6})?")


@dataclass(frozen=True, eq=False)
class SourceHeader:
    """values: the donor's attributes; charset: Specific Character Set to declare, None for pure ASCII; evidence: one light data set per
    source instance; digest: of the identity; cut: attributes that had to be cut or emptied and identify the patient."""

    values: dict[str, str]
    charset: str | list[str] | None
    evidence: list[Dataset]
    digest: str
    findings: tuple[Finding, ...] = ()
    cut: tuple[str, ...] = ()
    body_part: str = ""


@dataclass
class _Repairs:
    findings: list[Finding] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    def note(self, keyword: str, what: str) -> None:
        self.findings.append(Finding("source-header", f"{keyword} of the source {what}."))
        if keyword in IDENTIFYING:
            self.cut.append(keyword)


def _bytes_of(ds: Dataset, keyword: str) -> bytes | str | None:
    """The value as it stands in the file, before any decoding."""
    try:
        element = ds.get_item(keyword)
    except Exception:  # a hostile element is no value
        return None
    value: Any = getattr(element, "value", None)
    if value is None or isinstance(value, (bytes, str)):
        return value
    if isinstance(value, pydicom.valuerep.PersonName):
        return bytes(value)
    return str(value) if not isinstance(value, (list, pydicom.multival.MultiValue)) else "\\".join(str(v) for v in value)


def _charsets(ds: Dataset) -> list[str]:
    value = raw(ds, "SpecificCharacterSet")
    if value is None:
        return []
    return [str(v).strip() for v in ([value] if isinstance(value, str) else value)]


def _encodings(charsets: Sequence[str]) -> list[str] | None:
    """Python encodings of defined terms, None when one is not a defined term."""
    from pydicom.charset import python_encoding

    if any(c and c not in python_encoding for c in charsets):
        return None
    try:
        return list(convert_encodings(list(charsets) or [""]))
    except (LookupError, ValueError):
        return None


def _decode(value: bytes, charsets: Sequence[str], assumed: str, person: bool) -> tuple[str, bool]:
    """Text and whether the declared character set explained it: strictly, then UTF-8, then the assumed one."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii"), True
    encodings = _encodings(charsets)
    if encodings is not None and charsets:
        try:
            if b"\x1b" in value or len(encodings) > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    return decode_bytes(value, encodings, {"^", "=", "\\"} if person else {"\\", "\r", "\n", "\t", "\f"}), True
            return value.decode(encodings[0], "strict"), True
        except (UnicodeError, UserWarning, LookupError, ValueError):
            pass
    for encoding in ("utf-8", assumed):
        try:
            return value.decode(encoding, "strict"), False
        except (UnicodeError, LookupError):
            continue
    return value.decode("latin-1"), False


def _repair(keyword: str, value: str, repairs: _Repairs) -> str:
    """One value made valid for its VR, or empty; every change of an identifying value is noted."""
    if keyword == "StudyInstanceUID":
        return value.strip().strip("\0")  # never changed: another UID would put the result into another study
    value = "".join(c for c in value if c >= " " and c != "\x7f").strip()
    if "\\" in value:
        repairs.note(keyword, "has several values; the first was taken")
        value = value.split("\\")[0].strip()
    if keyword in DATES:
        found = _DATE.match(value)
        if value and (found is None or not (1 <= int(found[2]) <= 12 and 1 <= int(found[3]) <= 31)):
            repairs.note(keyword, "is no date; it was left empty")
        return "".join(found.groups()) if found and 1 <= int(found[2]) <= 12 and 1 <= int(found[3]) <= 31 else ""
    if keyword in TIMES:
        found = _TIME.fullmatch(value)
        good = found is not None and int(found[1]) < 24 and int(found[2] or 0) < 60 and int(found[3] or 0) < 60
        if value and not good:
            repairs.note(keyword, "is no time; it was left empty")
        return "".join(part or "" for part in found.groups()) if good and found is not None else ""
    if keyword == "PatientSex":
        return value.upper() if value.upper() in ("M", "F", "O") else ""
    if keyword in PERSON_NAMES:
        groups = []
        for group in value.split("=")[:3]:
            short = "^".join(part.strip() for part in group.split("^")[:5])[:64].rstrip("^ ")
            groups.append(short)
        joined = "=".join(groups).rstrip("=")
        if joined != value.rstrip("=^ ") and [p.rstrip("^ ") for p in value.split("=")] != groups:
            repairs.note(keyword, "was too long or had too many components; it was cut")
        return joined
    if len(value) > LIMITS[keyword]:
        repairs.note(keyword, f"is longer than {LIMITS[keyword]} characters; it was cut")
        return value[: LIMITS[keyword]].strip()
    return value


def _survives(value: str, charsets: Sequence[str]) -> bool:
    """Whether a text written in these character sets is read back the same."""
    if value.isascii():
        return True
    encodings = _encodings(charsets)
    if encodings is None or not charsets:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if len(encodings) == 1 and codecs.lookup(encodings[0]).name in ("utf-8", "gb18030"):
                return value.encode(encodings[0]).decode(encodings[0]) == value
            return decode_bytes(encode_string(value, encodings), encodings, {"^", "=", "\\"}) == value
    except (UnicodeError, UserWarning, LookupError, ValueError):
        return False


def declared_charset(values: Sequence[str], charsets: Sequence[str], policy: str) -> str | list[str] | None:
    """What to declare: nothing for ASCII, the source's own sets when every value survives them, else UTF-8."""
    if all(v.isascii() for v in values):
        return None
    if policy == "source" and "GBK" not in charsets and all(_survives(v, charsets) for v in values):
        return charsets[0] if len(charsets) == 1 else list(charsets)
    return "ISO_IR 192"


def _light(ds: Dataset, study_uid: str) -> Dataset | None:
    found = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
        value = text(raw(ds, keyword)).strip("\0")
        if not value:
            return None
        setattr(found, keyword, value)
    found.StudyInstanceUID = study_uid
    found.Modality = text(raw(ds, "Modality"))[:16]
    for keyword in ("Rows", "Columns", "NumberOfFrames"):
        value = integer(raw(ds, keyword))
        if value is not None and value > 0:
            setattr(found, keyword, value)
    return found


def read_source_header(files: Sequence[Path], assumed_charset: str = "iso8859-1", policy: str = "source") -> SourceHeader:
    """The donor of a series; ValueError when no file can be read. Where instances disagree, the majority wins and it is a finding."""
    repairs = _Repairs()
    rows: list[dict[str, str]] = []
    sets: list[Dataset] = []
    charsets: list[list[str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            except Exception:  # a file that cannot be read is no donor
                continue
            declared = _charsets(ds)
            row = {}
            for keyword in LIMITS:
                value = _bytes_of(ds, keyword)
                if isinstance(value, bytes):
                    decoded, explained = _decode(value.rstrip(b"\0 "), declared, assumed_charset, keyword in PERSON_NAMES)
                    if not explained and not any(f.code == "character-set" for f in repairs.findings):
                        repairs.findings.append(Finding("character-set", "The declared character set does not explain the text; another was assumed."))
                    value = decoded
                row[keyword] = value or ""
            rows.append(row)
            charsets.append(declared)
            sets.append(ds)
        if not sets:
            raise ValueError("no source file can be read")
        values = {}
        for keyword in LIMITS:
            counts = Counter(row[keyword] for row in rows)
            filled = Counter({v: n for v, n in counts.items() if v})
            chosen = (filled or counts).most_common(1)[0][0]
            if len(filled) > 1 and keyword in IDENTIFYING:
                repairs.findings.append(Finding("identity-differs", f"{keyword} differs within the series; the most frequent value was taken."))
            values[keyword] = _repair(keyword, chosen, repairs)
        study = values["StudyInstanceUID"]
        evidence = [light for ds in sets if (light := _light(ds, study)) is not None]
    common = Counter(tuple(c) for c in charsets).most_common(1)[0][0]
    digest = hashlib.sha256("\0".join(f"{k}={values[k]}" for k in LIMITS).encode("utf-8", "surrogateescape")).hexdigest()
    body = text(raw(sets[0], "BodyPartExamined")).upper()
    charset = declared_charset(list(values.values()), list(common), policy)
    return SourceHeader(values, charset, evidence, digest, tuple(repairs.findings), tuple(dict.fromkeys(repairs.cut)),
                        body if re.fullmatch(r"[A-Z0-9 _]{2,16}", body) else "")


def put_identity(ds: Dataset, source: SourceHeader) -> None:
    """Copy the donor's values onto a data set; type 2 attributes are present and empty where the source has none."""
    for keyword in LIMITS:
        value = source.values[keyword]
        if value or keyword not in ("IssuerOfPatientID", "StudyDescription"):
            setattr(ds, keyword, value)
