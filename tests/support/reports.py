"""What tests of the reports share: scored simulated series, headers made wrong, the validator, walks through a content tree."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage

from node.report.context import RenderContext
from node.report.source_header import SourceHeader
from qa_engine.assessment import Assessment

SR_CLASSES = {"comprehensive-3d": "Comprehensive3DSR", "comprehensive": "ComprehensiveSR", "enhanced": "EnhancedSR", "basic-text": "BasicTextSR"}
"""Our name of a class -> what dciodvfy calls it."""
CAPTURE = "SCImage"


@dataclass(frozen=True, eq=False)
class Scored:
    """A series with what the engine and the header reader made of it."""

    files: list[Path]
    assessment: Assessment
    source: SourceHeader


def context(**more: Any) -> RenderContext:
    """Stored facts of a rendering."""
    facts: dict[str, Any] = {"node_id": "0f" * 16, "node_name": "node", "version": "0.1.0", "revision": 1,
                             "made_at": datetime(2024, 3, 5, 10, 11, 12, tzinfo=UTC), "content_digest": "c" * 64, "model_digest": "d" * 64}
    return RenderContext(**facts | more)


def validate(data: bytes, iod: str, folder: Path) -> list[str]:
    """Lines of dciodvfy that begin with "Error"; it must have taken the file for an `iod`."""
    file = folder / "validated.dcm"
    file.write_bytes(data)
    done = subprocess.run(["dciodvfy", str(file)], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    assert iod in lines, lines[:5]
    return [line for line in lines if line.startswith("Error")]


def put_bytes(ds: Dataset, keyword: str, value: bytes) -> None:
    """Set an attribute to bytes that no library has looked at."""
    value += b" " * (len(value) % 2)
    tag = Tag(tag_for_keyword(keyword))
    ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def changed(files: Sequence[Path], folder: Path, change: Callable[[Dataset], None], pixels: bool = False) -> list[Path]:
    """Headers of `files` with `change` made in each, written below `folder`; with their pixel data where wanted."""
    found = []
    for k, file in enumerate(files):
        ds = pydicom.dcmread(file, stop_before_pixels=not pixels)
        change(ds)
        ds.set_original_encoding(False, True, ds._character_set)  # else pydicom encodes anew what `put_bytes` has set
        found.append(folder / f"{k}.dcm")
        ds.save_as(found[-1], enforce_file_format=True)
    return found


def walk(item: Dataset) -> Iterator[tuple[Dataset, Dataset]]:
    """(item, parent) of every content item below `item`."""
    for child in item.get("ContentSequence", []):
        yield child, item
        yield from walk(child)


def name_of(item: Dataset) -> str:
    """The meaning of the concept name."""
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if "ConceptNameCodeSequence" in item else ""


def groups_of(report: Dataset) -> dict[str, Dataset]:
    """Measurement groups by their tracking identifier."""
    return {next(str(c.TextValue) for c in item.ContentSequence if name_of(c) == "Tracking Identifier"): item
            for item, _ in walk(report) if name_of(item) == "Measurement Group"}


def numbers_of(group: Dataset) -> dict[str, float]:
    """Values of the NUM items of a group by the meaning of their names."""
    return {name_of(item): float(item.MeasuredValueSequence[0].NumericValue) for item in group.ContentSequence if item.ValueType == "NUM"}


def texts_of(item: Dataset, name: str) -> list[str]:
    """TEXT values below `item` with that name."""
    return [str(i.TextValue) for i, _ in walk(item) if i.ValueType == "TEXT" and name_of(i) == name]


def codes_of(item: Dataset, name: str) -> list[tuple[str, str]]:
    """(value, meaning) of the CODE items of that name below `item`."""
    return [(str(c.CodeValue), str(c.CodeMeaning)) for i, _ in walk(item) if i.ValueType == "CODE" and name_of(i) == name
            for c in i.ConceptCodeSequence]


def code_items(ds: Dataset) -> Iterator[Dataset]:
    """Every code sequence item of a data set, at any depth."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                if "CodeMeaning" in item:
                    yield item
                yield from code_items(item)


def enhanced_mr(files: Iterable[Path]) -> Dataset:
    """The images of a classic MR series as one Enhanced MR object with the functional groups that a reader needs (PS3.3 A.36)."""
    images = [pydicom.dcmread(f) for f in files]
    first, series = images[0], images[0].SeriesInstanceUID
    ds = Dataset()
    ds.update(first)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SliceLocation",
                    "RepetitionTime", "EchoTime", "EchoTrainLength", "FlipAngle", "NumberOfAverages", "PixelBandwidth", "ScanningSequence",
                    "SequenceVariant", "ScanOptions", "EchoNumbers", "ImagingFrequency"):
        del ds[keyword]
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedMRImageStorage, f"{series[:50]}.9"
    ds.SeriesInstanceUID = f"{series[:50]}.8"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = first.file_meta.TransferSyntaxUID
    ds.ImageType = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    ds.NumberOfFrames = len(images)
    ds.SharedFunctionalGroupsSequence = [_groups(
        PixelMeasuresSequence={"PixelSpacing": first.PixelSpacing, "SliceThickness": first.SliceThickness,
                               "SpacingBetweenSlices": first.SpacingBetweenSlices},
        PlaneOrientationSequence={"ImageOrientationPatient": first.ImageOrientationPatient},
        MRTimingAndRelatedParametersSequence={"RepetitionTime": first.RepetitionTime, "FlipAngle": first.FlipAngle, "EchoTrainLength": 1},
        MREchoSequence={"EffectiveEchoTime": float(first.EchoTime)}, MRAveragesSequence={"NumberOfAverages": first.NumberOfAverages},
        MRImagingModifierSequence={"PixelBandwidth": first.PixelBandwidth, "TransmitterFrequency": float(first.ImagingFrequency)})]
    ds.PerFrameFunctionalGroupsSequence = [
        _groups(PlanePositionSequence={"ImagePositionPatient": image.ImagePositionPatient},
                FrameContentSequence={"StackID": "1", "InStackPositionNumber": k, "DimensionIndexValues": [1, k]})
        for k, image in enumerate(images, 1)]
    ds.PixelData = b"".join(image.PixelData for image in images)
    return ds


def _groups(**sequences: dict[str, Any]) -> Dataset:
    found = Dataset()
    for keyword, values in sequences.items():
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        setattr(found, keyword, [item])
    return found
