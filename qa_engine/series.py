"""Files of one series -> Reading: headers first, then geometry, then pixels in physical units. Hostile input ends in a reason, never raises."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from qa_engine.acquisition import read_acquisition
from qa_engine.assessment import Finding, SeriesFacts
from qa_engine.decode import DecodeError, Decoder
from qa_engine.eligibility import image_type, ineligible, series_reason
from qa_engine.frames import Frame, frames_of, physical_frame
from qa_engine.geometry import end_letters, missing_slices, orientation_word, slice_normal, split_stacks, tilt_degrees
from qa_engine.header import find, integer, raw, text
from qa_engine.outcome import Reason
from qa_engine.volume import FrameRef, Reading, Volume

MAX_FILES = 100_000
MAX_VOLUME_VALUES = 2 ** 30
TILT_DEGREES = 1.0
FORM_ONE_STACK = 0.5
"""Least share of a series' frames that the largest group of one geometry must hold."""
log = logging.getLogger("qa_engine.series")


@dataclass(frozen=True)
class Rejected:
    """A file that belongs to no series, and why."""

    file: Path
    reason: str


def _header(path: Path) -> Dataset | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except Exception:  # whatever a parser says of a hostile file, it is not readable
            return None


def files_below(paths: Iterable[Path]) -> list[Path]:
    """All files of the given files and folders, sorted, links not followed."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders.sort()
                found += [Path(folder) / name for name in sorted(names)]
        else:
            found.append(path)
    return found


def group_files(paths: Iterable[Path]) -> tuple[list[list[Path]], list[Rejected]]:
    """Files by study and series in order of first appearance, and those that belong to none."""
    series: dict[tuple[str, str], list[Path]] = defaultdict(list)
    rejected: list[Rejected] = []
    for path in files_below(paths):
        if not path.is_file():
            rejected.append(Rejected(path, "no such file" if not path.exists() else "not a file"))
            continue
        ds = _header(path)
        uid = "" if ds is None else text(raw(ds, "SeriesInstanceUID"))
        if ds is None or not text(raw(ds, "SOPClassUID")):
            media = ds is not None and text(getattr(ds, "file_meta", Dataset()).get("MediaStorageSOPClassUID")) == "1.2.840.10008.1.3.10"
            rejected.append(Rejected(path, "a DICOMDIR, not an object" if media else "not a DICOM object"))
        elif not uid or not text(raw(ds, "SOPInstanceUID")):
            rejected.append(Rejected(path, "no Series or SOP Instance UID"))
        else:
            series[(text(raw(ds, "StudyInstanceUID")), uid)].append(path)
    return list(series.values()), rejected


def _facts(ds: Dataset, **more: object) -> SeriesFacts:
    def words(keyword: str) -> str:
        return text(raw(ds, keyword))

    return SeriesFacts(study_uid=words("StudyInstanceUID"), series_number=integer(raw(ds, "SeriesNumber")), protocol=words("ProtocolName"),
                       body_part=words("BodyPartExamined"), manufacturer=words("Manufacturer"),
                       manufacturer_model=words("ManufacturerModelName"), station=words("StationName"),
                       device_serial=words("DeviceSerialNumber"), series_date=words("SeriesDate"), **more)  # type: ignore[arg-type]


def _hints(ds: Dataset) -> dict[str, str]:
    names = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName", "Manufacturer", "ManufacturerModelName",
             "SequenceName", "ScanningSequence", "RequestedProcedureDescription")
    found = {name: text(raw(ds, name)) for name in names}
    anatomy = find(ds, "CodeMeaning", "AnatomicRegionSequence", frame=0)
    for group in (raw(ds, "SharedFunctionalGroupsSequence") or [])[:1]:
        region = find(group, "AnatomicRegionSequence", "FrameAnatomySequence")
        if region:
            anatomy = raw(region[0], "CodeMeaning")
    return found | {"ImageType": "\\".join(image_type(ds)), "AnatomicRegion": text(anatomy)}


def read_series(files: Sequence[Path], decoder: Decoder) -> Reading:
    """The files of one series as a Volume with its acquisition, or the reason why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read(files, decoder)


def _read(files: Sequence[Path], decoder: Decoder) -> Reading:
    headers = [(path, ds) for path in files[:MAX_FILES] if (ds := _header(path)) is not None]
    if not headers:
        return Reading("", "", len(files), None, Reason.CORRUPT_PIXEL_DATA, SeriesFacts(),
                       findings=(Finding("unreadable", "No file of the series can be read as DICOM."),))
    reasons = [ineligible(ds) for _, ds in headers]
    first = next((ds for (_, ds), reason in zip(headers, reasons, strict=True) if reason is None), headers[0][1])
    base = {"series_uid": text(raw(first, "SeriesInstanceUID")), "modality": text(raw(first, "Modality")).upper(), "instances": len(files),
            "description": text(raw(first, "SeriesDescription")), "hints": _hints(first)}
    left_out = series_reason(reasons)
    findings: list[Finding] = []
    if len(headers) < len(files):
        findings.append(Finding("unreadable", f"{len(files) - len(headers)} files of the series cannot be read as DICOM."))
    if left_out is not None:
        return Reading(volume=None, reason=left_out, facts=_facts(first), findings=tuple(findings), **base)
    for reason, count in Counter(r for r in reasons if r is not None).items():
        findings.append(Finding("left-out", f"{count} objects of the series were left out ({reason})."))
    usable = [pair for pair, reason in zip(headers, reasons, strict=True) if reason is None]
    acquisition = read_acquisition([ds for _, ds in usable])
    findings += acquisition.findings
    frames = [frame for path, ds in usable for frame in frames_of(path, ds)]
    stack, more, reason = _stack(frames)
    findings += more
    if reason is not None:
        return Reading(volume=None, reason=reason, facts=_facts(first), acquisition=acquisition, findings=tuple(findings), **base)
    try:
        volume, more = _volume(stack, base["modality"], decoder)
    except DecodeError as error:
        return Reading(volume=None, reason=error.reason, facts=_facts(first), acquisition=acquisition,
                       findings=(*findings, Finding(str(error.reason), f"{error.text[:1].upper()}{error.text[1:]}.")), **base)
    facts = _facts(first, stack_size=len(stack), orientation=orientation_word(volume.orientation), ends=end_letters(volume.orientation))
    return Reading(volume=volume, reason=None, facts=facts, acquisition=acquisition, findings=(*findings, *more), **base)


