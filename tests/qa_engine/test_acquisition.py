"""Acquisition parameters: what is used, what is left out and why, the rule of (0018,1152), enhanced functional groups, hostile values."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from qa_engine.acquisition import read_acquisition
from qa_engine.acquisition.ct import NUMBERS as CT_NUMBERS
from qa_engine.acquisition.ct import TEXTS as CT_TEXTS
from qa_engine.acquisition.mr import NUMBERS as MR_NUMBERS
from qa_engine.acquisition.mr import TEXTS as MR_TEXTS
from qa_engine.acquisition.parameter import as_recorded
from qa_engine.decode import Decoder
from qa_engine.eligibility import image_type, ineligible
from qa_engine.frames import frames_of
from qa_engine.series import read_series
from qa_engine.volume import Acquisition
from tests.support.series import ENHANCED_CT, ENHANCED_MR, MR, axial, enhanced, file_with_raw, item, with_raw, write_all
from tests.support.small_objects import CT, image


def ct(**values: object) -> Dataset:
    return image(CT, **{"KVP": 120, "XRayTubeCurrent": 200, "ExposureTime": 500, **values})


def acquisition(*objects: Dataset) -> Acquisition:
    return read_acquisition([(ds, None) for ds in objects])


def codes(found: Acquisition) -> list[str]:
    return [f.code for f in found.findings]


# (0018,1152): 499 mA x 500 ms = 249.5 mAs; 249.5 / 1.375 = 181.5 mAs

@pytest.mark.parametrize(("recorded", "pitch", "meaning"), [
    (250, 1.375, "mAs"), (181, 1.375, "mAs/pitch"), (249, None, "mAs"), (15, 1.375, None), (15, None, None),
    (200, 1.375, "mAs/pitch"), (299, None, "mAs"), (300, None, None), (200, None, "mAs"), (199, None, None), (250, 1.0, "mAs"), (216, 1.2, "mAs/pitch"),
])
def test_recorded_exposure_is_kept_and_compared(recorded: int, pitch: float | None, meaning: str | None) -> None:
    found = acquisition(ct(XRayTubeCurrent=499, Exposure=recorded, **({} if pitch is None else {"SpiralPitchFactor": pitch})))
    assert (found.values["Exposure"].value, found.values["Exposure"].unit) == (recorded, "mA.s")
    assert found.values["TubeCurrentTimeProduct"].value == pytest.approx(249.5)
    if pitch is None:
        assert found.absent["EffectiveTubeCurrentTimeProduct"] == "pitch is absent"
    else:
        assert found.values["EffectiveTubeCurrentTimeProduct"].value == pytest.approx(249.5 / pitch, rel=1e-3)
    if meaning is None:
        assert found.absent["ExposureMeaning"] == "agrees with neither mAs nor mAs/pitch" and codes(found) == ["exposure-disagrees"]
        assert f"Exposure says {recorded} mAs" in found.findings[0].text and "249.5 mAs" in found.findings[0].text
    else:
        assert found.values["ExposureMeaning"].value == meaning and codes(found) == []


def test_exposure_is_compared_image_by_image_under_tube_current_modulation() -> None:
    objects = [ct(XRayTubeCurrent=current, Exposure=current // 2) for current in (100, 200, 300, 400, 500)]
    found = acquisition(*objects)
    assert found.values["ExposureMeaning"].value == "mAs"
    assert (found.values["XRayTubeCurrent"].value, found.values["TubeCurrentTimeProduct"].value) == (300, 150.0)
    assert codes(found) == ["parameter-varies", "parameter-varies"]


def test_nothing_is_derived_from_what_is_absent() -> None:
    found = acquisition(ct(ExposureTime=0, Exposure=100))
    assert found.values["Exposure"].value == 100
    assert found.absent["TubeCurrentTimeProduct"] == found.absent["EffectiveTubeCurrentTimeProduct"] == "tube current or exposure time is absent"
    assert found.absent["ExposureMeaning"] == "nothing to compare" and found.absent["ExposureTime"] == "zero"


# values that are not used, as bytes with their VR

@pytest.mark.parametrize(("vr", "value", "reason"), [
    ("DS", b"", "missing"), ("DS", b"  ", "missing"), ("DS", b"0", "zero"), ("DS", b"-120", "not plausible (-120)"), ("DS", b"1e30", "not plausible (1e+30)"),
    ("DS", b"1e400", "not a number"), ("DS", b"NaN", "not a number"), ("DS", b"inf", "not a number"), ("DS", b"kV 120", "not a number"),
    ("DS", b"1,20", "not a number"), ("DS", b"120\\80", "2 values instead of 1"), ("DS", b"120\\", "2 values instead of 1"), ("LO", b"120", "wrongly typed"),
    ("FD", b"abc", "wrongly typed"), ("FD", struct.pack("<d", float("nan")), "not a number"), ("FD", struct.pack("<d", 1e300), "not plausible (1e+300)"),
    ("SQ", b"abcd", "wrongly typed"), ("OB", b"120 ", "wrongly typed"), ("IS", b"119.7", "wrongly typed"),
    ("US", struct.pack("<HH", 120, 80), "2 values instead of 1"),
])
@pytest.mark.filterwarnings("ignore")
def test_a_value_that_is_not_used_is_absent_with_its_reason(vr: str, value: bytes, reason: str) -> None:
    found = acquisition(with_raw(ct(), "KVP", vr, value))
    assert "KVP" not in found.values and found.absent["KVP"] == reason
    told = [f.text for f in found.findings if f.code == "parameter-unusable"]
    assert told == ([] if reason in ("missing", "zero") else [f"KVP is left out: {reason}."])


@pytest.mark.parametrize(("vr", "value", "used"), [("DS", b"+120.50", 120.5), ("DS", b" 120 ", 120), ("IS", b"80", 80), ("FD", struct.pack("<d", 99.9), 99.9)])
def test_a_value_of_another_numeric_type_is_used(vr: str, value: bytes, used: float) -> None:
    assert acquisition(with_raw(ct(), "KVP", vr, value)).values["KVP"].value == used


def test_digits_are_those_of_the_record() -> None:
    assert as_recorded(struct.unpack("<f", struct.pack("<f", 0.8))[0]) == 0.8
    assert as_recorded(0.451171875) == 0.451171875 and as_recorded(63.906004) == 63.906004
    assert as_recorded(120.0) == 120 and isinstance(as_recorded(120.0), int)


def test_no_tilt_is_a_value() -> None:
    assert acquisition(ct(GantryDetectorTilt=0)).values["GantryDetectorTilt"].value == 0


def test_text_that_is_none_is_absent() -> None:
    found = acquisition(with_raw(ct(), "ConvolutionKernel", "FD", struct.pack("<d", 3.0)), ct(ConvolutionKernel=""))
    assert found.absent["ConvolutionKernel"] == "wrongly typed"
    found = acquisition(ct(ConvolutionKernel=["I30f", "3"]), ct(ConvolutionKernel=["I30f", "3"]), ct(ConvolutionKernel="B70s"))
    assert found.values["ConvolutionKernel"].value == "I30f\\3" and "parameter-varies" in codes(found)


def test_a_parameter_that_few_images_have_is_told() -> None:
    found = acquisition(ct(), ct(KVP=None), ct(KVP=-5))
    assert found.values["KVP"].value == 120
    assert [f.text for f in found.findings] == ["KVP is usable in 1 of 3 images."]


def test_the_middle_of_different_values_is_a_recorded_one() -> None:
    assert acquisition(ct(SliceThickness=4), ct(SliceThickness=7)).values["SliceThickness"].value == 4


def test_pixel_spacing_needs_both_values() -> None:
    found = acquisition(with_raw(ct(), "PixelSpacing", "DS", b"0.5"))
    assert found.absent["PixelSpacingRow"] == found.absent["PixelSpacingColumn"] == "1 values instead of 2"
    found = acquisition(ct(PixelSpacing=[0.5, 0.7]))
    assert (found.values["PixelSpacingRow"].value, found.values["PixelSpacingColumn"].value) == (0.5, 0.7)


def test_other_modalities_have_no_parameters() -> None:
    assert acquisition(image(Modality="PT")) == Acquisition()
    assert read_acquisition([]) == Acquisition()


# enhanced objects

def enhanced_ct(frames: int = 4) -> Dataset:
    shared = item(
        CTAcquisitionDetailsSequence=[item(RevolutionTime=0.5, SingleCollimationWidth=0.625, TotalCollimationWidth=40.0, GantryDetectorTilt=0.0,
                                           DataCollectionDiameter=500)],
        CTTableDynamicsSequence=[item(SpiralPitchFactor=1.5, TableFeedPerRotation=60.0)],
        CTReconstructionSequence=[item(ConvolutionKernel="Br40", ReconstructionAlgorithm="ITERATIVE", ReconstructionDiameter=350)],
        CTXRayDetailsSequence=[item(KVP=100, FilterType="WEDGE")],
        PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.7], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")])

    def own(k: int) -> Dataset:
        return item(CTExposureSequence=[item(XRayTubeCurrentInmA=200.0, ExposureTimeInms=500.0, ExposureInmAs=66.7, CTDIvol=5.5,
                                             ExposureModulationType="NONE")],
                    PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2.0 * k])])

    return enhanced(ENHANCED_CT, frames, shared, own, ContrastBolusAgentSequence=[item(CodeMeaning="Iodine")])


def enhanced_mr(frames: int = 4, echo: object = 80.0) -> Dataset:
    shared = item(
        MRTimingAndRelatedParametersSequence=[item(RepetitionTime=3000, FlipAngle=120, EchoTrainLength=15)],
        MRImagingModifierSequence=[item(PixelBandwidth=200, TransmitterFrequency=123.2)], MRReceiveCoilSequence=[item(ReceiveCoilName="HEAD_32")],
        MRModifierSequence=[item(InversionTimes=[2500.0], ParallelReductionFactorInPlane=2.0, ParallelReductionFactorOutOfPlane=1.0,
                                 ParallelAcquisition="YES", ParallelAcquisitionTechnique="SENSE")],
        MRFOVGeometrySequence=[item(InPlanePhaseEncodingDirection="COLUMN", PercentSampling=80, MRAcquisitionFrequencyEncodingSteps=256,
                                    MRAcquisitionPhaseEncodingStepsInPlane=192)],
        PixelMeasuresSequence=[item(PixelSpacing=[0.9, 0.9], SliceThickness=4)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])

    def own(k: int) -> Dataset:
        return item(MREchoSequence=[item(EffectiveEchoTime=echo)], MRAveragesSequence=[item(NumberOfAverages=2)],
                    PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 5.0 * k])])

    return enhanced(ENHANCED_MR, frames, shared, own, MagneticFieldStrength=3.0, PulseSequenceName="TSE", EchoPulseSequence="SPIN")


def test_enhanced_ct_is_read_from_its_functional_groups(tmp_path: Path) -> None:
    with Decoder() as decoder:
        reading = read_series(write_all([enhanced_ct()], tmp_path), decoder)
    assert reading.volume is not None and len(reading.volume.frames) == 4
    values = {name: (q.value, q.unit) for name, q in reading.acquisition.values.items()}
    assert values == {
        "KVP": (100, "kV"), "XRayTubeCurrent": (200, "mA"), "ExposureTime": (500, "ms"), "Exposure": (66.7, "mA.s"), "CTDIvol": (5.5, "mGy"),
        "SpiralPitchFactor": (1.5, "1"), "RevolutionTime": (0.5, "s"), "SingleCollimationWidth": (0.625, "mm"), "TotalCollimationWidth": (40, "mm"),
        "TableFeedPerRotation": (60, "mm"), "ReconstructionDiameter": (350, "mm"), "DataCollectionDiameter": (500, "mm"),
        "GantryDetectorTilt": (0, "deg"), "ConvolutionKernel": ("Br40", ""), "ReconstructionAlgorithm": ("ITERATIVE", ""), "FilterType": ("WEDGE", ""),
        "ContrastBolusAgent": ("Iodine", ""), "ExposureModulationType": ("NONE", ""), "SliceThickness": (2.5, "mm"), "PixelSpacingRow": (0.7, "mm"),
        "PixelSpacingColumn": (0.7, "mm"), "SliceIncrement": (2, "mm"), "TubeCurrentTimeProduct": (100.0, "mA.s"),
        "EffectiveTubeCurrentTimeProduct": (66.67, "mA.s"), "ExposureMeaning": ("mAs/pitch", "")}
    assert reading.acquisition.absent == {"ScanOptions": "missing"} and reading.acquisition.findings == ()


def test_enhanced_mr_is_read_from_its_functional_groups(tmp_path: Path) -> None:
    with Decoder() as decoder:
        reading = read_series(write_all([enhanced_mr()], tmp_path), decoder)
    values = {name: (q.value, q.unit) for name, q in reading.acquisition.values.items()}
    assert values == {
        "MagneticFieldStrength": (3, "T"), "EchoTime": (80, "ms"), "RepetitionTime": (3000, "ms"), "InversionTime": (2500, "ms"),
        "FlipAngle": (120, "deg"), "NumberOfAverages": (2, "1"), "PixelBandwidth": (200, "Hz"), "EchoTrainLength": (15, "1"),
        "ParallelReductionFactorInPlane": (2, "1"), "ParallelReductionFactorOutOfPlane": (1, "1"), "ImagingFrequency": (123.2, "MHz"),
        "PercentSampling": (80, "%"), "PulseSequenceName": ("TSE", ""), "EchoPulseSequence": ("SPIN", ""), "ReceiveCoilName": ("HEAD_32", ""),
        "ParallelAcquisition": ("YES", ""), "ParallelAcquisitionTechnique": ("SENSE", ""), "InPlanePhaseEncodingDirection": ("COLUMN", ""),
        "AcquisitionMatrix": ("256 x 192", ""), "SliceThickness": (4, "mm"), "PixelSpacingRow": (0.9, "mm"), "PixelSpacingColumn": (0.9, "mm"),
        "SliceIncrement": (5, "mm"), "VoxelVolume": (3.24, "mm3")}


def test_a_value_of_the_frame_goes_before_the_shared_one() -> None:
    ds = enhanced_mr(3)
    ds.SharedFunctionalGroupsSequence[0].MREchoSequence = [item(EffectiveEchoTime=10.0)]
    assert read_acquisition([(ds, 1)]).values["EchoTime"].value == 80
    del ds.PerFrameFunctionalGroupsSequence[1].MREchoSequence
    assert read_acquisition([(ds, 1)]).values["EchoTime"].value == 10


def test_several_inversion_times_are_none() -> None:
    ds = enhanced_mr()
    ds.SharedFunctionalGroupsSequence[0].MRModifierSequence[0].InversionTimes = [100.0, 200.0]
    assert read_acquisition([(ds, 0)]).absent["InversionTime"] == "2 values instead of 1"


# the series

def test_parameters_are_those_of_the_judged_stack(tmp_path: Path) -> None:
    def echo(k: int, ds: Dataset) -> None:
        ds.EchoTime, ds.ImagePositionPatient = (20, [0, 0, 5.0 * k]) if k < 6 else (90, [0, 0, 5.0 * (k - 6)])

    with Decoder() as decoder:
        reading = read_series(write_all(axial(10, echo, sop_class=MR), tmp_path), decoder)
    assert reading.acquisition.values["EchoTime"].value == 20
    assert [f.text for f in reading.findings] == ["The series holds 2 stacks of 6, 4 images; the first was judged."]


def test_slice_increment_of_many_slices(tmp_path: Path) -> None:
    with Decoder() as decoder:
        reading = read_series(write_all(axial(150, step=1.25, rows=48), tmp_path), decoder)
    assert reading.acquisition.values["SliceIncrement"].value == 1.25


# hostile values

OTHERS = [
    "PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "RescaleType", "ImageType",
    "Modality", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "BitsAllocated", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "SharedFunctionalGroupsSequence", "SeriesNumber", "PerFrameFunctionalGroupsSequence", "ContributingEquipmentSequence",
    "AnatomicRegionSequence", "AcquisitionMatrix", "SeriesDescription", "Manufacturer", "BodyPartExamined"
]
KEYWORDS = sorted({p.name for p in (*CT_NUMBERS, *MR_NUMBERS, *CT_TEXTS, *MR_TEXTS)} | set(OTHERS))
VRS = ("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL", "LO", "CS", "SH", "UI", "DA", "PN", "AT", "OB", "OW", "SQ", "UN", "UT", "LT")
JUNK = st.one_of(
    st.binary(max_size=24), st.sampled_from([b"NaN", b"1e30", b"-1", b"0", b"inf\\-inf", b"\\", b"\\\\\\\\\\", b"9" * 64, b"1e309", b"A\x00B", b"\xff" * 12,
                                             b"\xfe\xff\x00\xe0\xff\xff\xff\xff"]),
    st.floats(allow_nan=True, allow_infinity=True).map(lambda v: struct.pack("<d", v)), st.integers(-10**12, 10**12).map(lambda v: str(v).encode()),
    st.lists(st.floats(width=32), max_size=9).map(lambda v: "\\".join(map(str, v)).encode()))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(keyword=st.sampled_from(KEYWORDS), vr=st.sampled_from(VRS), value=JUNK, modality=st.sampled_from([CT, MR]))
@pytest.mark.filterwarnings("ignore")
def test_junk_in_any_attribute_never_raises(keyword: str, vr: str, value: bytes, modality: str) -> None:
    ds = with_raw(axial(1, sop_class=modality, rows=48)[0], keyword, vr, value)
    ineligible(ds)
    image_type(ds)
    frames = [f for f, _ in zip(frames_of(Path("x"), ds), range(5), strict=False)]
    found = read_acquisition([(ds, f.index) for f in frames] + [(ds, None)], [0.0, 1.0])
    for quantity in found.values.values():
        assert isinstance(quantity.value, str) or quantity.value == quantity.value
    assert set(found.values).isdisjoint(found.absent)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(keyword="BitsAllocated", vr="FD", value=b"\x00")
@example(keyword="Rows", vr="FD", value=b"\x00")
@example(keyword="NumberOfFrames", vr="FD", value=struct.pack("<d", math.inf))
@given(keyword=st.sampled_from([*KEYWORDS, "SpecificCharacterSet"]), vr=st.sampled_from(VRS), value=JUNK)
def test_junk_in_a_file_ends_in_a_volume_or_a_reason(tmp_path: Path, decoder: Decoder, keyword: str, vr: str, value: bytes) -> None:
    path = tmp_path / "junk.dcm"
    path.write_bytes(file_with_raw(axial(1, rows=48)[0], keyword, vr, value))
    reading = read_series([path], decoder)
    assert (reading.volume is None) == (reading.reason is not None)
