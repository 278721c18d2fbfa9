"""Simulated patients as classic DICOM series (PS3.3 A.3, A.4): valid, plausible, and saying everywhere that they are simulated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from qa_engine.simulation import patient_ct, patient_mr

MANUFACTURER = "MedIQA Node simulation"
KINDS = ("ct", "mr")
KERNELS = {"hann": "B30f", "cosine": "B40f", "shepp-logan": "B50f", "ramp": "B60f"}
"""Reconstruction kernel -> Convolution Kernel that a scanner might call it."""
CURRENT_MA, TIME_MS = 320.0, 500.0
"""Tube current and exposure time of the full dose: 160 mAs."""
IMPLEMENTATION_UID = "2.25.188370284563907114830241763450925817365"
GENERATION = "2"
"""Part of every UID: raised with each change of the patients, so that other pixels never come under an old UID."""


@dataclass(frozen=True)
class SampleInfo:
    """What was written."""

    folder: Path
    kind: str
    dose: float
    files: int
    series_uid: str


def _uid(*words: object) -> str:
    """The UID that belongs to these words and this generation (PS3.5 B.2)."""
    digest = hashlib.sha256("/".join(map(str, (GENERATION, *words))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big') >> 2}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch with one thread: the steps are many and small, and threads would wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def simulate_arrays(kind: str, doses: Sequence[float], *, slices: int = 20, size: int = 256, views: int = 360, seed: int = 0,
                    kernel: str = "shepp-logan", progress: Callable[[str], None] = lambda stage: None) -> list[np.ndarray]:
    """Images (S,size,size) float32 per dose, HU or MR signal; anatomy and projection are computed once for all doses."""
    if kind not in KINDS:
        raise ValueError(f"a simulated patient is {' or '.join(KINDS)}, not {kind}")
    with _one_thread():
        progress("anatomy")
        if kind == "mr":
            signal = patient_mr.anatomy(slices, size, seed)
            return [patient_mr.scan(signal, dose, seed).numpy() for dose in doses]
        hu = patient_ct.anatomy(slices, size, seed)
        progress("projection")
        projections = patient_ct.project_patient(hu, views)
        found = []
        for dose in doses:
            progress(f"reconstruction at dose {dose:g}")
            found.append(patient_ct.scan(projections, dose, kernel, seed, size).numpy())
        return found


def write_samples(kind: str, folders: Sequence[Path], doses: Sequence[float], *, slices: int = 20, size: int = 256, views: int = 360,
                  seed: int = 0, kernel: str = "shepp-logan", progress: Callable[[str], None] = lambda stage: None) -> list[SampleInfo]:
    """One series per dose of one simulated patient, all in one study. ValueError for impossible arguments."""
    _check(kind, folders, doses, slices, size, views, seed, kernel)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        left = {f.name for f in folder.glob("*.dcm")} - {_file_name(k) for k in range(slices)}
        if left:
            raise ValueError(f"{folder} holds other images ({min(left)}), name an empty folder")
    arrays = simulate_arrays(kind, doses, slices=slices, size=size, views=views, seed=seed, kernel=kernel, progress=progress)
    found = []
    for number, (folder, dose, images) in enumerate(zip(folders, doses, arrays, strict=True), 1):
        series_uid = _uid("series", kind, seed, dose, slices, size, views, kernel)
        for k, image in enumerate(images):
            _dataset(kind, image, k, slices, dose, seed, kernel, series_uid, number).save_as(folder / _file_name(k), enforce_file_format=True)
        found.append(SampleInfo(folder, kind, dose, slices, series_uid))
    return found


def _check(kind: str, folders: Sequence[Path], doses: Sequence[float], slices: int, size: int, views: int, seed: int, kernel: str) -> None:
    """ValueError in one line for what cannot be simulated."""
    if kind not in KINDS:
        raise ValueError(f"a simulated patient is {' or '.join(KINDS)}, not {kind}")
    if any(not 0.005 <= dose <= 10 for dose in doses):
        raise ValueError("a dose is a share of the full one, from 0.005 to 10")
    if len(set(folders)) < len(folders):
        raise ValueError("each dose once")
    if not 1 <= slices <= 500 or not 64 <= size <= 1024 or not 60 <= views <= 2000 or not 0 <= seed <= 999_999 or kernel not in KERNELS:
        raise ValueError("slices 1 to 500, size 64 to 1024, views 60 to 2000, seed 0 to 999999, kernel " + ", ".join(KERNELS))


def _file_name(k: int) -> str:
    return f"{k + 1:04d}.dcm"


def write_sample(kind: str, folder: Path, dose: float = 1.0, slices: int = 20, size: int = 256, seed: int = 0, kernel: str = "shepp-logan",
                 views: int = 360) -> SampleInfo:
    """One simulated series; see `write_samples`."""
    return write_samples(kind, [folder], [dose], slices=slices, size=size, seed=seed, kernel=kernel, views=views)[0]


def _dataset(kind: str, image: np.ndarray, k: int, slices: int, dose: float, seed: int, kernel: str, series_uid: str, number: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage if kind == "ct" else MRImageStorage
    ds.SOPInstanceUID = _uid("instance", series_uid, k)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid("study", kind, seed), series_uid
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid("frame", kind, seed), ""
    ds.PatientName, ds.PatientID = f"SIMULATED^{'CHEST' if kind == 'ct' else 'HEAD'} {seed}", f"SIM-{kind.upper()}-{seed:04d}"
    ds.PatientBirthDate, ds.PatientSex, ds.ReferringPhysicianName, ds.AccessionNumber = "", "O", "", ""
    ds.StudyID, ds.StudyDate, ds.StudyTime = "SIM", "20260101", "120000"
    ds.SeriesDate, ds.SeriesTime, ds.AcquisitionDate, ds.AcquisitionTime = "20260101", "120000", "20260101", "120000"
    ds.ContentDate, ds.ContentTime = "20260101", "120000"
    ds.StudyDescription = "SIMULATED PATIENT"
    share = "" if dose == 1 else f" {dose:g} of the {'dose' if kind == 'ct' else 'signal'}"
    ds.Manufacturer, ds.ManufacturerModelName, ds.StationName = MANUFACTURER, "simulated scanner", f"SIM{kind.upper()}1"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", "1"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = number, k + 1, 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if kind == "ct" else "OTHER"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    patient = patient_ct if kind == "ct" else patient_mr
    pixel, spacing = patient.FIELD_MM / image.shape[0], round(patient.spacing_mm(slices), 4)
    corner = round(-patient.FIELD_MM / 2 + pixel / 2, 4)
    ds.ImagePositionPatient = [corner, corner, round(k * spacing, 4)]
    ds.SliceLocation, ds.SliceThickness, ds.PixelSpacing = round(k * spacing, 4), patient.THICKNESS_MM, [round(pixel, 6)] * 2
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *image.shape, 1, "MONOCHROME2"
    ds.BitsAllocated = 16
    if kind == "ct":
        _ct_attributes(ds, dose, kernel, share)
        stored = np.clip(np.round(image) + 1024, 0, 4095).astype(np.uint16)
    else:
        _mr_attributes(ds, share, spacing)
        stored = np.clip(np.round(image), 0, 4095).astype(np.uint16)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    return ds


def _ct_attributes(ds: Dataset, dose: float, kernel: str, share: str) -> None:
    ds.Modality, ds.BodyPartExamined, ds.ProtocolName = "CT", "CHEST", "Simulated chest"
    ds.SeriesDescription = f"Chest {KERNELS[kernel]} simulated{share}"[:64]
    ds.PatientPosition = "HFS"
    mas = CURRENT_MA * dose * TIME_MS / 1000
    ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime, ds.RevolutionTime = 120, max(1, round(CURRENT_MA * dose)), round(TIME_MS), TIME_MS / 1000
    ds.Exposure, ds.ExposureInuAs = max(1, round(mas)), round(mas * 1000)
    ds.SingleCollimationWidth, ds.TotalCollimationWidth, ds.TableFeedPerRotation, ds.SpiralPitchFactor = 0.6, 38.4, 38.4, 1.0
    ds.ExposureModulationType, ds.CTDIvol = "NONE", round(9.6 * dose, 3)
    phantom = Dataset()
    phantom.CodeValue, phantom.CodingSchemeDesignator, phantom.CodeMeaning = "113691", "DCM", "IEC Body Dosimetry Phantom"
    ds.CTDIPhantomTypeCodeSequence = [phantom]
    ds.ContrastBolusAgent = "SIMULATED IODINE"
    ds.ConvolutionKernel, ds.FilterType, ds.ScanOptions = KERNELS[kernel], "NONE", "HELIX"
    ds.ReconstructionDiameter, ds.DataCollectionDiameter, ds.GantryDetectorTilt = patient_ct.FIELD_MM, 500, 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400


def _mr_attributes(ds: Dataset, share: str, spacing: float) -> None:
    ds.Modality, ds.BodyPartExamined, ds.ProtocolName = "MR", "HEAD", "Simulated head T1"
    ds.SeriesDescription = f"Head T1 SE simulated{share}"[:64]
    ds.PatientPosition = "HFS"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength, ds.FlipAngle = patient_mr.TR_MS, patient_mr.TE_MS, 1, 90
    ds.MagneticFieldStrength, ds.ImagingFrequency, ds.ImagedNucleus = 1.5, 63.87, "1H"
    ds.NumberOfAverages, ds.PixelBandwidth, ds.EchoNumbers = 1, 130, 1
    ds.SpacingBetweenSlices, ds.InPlanePhaseEncodingDirection = spacing, "ROW"
    ds.WindowCenter, ds.WindowWidth = 230, 400
    ds.NumberOfPhaseEncodingSteps, ds.PercentSampling, ds.PercentPhaseFieldOfView = int(ds.Columns), 100, 100
    ds.ReceiveCoilName, ds.TransmitCoilName = "HEAD", "BODY"
    ds.AcquisitionMatrix = [int(ds.Rows), 0, 0, int(ds.Columns)]  # frequency along the columns of pixels, phase along the rows