def _stack(frames: list[Frame]) -> tuple[list[Frame], list[Finding], Reason | None]:
    """The frames of the largest full stack, sorted along the normal; findings about the others."""
    findings: list[Finding] = []
    groups: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.geometry_key()].append(frame)
    chosen = max(groups.values(), key=len)
    if len(chosen) < FORM_ONE_STACK * len(frames) and len(frames) > 1:
        return [], [Finding("mixed-geometry", f"The images have {len(groups)} different sizes or orientations.")], Reason.MIXED_GEOMETRY
    if len(chosen) < len(frames):
        findings.append(Finding("other-geometry", f"{len(frames) - len(chosen)} images of another size or orientation were left out."))
    if chosen[0].spacing_mm is None:
        findings.append(Finding("pixel-spacing-absent", "Pixel Spacing is missing or absurd; 1 mm was assumed."))
    located = [f for f in chosen if f.position is not None and f.orientation is not None]
    if len(located) < len(chosen):
        if len(chosen) > 1:
            findings.append(Finding("position-absent", f"{len(chosen) - len(located)} images have no usable position; they were left out."))
        if len(located) < max(1, FORM_ONE_STACK * len(chosen)):
            if len(chosen) == 1:
                return chosen, findings[:-1] if findings and findings[-1].code == "position-absent" else findings, None
            return [], findings, Reason.MIXED_GEOMETRY
    places = [f.place() for f in located]
    stacks = split_stacks(places, [f.instance_number if f.instance_number is not None else k for k, f in enumerate(located)])
    if len(stacks) > 1:
        sizes = ", ".join(str(len(s)) for s in stacks[:8])
        findings.append(Finding("several-stacks", f"The series holds {len(stacks)} stacks of {sizes} images; the first was judged."))
    return [located[k] for k in stacks[0]], findings, None


def _volume(stack: list[Frame], modality: str, decoder: Decoder) -> tuple[Volume, list[Finding]]:
    """Decode the frames of a stack, file by file; DecodeError."""
    rows, columns = stack[0].rows, stack[0].columns
    if len(stack) * max(rows, 1) * max(columns, 1) > MAX_VOLUME_VALUES:
        raise DecodeError(Reason.OVER_LIMIT, f"{len(stack)} images of {rows} x {columns} pixels are more than the node holds at once")
    pixels: np.ndarray | None = None
    valid: np.ndarray | None = None
    by_file: dict[Path, list[int]] = defaultdict(list)
    for k, frame in enumerate(stack):
        by_file[frame.file].append(k)
    findings: list[Finding] = []
    for path, places in by_file.items():
        decoded = decoder.read(path).pixels
        for k in places:
            frame = stack[k]
            if frame.index >= len(decoded) or decoded.shape[1:] != (rows, columns):
                raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "the decoded pixels do not have the described size")
            values, inside = physical_frame(decoded[frame.index], frame, modality)
            if pixels is None or valid is None:
                pixels, valid = np.empty((len(stack), rows, columns), np.float32), np.ones((len(stack), rows, columns), bool)
            pixels[k], valid[k] = values, inside
    assert pixels is not None and valid is not None
    if stack[0].inverted:
        findings.append(Finding("monochrome1", "The images are stored as MONOCHROME1."))
    if any(frame.rescale_note for frame in stack):
        findings.append(Finding("rescale", next(f.rescale_note for f in stack if f.rescale_note)))
    orientation = stack[0].orientation
    positions = np.array([f.place() for f in stack]) if orientation is not None and stack[0].position is not None else None
    missing: list[float] = []
    if positions is not None and len(stack) > 1:
        missing = missing_slices(positions.tolist(), [f.instance_number if f.frame is None else None for f in stack])
        tilt = tilt_degrees(orientation, np.array([f.position for f in stack]))  # type: ignore[arg-type]
        if modality == "CT" and tilt > TILT_DEGREES:
            findings.append(Finding("gantry-tilt", f"The slices are tilted by {tilt:.1f} degrees against the direction of the table."))
    if missing:
        findings.append(Finding("missing-slices", f"{len(missing)} of {len(stack) + len(missing)} slices are missing."))
    normal = None if orientation is None else tuple(float(v) for v in slice_normal(orientation))
    volume = Volume(modality, pixels, "[hnsf'U]" if modality == "CT" else "1", stack[0].spacing_mm or (1.0, 1.0), positions, normal,
                    orientation, tuple(FrameRef(f.file, f.sop_class_uid, f.sop_uid, f.frame, f.instance_number) for f in stack),
                    None if valid.all() else valid, stack[0].thickness_mm, tuple(missing))
    return volume, findings
