"""Simulated patients as DICOM: valid, saying what they are, with headers that agree with their pixels and with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from qa_engine.decode import Decoder
from qa_engine.series import read_series
from qa_engine.simulation import patient_ct, patient_mr
from qa_engine.simulation.dicom_series import MANUFACTURER, simulate_arrays, write_sample, write_samples

KINDS = ("ct", "mr")
DOSES = (1.0, 0.25)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, float], list[Path]]:
    """Files by kind and dose, in order."""
    root = tmp_path_factory.mktemp("samples")
    found = {}
    for kind in KINDS:
        folders = [root / f"{kind}-{dose}" for dose in DOSES]
        for written, dose in zip(write_samples(kind, folders, DOSES, slices=4, size=64, views=60), DOSES, strict=True):
            assert (written.kind, written.dose, written.files) == (kind, dose, 4)
            found[kind, dose] = sorted(written.folder.iterdir())
    return found


def headers(files: list[Path]) -> list[Dataset]:
    return [pydicom.dcmread(f) for f in files]


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dose", DOSES)
def test_dciodvfy_finds_no_error(series: dict[tuple[str, float], list[Path]], kind: str, dose: float) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    for file in series[kind, dose][:2]:
        done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert "Error" not in said, said
        assert "Warning" not in said and {"ct": "CTImage", "mr": "MRImage"}[kind] in said


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_everywhere_that_it_is_simulated(series: dict[tuple[str, float], list[Path]], kind: str) -> None:
    for ds in headers(series[kind, 0.25]):
        assert str(ds.PatientName).startswith("SIMULATED^") and ds.PatientID.startswith("SIM-") and ds.StudyDescription == "SIMULATED PATIENT"
        assert ds.Manufacturer == MANUFACTURER and "MedIQA Node" in MANUFACTURER
        assert "simulated 0.25" in ds.SeriesDescription and "Simulated" in ds.ProtocolName


def test_uids_are_valid_unique_and_of_one_study(series: dict[tuple[str, float], list[Path]]) -> None:
    everything = {key: headers(files) for key, files in series.items()}
    sops = [str(ds.SOPInstanceUID) for sets in everything.values() for ds in sets]
    assert len(set(sops)) == len(sops) == 16
    for kind in KINDS:
        assert len({ds.StudyInstanceUID for dose in DOSES for ds in everything[kind, dose]}) == 1
        assert len({ds.FrameOfReferenceUID for dose in DOSES for ds in everything[kind, dose]}) == 1
        assert [len({ds.SeriesInstanceUID for ds in everything[kind, dose]}) for dose in DOSES] == [1, 1]
        assert len({everything[kind, dose][0].SeriesInstanceUID for dose in DOSES}) == 2
        assert {ds.SeriesNumber for dose in DOSES for ds in everything[kind, dose]} == {1, 2}
    for sets in everything.values():
        for ds in sets:
            uids = (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID)
            assert all(re.fullmatch(r"2\.25\.[1-9]\d{0,38}", str(uid)) for uid in uids) and len(set(uids)) == 4
            assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


def test_uids_follow_from_what_was_asked_for(tmp_path: Path) -> None:
    def uids(**more: object) -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_sample("mr", folder, slices=2, size=64, **more)
        return {str(pydicom.dcmread(f).SOPInstanceUID) for f in folder.iterdir()}

    first = uids(seed=5)
    assert first == uids(seed=5)
    assert not first & uids(seed=6) and not first & uids(seed=5, dose=0.5) and not first & uids(seed=5, kernel="hann")


@pytest.mark.parametrize("kind", KINDS)
def test_geometry_is_consistent(series: dict[tuple[str, float], list[Path]], kind: str) -> None:
    patient = {"ct": patient_ct, "mr": patient_mr}[kind]
    sets = headers(series[kind, 1.0])
    assert [ds.InstanceNumber for ds in sets] == [1, 2, 3, 4]
    z = [float(ds.ImagePositionPatient[2]) for ds in sets]
    assert np.allclose(np.diff(z), patient.spacing_mm(4), atol=1e-3) and [float(ds.SliceLocation) for ds in sets] == z
    for ds in sets:
        rows, columns = ds.pixel_array.shape
        assert (rows, columns) == (ds.Rows, ds.Columns) == (64, 64)
        assert list(ds.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        spacing = [float(s) for s in ds.PixelSpacing]
        assert spacing == pytest.approx([patient.FIELD_MM / 64] * 2, abs=1e-5)
        # the middle of the image is the middle of the patient
        assert [float(ds.ImagePositionPatient[n]) + spacing[n] * 31.5 for n in (0, 1)] == pytest.approx([0, 0], abs=1e-3)


def test_ct_headers_agree_with_the_dose(series: dict[tuple[str, float], list[Path]]) -> None:
    for dose in DOSES:
        ds = headers(series["ct", dose])[0]
        mas = float(ds.XRayTubeCurrent) * float(ds.ExposureTime) / 1000
        assert mas == pytest.approx(160 * dose) == float(ds.Exposure) == float(ds.ExposureInuAs) / 1000
        assert float(ds.CTDIvol) == pytest.approx(9.6 * dose) and float(ds.SpiralPitchFactor) == 1.0
        assert (float(ds.KVP), ds.ConvolutionKernel, ds.BodyPartExamined, float(ds.SliceThickness)) == (120, "B50f", "CHEST", 5.0)
        assert float(ds.ReconstructionDiameter) == patient_ct.FIELD_MM and ds.RescaleType == "HU" and ds.ContrastBolusAgent
        assert ds.ImageType[:2] == ["ORIGINAL", "PRIMARY"]
    air = headers(series["ct", 1.0])[2].pixel_array.astype(float)[:4, :4].mean() - 1024
    assert air == pytest.approx(-1000, abs=40)


@pytest.mark.parametrize("kernel, name", [("hann", "B30f"), ("cosine", "B40f"), ("shepp-logan", "B50f"), ("ramp", "B60f")])
def test_a_kernel_is_named(tmp_path: Path, kernel: str, name: str) -> None:
    write_sample("ct", tmp_path, slices=1, size=64, views=60, kernel=kernel)
    ds = pydicom.dcmread(tmp_path / "0001.dcm")
    assert ds.ConvolutionKernel == name and name in ds.SeriesDescription


@pytest.mark.parametrize("dose", [0.005, 0.0133, 3.7, 10.0])
def test_odd_doses_have_headers_that_fit(tmp_path: Path, dose: float) -> None:
    write_sample("ct", tmp_path, dose=dose, slices=1, size=64, views=60)
    ds = pydicom.dcmread(tmp_path / "0001.dcm")
    assert float(ds.ExposureInuAs) / 1000 == pytest.approx(160 * dose, abs=0.01)
    assert abs(float(ds.Exposure) - 160 * dose) <= 0.5 or dose == 0.005
    assert ds.XRayTubeCurrent >= 1 and ds.Exposure >= 1


def test_mr_headers_are_those_of_the_sequence(series: dict[tuple[str, float], list[Path]]) -> None:
    ds = headers(series["mr", 1.0])[0]
    assert (float(ds.RepetitionTime), float(ds.EchoTime), float(ds.FlipAngle)) == (patient_mr.TR_MS, patient_mr.TE_MS, 90)
    assert (ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType, ds.BodyPartExamined) == ("SE", "NONE", "2D", "HEAD")
    assert float(ds.MagneticFieldStrength) == 1.5 and float(ds.ImagingFrequency) == pytest.approx(42.577 * 1.5, rel=0.001)
    assert float(ds.SpacingBetweenSlices) == patient_mr.spacing_mm(4) and float(ds.SliceThickness) == 5.0


def test_pixels_are_the_simulated_values(tmp_path: Path) -> None:
    for kind in KINDS:
        image = simulate_arrays(kind, [1.0], slices=1, size=64, views=60)[0][0]
        write_sample(kind, tmp_path / kind, slices=1, size=64, views=60)
        ds = pydicom.dcmread(tmp_path / kind / "0001.dcm")
        stored = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        inside = image > (-1020 if kind == "ct" else 0)
        assert np.abs(stored - image)[inside].max() <= 0.5 and stored.max() > 300


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_reads_what_was_written(series: dict[tuple[str, float], list[Path]], kind: str) -> None:
    """Volume in physical units without findings, acquisition with the values above."""
    with Decoder() as decoder:
        reading = read_series(series[kind, 1.0], decoder)
    assert reading.volume.pixels.shape == (4, 64, 64) and reading.findings == () == reading.acquisition.findings
    found = {name: (q.value, q.unit) for name, q in reading.acquisition.values.items()}
    wanted = {"ct": {"KVP": (120, "kV"), "Exposure": (160, "mA.s"), "TubeCurrentTimeProduct": (160, "mA.s"), "SliceIncrement": (40, "mm"),
                     "ConvolutionKernel": ("B50f", ""), "PixelSpacingRow": (5.625, "mm"), "SpiralPitchFactor": (1, "1")},
              "mr": {"RepetitionTime": (550, "ms"), "EchoTime": (12, "ms"), "MagneticFieldStrength": (1.5, "T"), "SliceIncrement": (30, "mm"),
                     "SliceThickness": (5, "mm"), "AcquisitionMatrix": ("64 x 64", "")}}[kind]
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("what", [
    {"dose": 0.0}, {"dose": -1.0}, {"dose": float("nan")}, {"dose": float("inf")}, {"dose": 11.0}, {"slices": 0}, {"slices": 501}, {"size": 32},
    {"size": 2000}, {"views": 10}, {"seed": -1}, {"kernel": "bone"}], ids=str)
def test_what_cannot_be_simulated_is_one_line_and_writes_nothing(tmp_path: Path, what: dict[str, object]) -> None:
    with pytest.raises(ValueError) as caught:
        write_sample("ct", tmp_path / "x", **what)
    assert "\n" not in str(caught.value) and not (tmp_path / "x").exists()


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ct or mr, not us"):
        write_sample("us", tmp_path / "x")


def test_a_folder_with_other_images_is_left_alone(tmp_path: Path) -> None:
    write_sample("mr", tmp_path, slices=3, size=64)
    write_sample("mr", tmp_path, slices=3, size=64)  # the same again
    with pytest.raises(ValueError, match=r"other images \(0003\.dcm\), name an empty folder"):
        write_sample("mr", tmp_path, slices=2, size=64)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_dose_stands_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each dose once"):
        write_samples("mr", [tmp_path / "a", tmp_path / "a"], [1.0, 1.0], slices=1, size=64)
