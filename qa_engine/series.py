"""Files of one series -> Reading: headers first, then geometry, then pixels in physical units. Hostile input ends in a reason, never raises."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from qa_engine.acquisition import read_acquisition
from qa_engine.assessment import Finding, SeriesFacts
from qa_engine.decode import DecodeError, Decoder
from qa_engine.eligibility import image_type, ineligible, series_reason
from qa_engine.frames import Frame, frames_of
from qa_engine.geometry import end_letters, missing_slices, orientation_word, slice_normal, split_stacks, tilt_degrees
from qa_engine.header import groups, integer, items, raw, read_header, text
from qa_engine.outcome import Reason
from qa_engine.pixels import stack_pixels
from qa_engine.volume import FrameRef, Reading, Volume

MAX_FILES = 100_000
MAX_VOLUME_VALUES = 2 ** 30
DICOMDIR = "1.2.840.10008.1.3.10"
TILT_DEGREES = 1.0
MOST_GEOMETRIES = 100
FORM_ONE_STACK = 0.5
"""Least share of a series' frames that the largest group of one geometry must hold."""
log = logging.getLogger("qa_engine.series")


@dataclass(frozen=True)
class Rejected:
    """A file that belongs to no series, and why."""

    file: Path
    reason: str


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the DICOM library quotes the values that it finds odd, also when they are looked at later
        return _grouped(paths)


def _grouped(paths: Iterable[Path]) -> tuple[list[list[Path]], list[Rejected]]:
    series: dict[tuple[str, str], list[Path]] = defaultdict(list)
    rejected: list[Rejected] = []
    for path in files_below(paths):
        if not path.is_file():
            rejected.append(Rejected(path, "no such file" if not path.exists() else "not a file"))
            continue
        ds = read_header(path)
        uid = "" if ds is None else text(raw(ds, "SeriesInstanceUID"))
        if ds is None or not text(raw(ds, "SOPClassUID")):
            media = ds is not None and text(raw(getattr(ds, "file_meta", None) or Dataset(), "MediaStorageSOPClassUID")) == DICOMDIR
            readable = os.access(path, os.R_OK)
            rejected.append(Rejected(path, "a DICOMDIR, not an object" if media else "not a DICOM object" if readable else "cannot be read"))
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
    anatomy = next((raw(item, "CodeMeaning") for group in groups(ds, 0) for holder in (group, *items(group, "FrameAnatomySequence"))
                    for item in items(holder, "AnatomicRegionSequence")), None)
    return found | {"ImageType": "\\".join(image_type(ds)), "AnatomicRegion": text(anatomy)}


def read_series(files: Sequence[Path], decoder: Decoder) -> Reading:
    """The files of one series as a Volume with its acquisition, or the reason why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read(files, decoder)


def _read(files: Sequence[Path], decoder: Decoder) -> Reading:
    headers = [(path, ds) for path in files[:MAX_FILES] if (ds := read_header(path)) is not None]
    if not headers:
        return Reading("", "", len(files), None, Reason.CORRUPT_PIXEL_DATA, SeriesFacts(),
                       findings=(Finding("unreadable", "No file of the series can be read as DICOM."),))
    findings: list[Finding] = []
    if len(headers) < len(files):
        findings.append(Finding("unreadable", f"{len(files) - len(headers)} files of the series cannot be read as DICOM."))
    distinct = {text(raw(ds, "SOPInstanceUID")) or str(path): (path, ds) for path, ds in reversed(headers)}
    if len(distinct) < len(headers):
        findings.append(Finding("repeated-instance", f"{len(headers) - len(distinct)} files repeat a SOP Instance UID; the first of each was judged."))
    instances, headers = len(files) - len(headers) + len(distinct), list(distinct.values())[::-1]
    reasons = [ineligible(ds) for _, ds in headers]
    eligible = [pair for pair, reason in zip(headers, reasons, strict=True) if reason is None]
    modalities = Counter(text(raw(ds, "Modality")).upper() for _, ds in eligible or headers)
    modality = modalities.most_common(1)[0][0]
    usable = [(path, ds) for path, ds in eligible if text(raw(ds, "Modality")).upper() == modality]
    first = (usable or headers)[0][1]
    base = {"series_uid": text(raw(first, "SeriesInstanceUID")), "modality": modality, "instances": instances,
            "description": text(raw(first, "SeriesDescription")), "hints": _hints(first)}
    left_out = series_reason(reasons)
    if left_out is not None:
        return Reading(volume=None, reason=left_out, facts=_facts(first), findings=tuple(findings), **base)
    for reason, count in Counter(r for r in reasons if r is not None).items():
        findings.append(Finding("left-out", f"{count} objects of the series were left out ({reason})."))
    if len(usable) < len(eligible):
        findings.append(Finding("left-out", f"{len(eligible) - len(usable)} objects of another modality were left out."))
    frames = [frame for path, ds in usable for frame in frames_of(path, ds)]
    stack, more, no_stack = _stack(frames)
    findings += more
    of_file = dict(usable)
    acquisition = read_acquisition([(of_file[f.file], None if f.frame is None else f.index) for f in stack or frames],
                                   [f.place() for f in stack if f.located])
    findings += acquisition.findings
    base |= {"acquisition": acquisition}
    if no_stack is not None:
        return Reading(volume=None, reason=no_stack, facts=_facts(first), findings=tuple(findings), **base)
    numbers = {integer(raw(ds, "InstanceNumber")) for _, ds in headers} - {f.instance_number for f in stack}
    try:
        volume, more = _volume(stack, modality, numbers - {None}, of_file, decoder)  # type: ignore[arg-type]
    except DecodeError as error:
        return Reading(volume=None, reason=error.reason, facts=_facts(first),
                       findings=(*findings, Finding(str(error.reason), f"{error.text[:1].upper()}{error.text[1:]}.")), **base)
    facts = _facts(first, stack_size=len(stack), orientation=orientation_word(volume.orientation), ends=end_letters(volume.orientation))
    return Reading(volume=volume, reason=None, facts=facts, findings=(*findings, *more), **base)


def _of_one_geometry(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames that can lie in one stack together."""
    found: list[list[Frame]] = []
    for frame in frames:
        # hundreds of orientations form no stack; the last group is tried first, since images come in runs
        group = next((g for g in (*found[-1:], *found[:MOST_GEOMETRIES]) if g[0].fits(frame)), None)
        if group is None:
            found.append([frame])
        else:
            group.append(frame)
    return found


