"""What the real scans end as: phantoms by their pixels with and without header, missing slices, and the JSON contract for each of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pydicom
import pytest
import torch

from qa_engine.assess import assess
from qa_engine.assessment import Assessment
from qa_engine.decode import Decoder
from qa_engine.model import Model, load_model
from qa_engine.outcome import Reason
from qa_engine.phantom import is_phantom
from qa_engine.training.dataset import load_training_series
from tests.support.contract import check_entry
from tests.support.data import data_folder, find_data_folder

pytestmark = [pytest.mark.data, pytest.mark.model]

PHANTOMS = ("acr-phantom-t1-ge-1p5t", "ct_headphantom_kernel_ub", "ct_headphantom_kernel_ya")
NEEDED = """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
SamplesPerPixel PhotometricInterpretation PixelSpacing ImagePositionPatient ImageOrientationPatient RescaleSlope RescaleIntercept PixelData"""
"""All that is left of a header: what decodes and places the pixels."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def model() -> Model:
    return load_model()


def files(series: str) -> list[Path]:
    return sorted(p for p in (data_folder() / "series" / series).iterdir() if p.is_file())


def expected() -> list[dict[str, str]]:
    folder = find_data_folder()
    if folder is None:
        return []
    with (folder / "series" / "expected.csv").open(encoding="utf-8") as f:
        return list(csv.DictReader(f))


def stripped(series: str, folder: Path) -> list[Path]:
    """A copy of a series without a word about patient, scanner, protocol, anatomy or order."""
    made = []
    for k, file in enumerate(files(series)):
        ds = pydicom.dcmread(file)
        for element in list(ds):
            if element.keyword not in NEEDED.split():
                del ds[element.tag]
        path = folder / f"{k:03}"
        ds.save_as(path)
        made.append(path)
    return made


@pytest.mark.parametrize("row", expected(), ids=lambda row: row["series"])
def test_every_series_ends_as_expected_and_follows_the_contract(decoder: Decoder, row: dict[str, str]) -> None:
    found = assess(files(row["series"]), model=model(), decoder=decoder)
    assert (str(found.end), str(found.reason or "")) == (row["end"], row["reason"])
    if row["region"]:
        assert (found.region or "").split(" ")[0] == row["region"]
    if row["findings_include"]:
        assert row["findings_include"] in {f.code for f in found.findings}
    check_entry(found.to_json())


@pytest.mark.parametrize("series", PHANTOMS)
def test_phantoms_are_known_without_any_word_of_the_header(decoder: Decoder, tmp_path: Path, series: str) -> None:
    found = assess(stripped(series, tmp_path), model=model(), decoder=decoder)
    assert (found.reason, found.score, found.acquisition.get("KVP")) == (Reason.PHANTOM, None, None)
    assert found.facts.manufacturer == found.facts.protocol == found.description == ""


def test_no_single_slice_of_a_phantom_is_scored(decoder: Decoder) -> None:
    for series in PHANTOMS:
        ends = [assess([file], model=model(), decoder=decoder).reason for file in files(series)[1:-1:8]]
        assert set(ends) <= {Reason.PHANTOM, Reason.OUTSIDE_ENVELOPE, Reason.UNFAMILIAR_CONTENT}, (series, ends)


@pytest.mark.parametrize(("modality", "role"), [("CT", "phantom_qa"), ("CT", "phantom_anthropomorphic"), ("MR", "phantom_qa")])
def test_every_known_test_object_is_one(modality: str, role: str) -> None:
    rows = load_training_series(data_folder(), modality, ship_only=False, role=role)
    assert rows and [r.name for r in rows if not is_phantom(r.pixels, r.spacing_mm, modality)] == []


@pytest.mark.parametrize("modality", [pytest.param("CT", marks=pytest.mark.slow), "MR"])
def test_no_patient_is_a_test_object(modality: str) -> None:
    rows = load_training_series(data_folder(), modality, ship_only=False)
    assert len(rows) >= 80 and [r.name for r in rows if is_phantom(r.pixels, r.spacing_mm, modality)] == []


def without(*lost: int) -> list[Path]:
    """ct_abdomen, 41 slices, without some of them."""
    return [file for k, file in enumerate(files("ct_abdomen")) if k not in lost]


def test_one_missing_slice_is_a_finding(decoder: Decoder) -> None:
    found = assess(without(20), model=model(), decoder=decoder)
    assert found.reason is None and [f.text for f in found.findings if f.code == "missing-slices"] == ["1 of 41 slices are missing."]


@pytest.mark.parametrize("lost", [tuple(range(18, 28)), (8, 30), (3, 9, 15, 21, 27, 33)], ids=["a quarter", "two regions", "six regions"])
def test_incomplete_series(decoder: Decoder, lost: tuple[int, ...]) -> None:
    found = assess(without(*lost), model=model(), decoder=decoder)
    assert (found.reason, found.score) == (Reason.INCOMPLETE_SERIES, None)
    assert [f.text for f in found.findings if f.code == "missing-slices"] == [f"{len(lost)} of 41 slices are missing."]
    check_entry(found.to_json())


def test_order_of_the_files_says_nothing(decoder: Decoder) -> None:
    def numbers(found: Assessment) -> tuple[object, ...]:
        return found.score, found.interval, found.slices, found.region, found.acquisition

    assert numbers(assess(files("wrist-t1-ge-1p5t"), model=model(), decoder=decoder)) == \
        numbers(assess(files("wrist-t1-ge-1p5t")[::-1], model=model(), decoder=decoder))


def test_without_a_model_of_its_own_nothing_is_scored(decoder: Decoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("qa_engine.assess.load_model", lambda profile: load_model(profile, tmp_path))
    found = assess(files("wrist-t1-ge-1p5t"), decoder=decoder)
    assert found.reason is Reason.NO_MODEL and found.score is None
    check_entry(found.to_json())
