"""Files of a series -> Volume in physical units, or the one reason why there is none (DESIGN section 5)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from qa_engine.decode import Decoder
from qa_engine.eligibility import MAPS, ineligible
from qa_engine.outcome import Reason
from qa_engine.series import read_series
from qa_engine.volume import Reading, Volume
from tests.support.series import ENHANCED_CT, ENHANCED_MR, MR, Change, axial, enhanced, file_with_raw, item, write_all
from tests.support.small_objects import CT, SC, image


def read(objects: list[Dataset], folder: Path, decoder: Decoder) -> Reading:
    return read_series(write_all(objects, folder), decoder)


def volume(reading: Reading) -> Volume:
    assert reading.volume is not None, (reading.reason, reading.findings)
    return reading.volume


def found(reading: Reading) -> dict[str, str]:
    return {f.code: f.text for f in reading.findings}


def stored(ds: Dataset, values: np.ndarray) -> None:
    """Put values (H,W) or (F,H,W) into an object."""
    ds.Rows, ds.Columns = values.shape[-2:]
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    ds.BitsAllocated = values.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = ds.BitsAllocated, ds.BitsAllocated - 1
    ds.PixelData = values.tobytes()


# geometry

def test_slices_are_sorted_along_their_normal(tmp_path: Path, decoder: Decoder) -> None:
    def backwards(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [0, 0, -5.0 * k]
        stored(ds, np.full((64, 64), 1024 + k, np.uint16))

    v = volume(read(axial(6, backwards), tmp_path, decoder))
    assert v.positions_mm is not None and v.positions_mm.tolist() == [-25, -20, -15, -10, -5, 0]
    assert v.pixels[:, 0, 0].tolist() == [5, 4, 3, 2, 1, 0] and [f.instance_number for f in v.frames] == [6, 5, 4, 3, 2, 1]
    assert v.dimension == "3D" and v.missing == () and v.valid is None and v.unit == "[hnsf'U]"


def test_a_tilted_gantry_is_told_and_its_slices_stay_as_they_are(tmp_path: Path, decoder: Decoder) -> None:
    angle = math.radians(18.5)

    def tilted(k: int, ds: Dataset) -> None:
        ds.ImageOrientationPatient = [1, 0, 0, 0, math.cos(angle), -math.sin(angle)]

    objects = axial(6, tilted)
    reading = read(objects, tmp_path, decoder)
    assert found(reading)["gantry-tilt"] == "The slices are tilted by 18.5 degrees against the direction of the table."
    for k, pixels in enumerate(volume(reading).pixels):
        assert np.array_equal(pixels, np.maximum(np.frombuffer(objects[k].PixelData, np.uint16).reshape(64, 64).astype(np.float32) - 1024, -1024))
    assert "gantry-tilt" not in found(read(axial(6, tilted, sop_class=MR), tmp_path / "mr", decoder))


@pytest.mark.parametrize(("lost", "text"), [((), None), ((7,), "1 of 20 slices are missing."), ((7, 8, 13), "3 of 20 slices are missing.")])
def test_missing_slices_are_a_finding(tmp_path: Path, decoder: Decoder, lost: tuple[int, ...], text: str | None) -> None:
    reading = read([ds for k, ds in enumerate(axial(20, rows=48)) if k not in lost], tmp_path, decoder)
    assert found(reading).get("missing-slices") == text
    assert list(volume(reading).missing) == pytest.approx([5.0 * k for k in lost])


def test_numbers_of_left_out_images_are_not_missing(tmp_path: Path, decoder: Decoder) -> None:
    def scout(k: int, ds: Dataset) -> None:
        if k in (8, 9):
            ds.ImageType = ["DERIVED", "SECONDARY", "MIP"]
        elif k > 9:
            ds.ImagePositionPatient = [0, 0, 5.0 * (k - 2)]

    reading = read(axial(20, scout, rows=48), tmp_path, decoder)
    assert volume(reading).missing == () and found(reading) == {"left-out": "2 objects of the series were left out (derived)."}


def test_the_largest_stack_is_judged_and_the_others_are_named(tmp_path: Path, decoder: Decoder) -> None:
    def b_values(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [0, 0, 4.0 * (k % 5)]

    reading = read(axial(13, b_values, sop_class=MR, rows=48), tmp_path, decoder)
    assert found(reading) == {"several-stacks": "The series holds 3 stacks of 5, 5, 3 images; the first was judged."}
    assert [f.instance_number for f in volume(reading).frames] == [1, 2, 3, 4, 5]


def test_a_cine_of_one_place_is_one_image(tmp_path: Path, decoder: Decoder) -> None:
    reading = read(axial(8, step=0.0, sop_class=MR, rows=48), tmp_path, decoder)
    assert volume(reading).dimension == "2D" and "8 stacks" in found(reading)["several-stacks"]


def turn(places: set[int]) -> Change:
    def sagittal(k: int, ds: Dataset) -> None:
        if k in places:
            ds.ImageOrientationPatient, ds.ImagePositionPatient = [0, 1, 0, 0, 0, -1], [5.0 * k, 0, 0]

    return sagittal


def test_mixed_orientations(tmp_path: Path, decoder: Decoder) -> None:
    reading = read(axial(10, turn({0, 9}), rows=48), tmp_path / "few", decoder)
    assert len(volume(reading).frames) == 8 and "2 images" in found(reading)["other-geometry"] and volume(reading).missing == ()

    def three(k: int, ds: Dataset) -> None:
        turn({0, 1, 2})(k, ds)
        if k > 5:
            ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    assert read(axial(9, three, rows=48), tmp_path / "three", decoder).reason is Reason.MIXED_GEOMETRY


def test_orientations_and_spacings_that_jitter_are_one_stack(tmp_path: Path, decoder: Decoder) -> None:
    def jitter(k: int, ds: Dataset) -> None:
        ds.ImageOrientationPatient = [1, 0.00499 + 0.00001 * k, 0, -0.00499, 1, 0]
        ds.PixelSpacing = [0.70049 + 0.00001 * k] * 2

    reading = read(axial(10, jitter, rows=48), tmp_path, decoder)
    assert len(volume(reading).frames) == 10 and reading.findings == ()


def test_a_matrix_that_differs_is_left_out(tmp_path: Path, decoder: Decoder) -> None:
    objects = axial(10, rows=48)
    stored(objects[3], np.zeros((64, 64), np.uint16))
    reading = read(objects, tmp_path, decoder)
    assert len(volume(reading).frames) == 9 and volume(reading).missing == pytest.approx((15.0,))


def test_one_slice_is_a_2d_image(tmp_path: Path, decoder: Decoder) -> None:
    assert volume(read(axial(1), tmp_path, decoder)).dimension == "2D"
    bare = axial(1)
    del bare[0].ImagePositionPatient, bare[0].ImageOrientationPatient
    reading = read(bare, tmp_path / "bare", decoder)
    assert volume(reading).positions_mm is None and reading.findings == ()


def test_images_without_positions_are_no_stack(tmp_path: Path, decoder: Decoder) -> None:
    def bare(k: int, ds: Dataset) -> None:
        del ds.ImagePositionPatient

    reading = read(axial(4, bare), tmp_path, decoder)
    assert reading.reason is Reason.MIXED_GEOMETRY and found(reading) == {"position-absent": "4 images have no usable position."}


@pytest.mark.parametrize("spacing", [None, [0, 0], [1e9, 1e9], [-1, -1], 1.0])
def test_without_pixel_spacing_there_is_no_size_to_judge(tmp_path: Path, decoder: Decoder, spacing: object) -> None:
    reading = read(axial(3, PixelSpacing=spacing), tmp_path, decoder)
    assert reading.reason is Reason.OUTSIDE_ENVELOPE and "pixel-spacing-absent" in found(reading)


# pixels

def test_rescale_of_each_slice(tmp_path: Path, decoder: Decoder) -> None:
    def slopes(k: int, ds: Dataset) -> None:
        stored(ds, np.full((64, 64), 100, np.int16))
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 * (k + 1), -10 * k

    assert volume(read(axial(3, slopes, sop_class=MR), tmp_path, decoder)).pixels[:, 9, 9].tolist() == [50, 90, 130]


def test_rescale_of_each_frame(tmp_path: Path, decoder: Decoder) -> None:
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=1)],
                  PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    ds = enhanced(ENHANCED_MR, 3, shared, lambda k: item(
        PlanePositionSequence=[item(ImagePositionPatient=[0, 0, -1.0 * k])],
        PixelValueTransformationSequence=[item(RescaleSlope=k + 1, RescaleIntercept=k, RescaleType="US")]))
    stored(ds, np.stack([np.full((64, 64), 10, np.uint16)] * 3))
    v = volume(read([ds], tmp_path, decoder))
    assert v.pixels[:, 5, 5].tolist() == [32, 21, 10] and [f.frame for f in v.frames] == [3, 2, 1]


@pytest.mark.parametrize(("slope", "intercept"), [(b"0", b"-1024"), (b"NaN", b"0"), (b"1e9", b"0"), (b"1", b"1e30"), (b"one", b"0"), (b"1\\2", b"1e99")])
def test_an_unusable_rescale_is_no_guess(tmp_path: Path, decoder: Decoder, slope: bytes, intercept: bytes) -> None:
    path = tmp_path / "a.dcm"
    for keyword, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        path.write_bytes(file_with_raw(axial(1)[0], keyword, "DS", value))
        bad = value not in (b"1", b"0", b"-1024") or (keyword, value) == ("RescaleSlope", b"0")
        assert (read_series([path], decoder).reason is Reason.INCONSISTENT_PIXEL_DESCRIPTION) == bad


@pytest.mark.parametrize(("values", "bits", "signed", "hu"), [
    ([0, 1024, 4095], 12, False, [-1024, 0, 3071]), ([0xF000, 0xF400, 0x0FFF], 12, False, [-1024, 0, 3071]),
    ([0x0800, 0x0000, 0x07FF], 12, True, [-2048, 0, 2047]), ([0x8000, 0xFFFF, 0x7FFF], 16, True, [-32768, -1, 32767]),
    ([0, 40000, 65535], 16, False, [0, 40000, 65535]),
])
def test_stored_bits_and_sign(tmp_path: Path, decoder: Decoder, values: list[int], bits: int, signed: bool, hu: list[int]) -> None:
    ds = axial(1, sop_class=MR)[0]
    array = np.zeros((64, 64), np.uint16)
    array[0, :3] = values
    stored(ds, array)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    ds.RescaleIntercept = -1024 if hu[0] == -1024 else 0
    assert volume(read([ds], tmp_path, decoder)).pixels[0, 0, :3].tolist() == hu


@pytest.mark.parametrize(("padding", "limit", "signed"), [
    (-2000, None, True), (63536, None, True), (-2000, -1990, True), (-1990, -2000, True), (0, None, False)])
def test_padding_is_air_in_ct_and_no_data(tmp_path: Path, decoder: Decoder, padding: int, limit: int | None, signed: bool) -> None:
    ds = axial(1)[0]
    array = np.full((64, 64), 1064, np.int16 if signed else np.uint16)
    array[:8] = -2000 if signed else 0
    stored(ds, array)
    for keyword, value in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
        if value is not None:
            ds.add_new(keyword, "SS" if value < 0 else "US", value)
    v = volume(read([ds], tmp_path, decoder))
    assert v.valid is not None and not v.valid[0, :8].any() and v.valid[0, 8:].all()
    assert set(v.pixels[0, :8].ravel()) == {-1024.0} and set(v.pixels[0, 8:].ravel()) == {40.0}


def test_a_padding_value_that_means_tissue_is_a_mistake(tmp_path: Path, decoder: Decoder) -> None:
    ds = axial(1)[0]
    stored(ds, np.full((64, 64), 0, np.int16))
    ds.RescaleIntercept = 0
    ds.add_new("PixelPaddingValue", "SS", 0)
    v = volume(read([ds], tmp_path, decoder))
    assert v.valid is None and (v.pixels == 0).all()


def test_monochrome1_mr_is_turned_back_as_a_whole(tmp_path: Path, decoder: Decoder) -> None:
    def negative(k: int, ds: Dataset) -> None:
        ds.PhotometricInterpretation = "MONOCHROME1"
        stored(ds, np.full((64, 64), 1000 - 100 * k, np.uint16))
        ds.RescaleIntercept = 0

    reading = read(axial(3, negative, sop_class=MR), tmp_path, decoder)
    assert volume(reading).pixels[:, 0, 0].tolist() == [0, 100, 200] and "monochrome1" in found(reading)
    assert volume(read(axial(3, negative), tmp_path / "ct", decoder)).pixels[:, 0, 0].tolist() == [1000, 900, 800]


def test_values_that_are_no_numbers_are_air(tmp_path: Path, decoder: Decoder) -> None:
    ds = axial(1)[0]
    array = np.zeros((64, 64), np.float32)
    array[0, :3] = np.nan, np.inf, -np.inf
    del ds.PixelData
    ds.FloatPixelData, ds.BitsAllocated, ds.RescaleIntercept = array.tobytes(), 32, 0
    for keyword in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, keyword)
    v = volume(read([ds], tmp_path, decoder))
    assert v.pixels[0, 0, :4].tolist() == [-1024, -1024, -1024, 0]


# what is not scored at all

@pytest.mark.parametrize(("kinds", "reason"), [
    (["ORIGINAL", "PRIMARY", "AXIAL"], None), (["DERIVED", "PRIMARY", "AXIAL"], None), (["DERIVED", "SECONDARY", "MPR"], None), (None, None),
    (["ORIGINAL", "PRIMARY", "PERFUSION", "NONE"], None), (["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"], None),
    (["DERIVED", "SECONDARY", "REFORMATTED"], None),
    (["ORIGINAL", "PRIMARY", "LOCALIZER"], Reason.LOCALIZER), (["DERIVED", "SECONDARY", "PROJECTION IMAGE"], Reason.DERIVED),
    *[(["DERIVED", "SECONDARY", word], Reason.DERIVED) for word in sorted(MAPS)],
    (["DERIVED", "SECONDARY", "MAX_IP"], Reason.DERIVED), (["DERIVED", "PRIMARY", "DIFFUSION", "adc"], Reason.DERIVED),
], ids=str)
def test_image_type(kinds: list[str] | None, reason: Reason | None) -> None:
    ds = image(CT)
    if kinds is None:
        del ds.ImageType
    else:
        ds.ImageType = kinds
    assert ineligible(ds) is reason


def test_frame_type_of_an_enhanced_object() -> None:
    ds = enhanced(ENHANCED_MR, 1, item(MRImageFrameTypeSequence=[item(FrameType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])]), lambda k: item())
    del ds.ImageType
    assert ineligible(ds) is Reason.DERIVED


@pytest.mark.parametrize(("change", "reason"), [
    ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.COLOUR), ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.COLOUR),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.3", "Modality": "MR", "PhotometricInterpretation": "RGB"}, Reason.COLOUR),
    ({"Rows": 47}, Reason.TOO_SMALL), ({"Columns": 16}, Reason.TOO_SMALL), ({"Rows": 48, "Columns": 48}, None),
    ({"SOPClassUID": SC}, Reason.DERIVED), ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, Reason.DERIVED), ({"RescaleType": "Z_EFF"}, Reason.DERIVED),
    ({"RescaleType": "HU"}, None), ({"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, Reason.MODALITY_NOT_SCORED),
    ({"Modality": "MR"}, Reason.MODALITY_NOT_SCORED), ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, Reason.NOT_AN_IMAGE),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, Reason.NOT_AN_IMAGE), ({"SOPClassUID": ENHANCED_CT}, None),
    ({"PhotometricInterpretation": "MONOCHROME1"}, None),
    ({"ContributingEquipmentSequence": [item(Manufacturer="MedIQA Node")]}, Reason.OWN_RESULT),
], ids=str)
def test_headers_that_rule_out(change: dict[str, object], reason: Reason | None) -> None:
    ds = image(CT, rows=64)
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    assert ineligible(ds) is reason


def test_a_series_that_is_ruled_out_says_why(tmp_path: Path, decoder: Decoder) -> None:
    assert read(axial(3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "a", decoder).reason is Reason.LOCALIZER

    def mostly(k: int, ds: Dataset) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"] if k else ["DERIVED", "SECONDARY", "ADC"]

    assert read(axial(3, mostly), tmp_path / "b", decoder).reason is Reason.LOCALIZER


def test_two_modalities_under_one_uid(tmp_path: Path, decoder: Decoder) -> None:
    ct, mr = axial(4, rows=48), axial(2, sop_class=MR, rows=48)
    for ds in mr:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = ct[0].StudyInstanceUID, ct[0].SeriesInstanceUID
    reading = read(mr + ct, tmp_path, decoder)
    assert (reading.modality, len(volume(reading).frames)) == ("CT", 4) and "2 objects of another modality" in found(reading)["left-out"]


def test_a_file_that_is_there_twice_counts_once(tmp_path: Path, decoder: Decoder) -> None:
    objects = axial(4, rows=48)
    reading = read(objects + objects[:2], tmp_path, decoder)
    assert reading.instances == 4 and len(volume(reading).frames) == 4
    assert found(reading) == {"repeated-instance": "2 files repeat a SOP Instance UID; the first of each was judged."}


def test_files_that_nobody_reads(tmp_path: Path, decoder: Decoder) -> None:
    files = write_all(axial(3, rows=48), tmp_path)
    files[1].write_bytes(b"")
    reading = read_series(files, decoder)
    assert len(volume(reading).frames) == 2 and {"unreadable", "left-out"} & set(found(reading))
    for file in files:
        file.write_bytes(b"\xff" * 300)
    assert read_series(files, decoder).reason in (Reason.CORRUPT_PIXEL_DATA, Reason.NOT_AN_IMAGE)


def test_fewer_functional_groups_than_frames(tmp_path: Path, decoder: Decoder) -> None:
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=1)],
                  PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    ds = enhanced(ENHANCED_MR, 8, shared, lambda k: item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 1.0 * k])]))
    ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:6]
    reading = read([ds], tmp_path, decoder)
    assert len(volume(reading).frames) == 6 and "2 images have no usable position" in found(reading)["position-absent"]