def _stack(frames: list[Frame]) -> tuple[list[Frame], list[Finding], Reason | None]:
    """The frames of the largest full stack, sorted along the normal; findings about the others, and why there is no stack."""
    findings: list[Finding] = []
    geometries = _of_one_geometry(frames)
    chosen = max(geometries, key=len)
    if len(chosen) < FORM_ONE_STACK * len(frames):
        return [], [Finding("mixed-geometry", f"The images have {len(geometries)} different sizes or orientations.")], Reason.MIXED_GEOMETRY
    if len(chosen) < len(frames):
        findings.append(Finding("other-geometry", f"{len(frames) - len(chosen)} images of another size or orientation were left out."))
    if len(chosen) > 1:
        located = [f for f in chosen if f.located]
        if len(located) < len(chosen):
            findings.append(Finding("position-absent", f"{len(chosen) - len(located)} images have no usable position."))
        if len(located) < FORM_ONE_STACK * len(chosen):
            return [], findings, Reason.MIXED_GEOMETRY
        stacks = split_stacks([f.place() for f in located],
                              [f.instance_number if f.instance_number is not None else k for k, f in enumerate(located)])
        chosen = [located[k] for k in stacks[0]]
        if len(stacks) > 1:
            sizes = ", ".join(str(len(s)) for s in stacks[:8])
            findings.append(Finding("several-stacks", f"The series holds {len(stacks)} stacks of {sizes} images; the first was judged."))
    if chosen[0].spacing_mm is None:
        # without the size of a pixel neither noise nor sharpness means anything
        findings.append(Finding("pixel-spacing-absent", "Pixel Spacing is missing or absurd: nothing in the images has a size."))
        return chosen, findings, Reason.OUTSIDE_ENVELOPE
    return chosen, findings, None


def _volume(stack: list[Frame], modality: str, other_numbers: set[int], headers: Mapping[Path, Dataset],
            decoder: Decoder) -> tuple[Volume, list[Finding]]:
    """Decode the frames of a stack, file by file; DecodeError. other_numbers: Instance Numbers of the images that are not in the stack."""
    rows, columns = stack[0].rows, stack[0].columns
    if any(frame.rescale_unusable for frame in stack):
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "Rescale Slope or Intercept is zero, absurd or no number")
    if len(stack) * max(rows, 1) * max(columns, 1) > MAX_VOLUME_VALUES:
        raise DecodeError(Reason.OVER_LIMIT, f"{len(stack)} images of {rows} x {columns} pixels are more than the node holds at once")
    pixels, valid = stack_pixels(stack, modality, headers, decoder)
    findings: list[Finding] = []
    if stack[0].inverted:
        if modality == "MR":  # HU are HU, but a signal stored as MONOCHROME1 grows towards black
            pixels = np.where(True if valid is None else valid, pixels.max() - pixels, 0.0).astype(np.float32)
        findings.append(Finding("monochrome1", "The images are stored as MONOCHROME1."))
    orientation = stack[0].orientation
    positions = np.array([f.place() for f in stack]) if stack[0].located else None
    missing: list[float] = []
    if positions is not None and len(stack) > 1:
        missing = missing_slices(positions.tolist(), [f.instance_number if f.frame is None else None for f in stack], other_numbers)
        tilt = tilt_degrees(orientation, np.array([f.position for f in stack]))  # type: ignore[arg-type]
        if modality == "CT" and tilt > TILT_DEGREES:
            findings.append(Finding("gantry-tilt", f"The slices are tilted by {tilt:.1f} degrees against the direction of the table."))
    if missing:
        findings.append(Finding("missing-slices", f"{len(missing)} of {len(stack) + len(missing)} slices are missing."))
    normal = None if orientation is None else tuple(float(v) for v in slice_normal(orientation))
    volume = Volume(modality, pixels, "[hnsf'U]" if modality == "CT" else "1", stack[0].spacing_mm, positions, normal,
                    orientation, tuple(FrameRef(f.file, f.sop_class_uid, f.sop_uid, f.frame, f.instance_number) for f in stack),
                    valid, stack[0].thickness_mm, tuple(missing))
    return volume, findings
