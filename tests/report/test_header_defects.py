"""Whatever stands in a source header, results are built, valid and tell what was wrong: the defects seen in real archives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from node.report.render import render_results
from node.report.source_header import LIMITS, read_source_header
from tests.support.reports import CAPTURE, SR_CLASSES, Scored, changed, context, groups_of, put_bytes, texts_of, validate

pytestmark = [pytest.mark.model, pytest.mark.peer]

Change = Callable[[Dataset], None]


@dataclass(frozen=True)
class Defect:
    """change: what is wrong with the source; expected: attributes of the result (None = absent); finding: parts of its sentence, "" for none.

    doubtful: what `report.on_bad_identity: hold` holds back.
    """

    change: Change
    expected: dict[str, str | None]
    finding: str = ""
    doubtful: bool = False
    accepted: bool = False
    """Whether the validator may complain about a value, and that it does so."""


def absent(keyword: str) -> Defect:
    return Defect(lambda ds: ds.pop(keyword, None), {keyword: ""})


def value(keyword: str, given: bytes, expected: str, finding: str, doubtful: bool = False, **more: Any) -> Defect:
    return Defect(lambda ds: put_bytes(ds, keyword, given), {keyword: expected}, f"{keyword} of the source |{finding}" if finding else "", doubtful,
                  **more)


def left_out(keyword: str, content: Any) -> Defect:
    """What is not copied cannot be wrong; nothing of the patient's identity is lost, so nothing is told."""
    def change(ds: Dataset) -> None:
        if isinstance(content, bytes):
            put_bytes(ds, keyword, content)
        else:
            setattr(ds, keyword, content)
    return Defect(change, {keyword: None})


def _code_without_meaning() -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "1", "99TEST"
    return item


def _private(ds: Dataset) -> None:
    block = ds.private_block(0x0011, "SIMULATED TEST", create=True)
    block.add_new(1, "LO", "x")


