"""dciodvfy finds no error and dsrdump shows what a reader looks for (references: PS3.3 A.8, A.35)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node.report.render import render_results
from node.report.source_header import read_source_header
from qa_engine.assess import assess
from qa_engine.assessment import WEIGHT_DIGITS
from tests.report.conftest import Engine
from tests.support.data import data_folder
from tests.support.reports import CAPTURE, SR_CLASSES, Scored, changed, context, put_bytes, validate

pytestmark = [pytest.mark.model, pytest.mark.peer]

TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID",
          "ReferringPhysicianName", "SeriesNumber", "Manufacturer", "PositionReferenceIndicator", "InstanceNumber", "Laterality",
          "PatientPosition", "KVP", "AcquisitionNumber", "StudyDescription", "SeriesDescription", "BodyPartExamined", "ProtocolName")
"""Every type 2 attribute of the modules that a result takes over or a source has, and what readers like to rely on besides."""


def errors(series: Scored, folder: Path, **more: object) -> dict[str, list[str]]:
    """Errors of the validator per object of the result set in every class."""
    made = render_results(series.assessment, series.files, context(**more), list(SR_CLASSES), True, series.source)
    assert [o.kind for o in made] == ["sc", "sr", "sr", "sr", "sr"]
    names = [CAPTURE, *SR_CLASSES.values()]
    return {name: found for name, o in zip(names, made, strict=True) if (found := validate(o.data, name, folder))}


@pytest.mark.parametrize("kind", ["ct", "mr", "enhanced"])
def test_no_error_in_any_class(scored: dict[str, Scored], kind: str, tmp_path: Path) -> None:
    assert errors(scored[kind], tmp_path) == {}


@pytest.mark.data
def test_real_enhanced_mr(tmp_path: Path) -> None:
    files = sorted(f for f in (data_folder() / "series" / "brain-t1-enhanced-siemens-3t").rglob("*") if f.is_file())
    series = Scored(files, assess(files), read_source_header(files))
    assert series.assessment.slices[0].frame is not None
    assert errors(series, tmp_path) == {}


def test_standard_verdict_is_valid_too(scored: dict[str, Scored], tmp_path: Path) -> None:
    assert errors(scored["mr"], tmp_path, standard_verdict=True) == {}


def test_source_without_any_type_2_attribute(scored: dict[str, Scored], engine: Engine, tmp_path: Path) -> None:
    def drop(ds: Dataset) -> None:
        for keyword in TYPE_2:
            ds.pop(keyword, None)

    files = changed(scored["ct"].files, tmp_path, drop)
    source = read_source_header(files)
    assert errors(Scored(files, replace(scored["ct"].assessment, description="", region=None), source), tmp_path) == {}
    assert source.findings == () and source.charset is None


def test_source_sequences_without_their_type_1_attributes(scored: dict[str, Scored], tmp_path: Path) -> None:
    sequences = ("ReferencedStudySequence", "ReferencedPatientSequence", "OtherPatientIDsSequence", "ProcedureCodeSequence",
                 "RequestAttributesSequence", "ReferencedPerformedProcedureStepSequence", "IssuerOfPatientIDQualifiersSequence",
                 "PatientSpeciesCodeSequence", "ReferencedImageSequence", "ReasonForPerformedProcedureCodeSequence",
                 "IssuerOfAccessionNumberSequence", "PhysiciansOfRecordIdentificationSequence")

    def empty_items(ds: Dataset) -> None:
        for keyword in sequences:
            setattr(ds, keyword, [Dataset()])

    files = changed(scored["mr"].files, tmp_path, empty_items)
    assert errors(Scored(files, scored["mr"].assessment, read_source_header(files)), tmp_path) == {}


@pytest.mark.parametrize("body_part", ["WRIST", "BREAST", "CHEST", "", "HEAD^BRAIN", "UP_EXM"])
def test_capture_of_paired_and_unpaired_body_parts(scored: dict[str, Scored], body_part: str, tmp_path: Path) -> None:
    files = changed(scored["mr"].files, tmp_path, lambda ds: put_bytes(ds, "BodyPartExamined", body_part.encode()))
    capture = render_results(scored["mr"].assessment, files, context(), [])[0]
    assert validate(capture.data, CAPTURE, tmp_path) == []


@pytest.mark.parametrize("kind", ["ct", "enhanced"])
def test_dump_shows_score_interval_verdict_and_slices(scored: dict[str, Scored], kind: str, tmp_path: Path) -> None:
    series = scored[kind]
    for made in render_results(series.assessment, series.files, context(), ["comprehensive-3d", "comprehensive", "enhanced"], False, series.source):
        (tmp_path / "sr.dcm").write_bytes(made.data)
        dump = subprocess.run(["dsrdump", "+Pc", "-Ei", str(tmp_path / "sr.dcm")], capture_output=True, text=True, check=True).stdout
        a = series.assessment
        assert a.score is not None and a.interval is not None
        for words in (f'"Image Set Quality Rating")="{a.score:.1f}"', f'"Lower limit of 90% interval")="{a.interval[0]:.1f}"',
                      f'"Upper limit of 90% interval")="{a.interval[1]:.1f}"', f'99MEDIQA[1],"{a.verdict}")'):
            assert words in dump, words
        for s in a.slices:
            assert f'="Slice {s.ordinal}"' in dump
            assert f'"Image Quality Rating")="{round(s.score, 1)}"' in dump
            assert f'"Weight in series score")="{round(s.weight, WEIGHT_DIGITS)}"' in dump
