"""A clean donor of patient and study attributes from source headers that may hold anything (PS3.3 C.7.1, C.7.2; PS3.5 6.1).

The raw bytes of twelve attributes are decoded strictly, repaired, and put onto light data sets; nothing else of a source reaches a report.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
from pydicom.charset import STAND_ALONE_ENCODINGS, convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.dataset import Dataset

from qa_engine.assessment import Finding
from qa_engine.header import integer, raw, text

LIMITS = {"PatientName": 64, "PatientID": 64, "IssuerOfPatientID": 64, "PatientBirthDate": 8, "PatientSex": 1, "StudyInstanceUID": 64,
          "StudyDate": 8, "StudyTime": 16, "AccessionNumber": 16, "StudyID": 16, "ReferringPhysicianName": 64, "StudyDescription": 64}
"""The attributes that are copied, and how many characters each may have (PS3.5 6.2)."""
IDENTIFYING = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "AccessionNumber")
TYPE_2 = tuple(k for k in LIMITS if k not in ("StudyInstanceUID", "IssuerOfPatientID", "StudyDescription"))
"""Present in every result, empty where the source has none."""
PERSON_NAMES = frozenset({"PatientName", "ReferringPhysicianName"})
DATES, TIMES = frozenset({"PatientBirthDate", "StudyDate"}), frozenset({"StudyTime"})
_DATE = re.compile(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(\.\d{1,6})?)?)?")
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
REWRITTEN = "was not in DICOM's form; it was rewritten"
NO_SEX = "is none of M, F, O; it was left empty"
KEPT = "is no valid UID; it was kept, another one would name another study"
NO_YEAR = "names a year before 1000, as anonymisers write it; it was left empty"
HARMLESS = frozenset({REWRITTEN, NO_SEX, KEPT, NO_YEAR})
"""What can be wrong without making the identity doubtful."""
ASCII_TERMS = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})


@dataclass(frozen=True, eq=False)
class SourceHeader:
    """values: the donor's attributes; charset: Specific Character Set to declare, None for pure ASCII; evidence: one light data set per
    source instance; digest: of the identity; doubtful: attributes that identify the patient and lost something or differ in the series."""

    values: dict[str, str]
    charset: str | list[str] | None
    evidence: list[Dataset]
    digest: str
    findings: tuple[Finding, ...] = ()
    doubtful: tuple[str, ...] = ()
    body_part: str = ""

    @property
    def answerable(self) -> bool:
        """Whether a result can stand in the source's study and refer to an instance of it."""
        return bool(self.values["StudyInstanceUID"] and self.evidence)


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
    return "\\".join(str(v) for v in value) if isinstance(value, pydicom.multival.MultiValue) else None


def _charsets(ds: Dataset) -> list[str]:
    value = raw(ds, "SpecificCharacterSet")
    if value is None:
        return []
    terms = [str(v).strip() for v in ([value] if isinstance(value, str) else value)]
    return [term for term in terms if term in STAND_ALONE_ENCODINGS][:1] or terms  # such a term needs no other beside it


def _encodings(charsets: Sequence[str], strict: bool = True) -> list[str] | None:
    """Python encodings of defined terms, None when one is not a defined term; ASCII is Latin-1 in pydicom, where not `strict`."""
    if any(c and c not in python_encoding for c in charsets):
        return None
    try:
        found = convert_encodings(list(charsets) or [""])
    except (LookupError, ValueError):
        return None
    return ["ascii" if strict and term in ASCII_TERMS else encoding for term, encoding in zip(charsets or [""], found, strict=True)]


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


def _day(value: str) -> str:
    """YYYYMMDD out of a date or the beginning of a date and time; "" when it is none."""
    found = _DATE.match(value)
    if found is None:
        return ""
    try:
        date(*map(int, found.groups()))
    except ValueError:
        return ""
    return "".join(found.groups())


