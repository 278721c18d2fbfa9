"""Planted names go through a whole node run; they stand in the objects alone: not in log, database, audit log, file names."""

from __future__ import annotations

import copy
from pathlib import Path

import pydicom
import pytest
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless, generate_uid

from tests.support.node import NodeUnderTest, send
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for

pytestmark = [pytest.mark.model]

NAMES = ("PLANTEDNAME", "PLANTEDID", "PLANTEDKIN", "PLANTEDTEXT", "PLANTEDNEW")
PATIENT = {"PatientName": "PLANTEDNAME^GIVEN", "PatientID": "PLANTEDID7", "OtherPatientNames": "PLANTEDKIN^X", "PatientBirthName": "PLANTEDKIN^Y",
           "PatientMotherBirthName": "PLANTEDKIN^Z", "PatientAddress": "PLANTEDTEXT street", "PatientComments": "PLANTEDTEXT",
           "ReferringPhysicianName": "PLANTEDTEXT^R", "OperatorsName": "PLANTEDTEXT^O", "AccessionNumber": "PLANTEDTEXT", "StudyID": "PLANTEDTEXT",
           "ImageComments": "PLANTEDTEXT", "RequestingPhysician": "PLANTEDTEXT^Q", "AdditionalPatientHistory": "PLANTEDTEXT"}
NUMBERS = ("RepetitionTime", "EchoTime", "MagneticFieldStrength", "FlipAngle", "SliceThickness", "SpacingBetweenSlices", "PixelSpacing",
           "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "WindowCenter", "PixelBandwidth",
           "EchoTrainLength", "NumberOfAverages", "InstanceNumber", "SeriesNumber", "AcquisitionNumber", "ImagesInAcquisition",
           "PatientSize", "PatientWeight", "ContentTime", "AcquisitionDate", "StudyDate", "PatientAge", "NumberOfFrames")


def series(sets: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """The images as another series of another study."""
    study, uid = generate_uid(), generate_uid()
    made = [copy.deepcopy(ds) for ds in sets]
    for ds in made:
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, uid, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return made


def spoilt(ds: pydicom.Dataset, keywords: tuple[str, ...]) -> None:
    """A planted text where a number, a date or a code belongs."""
    for keyword in keywords:
        tag = Tag(keyword)
        ds[tag] = RawDataElement(tag, dictionary_VR(tag), 12, b"PLANTEDTEXT ", 0, False, True)


def variants(images: list[pydicom.Dataset]) -> list[list[pydicom.Dataset]]:
    """Series of which each takes another way through the node."""
    for ds in images:
        for keyword, value in PATIENT.items():
            setattr(ds, keyword, value)
    good = series(images)
    each = []
    for keyword in NUMBERS:  # one wrong value after the other, and all of them at once
        each.append(series(images[:3]))
        for ds in each[-1]:
            spoilt(ds, (keyword,))
    all_wrong = series(images[:3])
    for ds in all_wrong:
        spoilt(ds, NUMBERS)
    corrupt = series(images[:2])
    for ds in corrupt:
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51PLANTEDTEXT" * 50])
    text = series(images[:1])
    text[0].SOPClassUID = text[0].file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    text[0].Modality = "SR"
    del text[0].PixelData
    other = [copy.deepcopy(good[0])]  # the same UID with other pixels
    other[0].PixelData = bytes(len(other[0].PixelData))
    return [good, *each, all_wrong, corrupt, text, other]


def test_names_stay_in_the_objects(tmp_path: Path) -> None:
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("mr", tmp_path / "patient", slices=10, size=128, seed=5)
    made = variants([pydicom.dcmread(p) for p in sorted((tmp_path / "patient").iterdir())])
    (tmp_path / "out").mkdir()
    with SmallPacs() as pacs, NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port), ("gone", "GONE", 1)], announced=2) as node:
        before = pydicom.config.settings.writing_validation_mode
        pydicom.config.settings.writing_validation_mode = IGNORE
        try:
            for k, sets in enumerate(made):
                paths = []
                for n, ds in enumerate(sets):
                    paths.append(tmp_path / "out" / f"{k}-{n}.dcm")
                    ds.save_as(paths[-1], enforce_file_format=True)
                assert send(paths, node.port) == len(paths)
            first = made[0]
            ends = node.wait_for_ends(len(made) - 1, 200)  # the last one belongs to the first series
            assert ends[first[0].SeriesInstanceUID]["outcome"] == "assessed"
            for ds in first:  # a corrected identity: rendered anew
                ds.PatientName, ds.PatientID = "PLANTEDNEW^NAME", "PLANTEDNEW1"
                ds.save_as(tmp_path / "out" / "again.dcm", enforce_file_format=True)
                assert send([tmp_path / "out" / "again.dcm"], node.port) == 1
            wrong = (tmp_path / "out" / f"{len(NUMBERS) + 1}-0.dcm").read_bytes()
            assert wrong.count(b"PLANTEDTEXT ") >= len(NUMBERS)
        finally:
            pydicom.config.settings.writing_validation_mode = before
        wait_for(lambda: {"PLANTEDNAME^GIVEN", "PLANTEDNEW^NAME"} <= {str(ds.PatientName) for ds in pacs.of_modality("SR")}, 90,
                 f"reports of both identities\n{node.tail()}")
        assert send([tmp_path / "out" / "0-0.dcm"], node.port) == 1
        for command in (("series", "list"), ("delivery", "list"), ("results",), ("audit", "list"), ("check",)):
            said = node.mediqa(*command, code=1 if command == ("check",) else 0)
            assert not [name for name in NAMES if name in said.upper()], command
        assert not node.rows("select id from revision where outcome = 'failed'")
    looked, described = 0, False
    for path in [tmp_path / "node", *(tmp_path / "node").rglob("*")]:
        inside = path.relative_to(tmp_path / "node").as_posix()
        assert not [name for name in NAMES if name in inside.upper()], inside
        if path.is_file() and not inside.startswith(("data/objects/", "data/results/")):
            looked += 1
            content = path.read_bytes().upper()
            described |= str(made[0][0].SeriesDescription).upper().encode() in content  # a column of the series: it would be found
            assert not [name for name in NAMES if name.encode() in content], (inside, excerpt(content))
    assert looked >= 5 and described
    log = node.log.read_text(errors="replace")
    assert "Traceback" not in log and all(line.startswith("{") for line in log.splitlines()), [x for x in log.splitlines() if x[:1] != "{"]


def excerpt(content: bytes) -> bytes:
    """What stands around the first name."""
    at = min(found for name in NAMES if (found := content.find(name.encode())) >= 0)
    return content[max(0, at - 200):at + 200]
