"""Acquisition parameters of the real scans against tables written by hand from `dcmdump` (acquisition_tables.csv): name, value, unit, reason.

Where a value differs over the images of a series (tube current of ct_abdomen, ct_head_tilt and the head phantom) the table holds the middle
one of the recorded values, the lower of two. Products of current and time are those of each image, the middle one again.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from qa_engine.decode import DecodedFile, DecodeError, Decoder
from qa_engine.outcome import Reason
from qa_engine.series import read_series
from qa_engine.volume import Reading
from tests.support.data import data_folder

pytestmark = pytest.mark.data

TABLE = Path(__file__).with_name("acquisition_tables.csv")
FINDINGS = {
    "ct_abdomen": {"Exposure says 42 mAs; tube current times exposure time is 265 mAs, by pitch 282.7 mAs."},
    "ct_head_tilt": {"XRayTubeCurrent varies from 160 to 180 mA.", "SliceThickness varies from 4 to 7 mm.",
                     "The distance of the slices varies from 1.08 to 7.00 mm."},
    "ct_headphantom_kernel_ub": {"XRayTubeCurrent varies from 92 to 117 mA.", "Exposure varies from 118 to 150 mA.s.",
                                 "CTDIvol varies from 15.156 to 19.2661 mGy."},
    "wrist-t1-ge-1p5t": {"MagneticFieldStrength is left out: not plausible (15015)."},
}
FINDINGS["ct_headphantom_kernel_ya"] = FINDINGS["ct_headphantom_kernel_ub"]


def tables() -> dict[str, dict[str, tuple[str, str, str]]]:
    """series -> name -> (value, unit, why absent)"""
    found: dict[str, dict[str, tuple[str, str, str]]] = {}
    with TABLE.open(encoding="utf-8") as f:
        for row in csv.DictReader(f):
            found.setdefault(row["series"], {})[row["name"]] = (row["value"], row["unit"], row["absent"])
    return found


class NoPixels(Decoder):
    """Headers alone tell the acquisition, also of what cannot be decoded."""

    def read(self, path: Path) -> DecodedFile:
        raise DecodeError(Reason.NO_DECODER, "none")


@cache
def reading(series: str) -> Reading:
    return read_series(sorted(p for p in (data_folder() / "series" / series).iterdir() if p.is_file()), NoPixels())


def as_told(value: object) -> object:
    """Numbers to six digits."""
    try:
        return float(f"{float(str(value)):.6g}")
    except ValueError:
        return value


@pytest.mark.parametrize("series", tables())
def test_every_parameter_is_as_the_dump_says(series: str) -> None:
    found = reading(series).acquisition
    told = {name: (as_told(q.value), q.unit, "") for name, q in found.values.items()} | {name: ("", "", why) for name, why in found.absent.items()}
    assert set(found.values) & set(found.absent) == set()
    assert told == {name: (as_told(value), unit, why) for name, (value, unit, why) in tables()[series].items()}
    assert {f.text for f in found.findings} == FINDINGS.get(series, set())


def test_every_series_has_a_table_unless_its_modality_is_not_scored() -> None:
    series = {p.name for p in (data_folder() / "series").iterdir() if p.is_dir()}
    assert series - set(tables()) == {"pet_wholebody"}
    assert reading("pet_wholebody").acquisition.values == {}


def test_the_exposure_that_agrees_with_nothing_is_kept_as_recorded() -> None:
    found = reading("ct_abdomen").acquisition
    assert found.values["Exposure"].value == 42 and "ExposureMeaning" not in found.values
    assert [f.code for f in found.findings] == ["exposure-disagrees"]