def _time(value: str) -> str:
    """HHMMSS.FFFFFF or a beginning of it; "" when it is no time."""
    found = _TIME.fullmatch(value)
    if found is None or int(found[1]) > 23 or int(found[2] or 0) > 59 or int(found[3] or 0) > 60:
        return ""
    return "".join(part or "" for part in found.groups())


def _repair(keyword: str, given: str) -> tuple[str, list[str]]:
    """One value made valid for its VR, or empty; and what was wrong with it."""
    if keyword == "StudyInstanceUID":
        value = given.strip().strip("\0")
        if "\\" in value:
            return "", ["names several studies"]
        return value, [] if not value or (_UID.fullmatch(value) and len(value) <= LIMITS[keyword]) else [KEPT]
    value = "".join(c for c in given if unicodedata.category(c) != "Cc").strip()
    wrong = [REWRITTEN] if value != given.strip().strip("\0") else []
    if "\\" in value:
        value = value.split("\\")[0].strip()
        wrong.append("has several values; the first was taken")
    if not value:
        return "", wrong
    if keyword in DATES or keyword in TIMES:
        fixed = _day(value) if keyword in DATES else _time(value)
        kind = "date" if keyword in DATES else "time"
        if keyword in DATES and fixed.startswith("0"):
            return "", [*wrong, NO_YEAR]
        return fixed, wrong + ([f"is no {kind}; it was left empty"] if not fixed else [REWRITTEN] if fixed != value else [])
    if keyword == "PatientSex":
        fixed = value.upper() if value.upper() in ("M", "F", "O") else ""
        return fixed, wrong + ([NO_SEX] if not fixed else [REWRITTEN] if fixed != value else [])
    if keyword in PERSON_NAMES:
        groups = ["^".join(group.split("^")[:5])[:64] for group in value.split("=")[:3]]
        fixed = "=".join(groups).rstrip("=") if value.strip("^= ") else ""
        return fixed, wrong + (["was too long or had too many components; it was cut"] if fixed != value.rstrip("=") and fixed else [])
    if len(value) > LIMITS[keyword]:
        return value[: LIMITS[keyword]].strip(), [*wrong, f"is longer than {LIMITS[keyword]} characters; it was cut"]
    return value, wrong


def _survives(value: str, charsets: Sequence[str]) -> bool:
    """Whether a text written in these character sets is read back the same, also by readers that look for backslashes in the bytes."""
    if value.isascii():
        return True
    encodings, written = _encodings(charsets), _encodings(charsets, strict=False)
    if encodings is None or written is None or not charsets:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = encode_string(value, written)
            return b"\\" not in data and decode_bytes(data, encodings, {"^", "=", "\\"}) == value
    except (UnicodeError, UserWarning, LookupError, ValueError):
        return False


def declared_charset(values: Sequence[str], charsets: Sequence[str], policy: str) -> str | list[str] | None:
    """What to declare: nothing for ASCII, the source's own sets when every value survives them, else UTF-8."""
    if all(v.isascii() for v in values):
        return None
    if list(charsets) == ["ISO_IR 13"]:
        charsets = ["ISO 2022 IR 13", "ISO 2022 IR 87"]  # the same bytes; the form alone is refused by a validator in wide use
    if policy == "source" and "GBK" not in charsets and all(_survives(v, charsets) for v in values):
        return charsets[0] if len(charsets) == 1 else list(charsets)
    return "ISO_IR 192"


def _light(ds: Dataset, study_uid: str) -> Dataset | None:
    found = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
        value = text(raw(ds, keyword)).strip("\0")
        if not value or "\\" in value:
            return None  # nothing can refer to it
        setattr(found, keyword, value)
    found.StudyInstanceUID = study_uid
    found.Modality = text(raw(ds, "Modality"))[:16]
    for keyword in ("Rows", "Columns", "NumberOfFrames"):
        value = integer(raw(ds, keyword))
        if value is not None and value > 0:
            setattr(found, keyword, value)
    return found