ACCEPTED = ("Study Instance UID", "contains invalid data values for Value Representations")
REWRITTEN, CUT, SEVERAL = "was not in DICOM's form; it was rewritten", "it was cut", "has several values; the first was taken"
DEFECTS = {
    **{f"no {keyword}": absent(keyword) for keyword in
       ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")},
    "empty PatientID": value("PatientID", b"", "", ""),
    "sex U": value("PatientSex", b"U", "", "is none of M, F, O; it was left empty"),
    "sex m": value("PatientSex", b"m", "M", REWRITTEN),
    "birth date of a year": value("PatientBirthDate", b"1970", "", "is no date; it was left empty", True),
    "birth date with time": value("PatientBirthDate", b"19700203040506", "19700203", REWRITTEN),
    "birth date with dots": value("PatientBirthDate", b"1970.02.03", "19700203", REWRITTEN),
    "birth date that no calendar has": value("PatientBirthDate", b"19700230", "", "is no date; it was left empty", True),
    "birth date of an anonymiser": value("PatientBirthDate", b"00010101", "", "names a year before 1000"),
    "study date of an anonymiser": value("StudyDate", b"00010101", "", "names a year before 1000"),
    "study time with colons": value("StudyTime", b"10:11:12", "101112", REWRITTEN),
    "study time out of range": value("StudyTime", b"251112", "", "is no time; it was left empty"),
    "study time with a fraction of minutes": value("StudyTime", b"1011.5", "", "is no time; it was left empty"),
    "two names": value("PatientName", b"SIMULATED^A\\SIMULATED^B", "SIMULATED^A", SEVERAL, True),
    "name of 7 components": value("PatientName", b"SIMULATED^A^B^C^D^E^F", "SIMULATED^A^B^C^D", CUT, True),
    "name of 80 characters": value("PatientName", b"SIMULATED" + b"X" * 71, "SIMULATED" + "X" * 55, CUT, True),
    "two patient IDs": value("PatientID", b"SIM-1\\SIM-2", "SIM-1", SEVERAL, True),
    "PatientID of 70 characters": value("PatientID", b"S" * 70, "S" * 64, CUT, True),
    "AccessionNumber of 20 characters": value("AccessionNumber", b"A" * 20, "A" * 16, CUT, True),
    "StudyID of 20 characters": value("StudyID", b"A" * 20, "A" * 16, CUT),
    "StudyDescription of 80 characters": value("StudyDescription", b"A" * 80, "A" * 64, CUT),
    "control characters in PatientID": value("PatientID", b"SIM\x0b\x00-1", "SIM-1", REWRITTEN),
    "age without unit": left_out("PatientAge", b"45"),
    "weight in words": left_out("PatientWeight", b"unknown"),
    "weight of 20 characters": left_out("PatientWeight", b"70.00000000000000001"),
    "empty item in Referenced Study Sequence": left_out("ReferencedStudySequence", [Dataset()]),
    "empty item in Referenced Patient Sequence": left_out("ReferencedPatientSequence", [Dataset()]),
    "empty item in Other Patient IDs Sequence": left_out("OtherPatientIDsSequence", [Dataset()]),
    "procedure code without meaning": left_out("ProcedureCodeSequence", [_code_without_meaning()]),
    "species alone": left_out("PatientSpeciesDescription", "Homo sapiens"),
    "identity removed, no method": left_out("PatientIdentityRemoved", "YES"),
    "clinical trial protocol alone": left_out("ClinicalTrialProtocolID", "TEST"),
    "pregnancy status 9": left_out("PregnancyStatus", 9),
    "private elements": Defect(_private, {}),
    "study UID with a leading zero": value("StudyInstanceUID", b"1.2.03.4", "1.2.03.4", "is no valid UID; it was kept", accepted=True),
}


def rendered(series: Scored, change: Change, folder: Path) -> tuple[Any, list[tuple[str, bytes]]]:
    """Header and (IOD, file) of capture, coded report and text report of a series whose headers were changed."""
    files = changed(series.files, folder, change)
    source = read_source_header(files)
    made = render_results(series.assessment, files, context(), ["comprehensive-3d", "basic-text"], True, source)
    return source, [(iod, o.data) for iod, o in zip((CAPTURE, SR_CLASSES["comprehensive-3d"], SR_CLASSES["basic-text"]), made, strict=True)]


@pytest.mark.parametrize("name", DEFECTS)
def test_defect(scored: dict[str, Scored], name: str, tmp_path: Path) -> None:
    defect = DEFECTS[name]
    source, objects = rendered(scored["mr"], defect.change, tmp_path)
    told = [f.text for f in source.findings]
    assert len(told) == bool(defect.finding) and all(part in words for words in told for part in defect.finding.split("|")), told
    assert bool(source.doubtful) == defect.doubtful
    for iod, data in objects:
        errors = validate(data, iod, tmp_path)
        assert [e for e in errors if not (defect.accepted and any(words in e for words in ACCEPTED))] == []
        assert bool(errors) == defect.accepted
        ds = pydicom.dcmread(BytesIO(data))
        for keyword, expected in defect.expected.items():
            assert (str(ds[keyword].value) if keyword in ds else None) == expected
        assert not [e for e in ds if e.tag.is_private]
        if iod != CAPTURE:
            comments = texts_of(ds, "Comment") + texts_of(ds, "Finding")
            assert all(words in comments for words in told)


@pytest.mark.parametrize("given", [b"abc", b"1..2", b"1." + b"2" * 80, b"-1 ", "é.1".encode("latin-1"), b"1.2 3"])
def test_any_study_uid_is_kept(scored: dict[str, Scored], given: bytes, tmp_path: Path) -> None:
    source, objects = rendered(scored["mr"], lambda ds: put_bytes(ds, "StudyInstanceUID", given), tmp_path)
    kept = given.decode("latin-1").strip()
    assert [str(pydicom.dcmread(BytesIO(data)).StudyInstanceUID) for _, data in objects] == [kept] * 3
    assert any("is no valid UID; it was kept" in f.text for f in source.findings) and source.doubtful == ()


@pytest.mark.parametrize("given", [b"", b"1.2\\1.3"])
def test_a_source_that_names_no_study_gets_no_object(scored: dict[str, Scored], given: bytes, tmp_path: Path) -> None:
    files = changed(scored["mr"].files, tmp_path, lambda ds: put_bytes(ds, "StudyInstanceUID", given))
    assert render_results(scored["mr"].assessment, files, context(), ["comprehensive-3d"]) == []


def test_instances_that_nothing_can_refer_to(scored: dict[str, Scored], tmp_path: Path) -> None:
    """A SOP Instance UID of two values: its slice is left out of the report; where there is no other instance there is no report."""
    def change(ds: Dataset) -> None:
        if ds.InstanceNumber == 1:
            put_bytes(ds, "SOPInstanceUID", b"1.2\\1.3")

    files = changed(scored["mr"].files, tmp_path, change)
    a = scored["mr"].assessment
    a = replace(a, slices=(replace(a.slices[0], sop_uid="1.2\\1.3"), *a.slices[1:]))
    made = render_results(a, files, context(), ["comprehensive-3d"], False)[0]
    assert validate(made.data, SR_CLASSES["comprehensive-3d"], tmp_path) == []
    slices = [name for name in groups_of(pydicom.dcmread(BytesIO(made.data))) if name.startswith("Slice ")]
    assert sorted(slices) == [f"Slice {s.ordinal}" for s in a.slices[1:]]
    assert render_results(a, files[:1], context(), ["comprehensive-3d"]) == []


def test_two_patients_in_one_series_are_never_mixed(scored: dict[str, Scored], tmp_path: Path) -> None:
    """The majority is taken whole: an attribute that it lacks is not filled from the other patient."""
    def change(ds: Dataset) -> None:
        first = ds.InstanceNumber == 1
        ds.PatientID, ds.PatientName = ("SIM-B", "SIMULATED^B") if first else ("SIM-A", "SIMULATED^A")
        ds.PatientBirthDate, ds.AccessionNumber = ("19700203", "B1") if first else ("", "")

    source, objects = rendered(scored["mr"], change, tmp_path)
    assert {f.code for f in source.findings} == {"identity-differs"} and set(source.doubtful) == {"PatientName", "PatientID"}
    for _, data in objects:
        ds = pydicom.dcmread(BytesIO(data))
        assert [ds.PatientID, str(ds.PatientName), ds.PatientBirthDate, ds.AccessionNumber] == ["SIM-A", "SIMULATED^A", "", ""]


def test_findings_name_attributes_and_no_patient(scored: dict[str, Scored], tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        put_bytes(ds, "PatientName", b"PLANTED^NAME^A^B^C^D\\OTHER")
        put_bytes(ds, "PatientID", b"PLANTEDID" * 9)

    files = changed(scored["mr"].files, tmp_path, change)
    findings = read_source_header(files).findings
    assert len(findings) == 3 and not any("PLANTED" in f.text for f in findings)


@pytest.mark.parametrize("kind", ["mr", "enhanced"])
def test_no_warning_quotes_the_patient(scored: dict[str, Scored], kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder,
                                       caplog: pytest.LogCaptureFixture) -> None:
    """Libraries warn about names of one component, and their warnings quote them."""
    rendered(scored[kind], lambda ds: put_bytes(ds, "PatientName", b"PLANTED_NAME"), tmp_path)
    assert not [w for w in recwarn if "PLANTED" in str(w.message)]
    assert "PLANTED" not in caplog.text


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([k for k in LIMITS if k != "StudyInstanceUID"]), st.binary(max_size=90) | st.text(max_size=40).map(str.encode),
                       max_size=6),
       st.sampled_from([b"", b"ISO_IR 100", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"GB18030", b"ISO_IR 13", b"\xff"]))
def test_any_bytes(scored: dict[str, Scored], tmp_path: Path, values: dict[str, bytes], charset: bytes) -> None:
    """Objects are valid and say what the header reader understood, whatever bytes the source holds."""
    def change(ds: Dataset) -> None:
        for keyword, content in values.items():
            put_bytes(ds, keyword, content)
        put_bytes(ds, "SpecificCharacterSet", charset)

    files = changed(scored["mr"].files[:1], tmp_path, change)
    source = read_source_header(files)
    made = render_results(scored["mr"].assessment, files, context(), ["basic-text"], False, source)[0]
    errors = validate(made.data, SR_CLASSES["basic-text"], tmp_path)
    if any(not v.isascii() for v in source.values.values()):  # the validator counts bytes where PS3.5 6.2 counts characters
        errors = [e for e in errors if "Length invalid" not in e and "Value Representations" not in e]
    assert errors == []
    assert all(len(part) <= LIMITS[k] for k, v in source.values.items() for part in v.split("="))
    ds = pydicom.dcmread(BytesIO(made.data))
    for keyword, understood in source.values.items():
        assert str(ds.get(keyword, "")) == understood, keyword