def _decoded(ds: Dataset, declared: Sequence[str], assumed: str) -> tuple[dict[str, str], bool]:
    """The twelve values as text, and whether the declared character set explained them."""
    row, all_explained = {}, True
    for keyword in LIMITS:
        value = _bytes_of(ds, keyword)
        if isinstance(value, bytes):
            value, explained = _decode(value.rstrip(b"\0 "), declared, assumed, keyword in PERSON_NAMES)
            all_explained &= explained
        row[keyword] = value or ""
    return row, all_explained


def _one_patient(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of the most frequent study and patient: the values of two patients are never mixed."""
    def key(row: dict[str, str]) -> tuple[str, str]:
        return row["StudyInstanceUID"], row["PatientID"]

    counts = Counter(key(row) for row in rows)
    chosen = max(counts, key=lambda k: (all(k), bool(k[0]), counts[k]))
    return [row for row in rows if key(row) == chosen]


def _merge(rows: Sequence[dict[str, str]]) -> tuple[dict[str, str], list[Finding], list[str]]:
    """Repaired values, findings, and the keywords that make the identity doubtful."""
    values, findings, doubtful = {}, [], []
    of_patient = _one_patient(rows)
    for keyword in LIMITS:
        different = {_repair(keyword, value)[0] for row in rows if (value := row[keyword])}
        if len(different) > 1 and keyword in IDENTIFYING:
            findings.append(Finding("identity-differs", f"{keyword} differs within the series; the most frequent value was taken."))
            doubtful.append(keyword)
        counts = Counter(row[keyword] for row in of_patient)
        chosen = (Counter({v: n for v, n in counts.items() if v}) or counts).most_common(1)[0][0]
        values[keyword], wrong = _repair(keyword, chosen)
        findings += [Finding("source-header", f"{keyword} of the source {what}.") for what in wrong]
        if keyword in IDENTIFYING and not HARMLESS.issuperset(wrong):
            doubtful.append(keyword)
    return values, findings, doubtful


def read_source_header(files: Sequence[Path], assumed_charset: str = "iso8859-1", policy: str = "source") -> SourceHeader:
    """The donor of a series; ValueError when no file can be read. Where instances disagree, the majority wins and it is a finding."""
    rows: list[dict[str, str]] = []
    sets: list[Dataset] = []
    charsets: list[list[str]] = []
    explained = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            except Exception:  # a file that cannot be read is no donor
                continue
            declared = _charsets(ds)
            row, ok = _decoded(ds, declared, assumed_charset)
            explained &= ok
            rows.append(row)
            charsets.append(declared)
            sets.append(ds)
        if not sets:
            raise ValueError("no source file can be read")
        values, findings, doubtful = _merge(rows)
        evidence = [light for ds in sets if (light := _light(ds, values["StudyInstanceUID"])) is not None]
    if not explained:
        findings.append(Finding("character-set", "The declared character set does not explain the text; another was assumed."))
    common = Counter(tuple(c) for c in charsets).most_common(1)[0][0]
    digest = hashlib.sha256("\0".join(f"{k}={values[k]}" for k in LIMITS).encode("utf-8", "surrogateescape")).hexdigest()
    body = text(raw(sets[0], "BodyPartExamined")).upper()
    charset = declared_charset(list(values.values()), list(common), policy)
    return SourceHeader(values, charset, evidence, digest, tuple(findings), tuple(dict.fromkeys(doubtful)),
                        body if re.fullmatch(r"[A-Z0-9 _]{2,16}", body) else "")


def put_identity(ds: Dataset, source: SourceHeader) -> None:
    """Copy the donor's values onto a data set; type 2 attributes are present and empty where the source has none."""
    for keyword in LIMITS:
        value = source.values[keyword]
        if value or keyword in TYPE_2:
            setattr(ds, keyword, value)
