"""MR acquisition: PS3.3 C.8.3.1 (MR Image), C.8.13 (Enhanced MR functional groups). Units: T, ms, deg, Hz, mm."""

from __future__ import annotations

from collections.abc import Sequence

from qa_engine.acquisition.parameter import Collected, Image, Number, Text, read_geometry, read_number, read_text
from qa_engine.assessment import Quantity
from qa_engine.header import find, integer, numbers, raw
from qa_engine.volume import Acquisition

TIMING, ECHO = ("MRTimingAndRelatedParametersSequence",), ("MREchoSequence",)
MODIFIER, AVERAGES, FOV = ("MRModifierSequence",), ("MRAveragesSequence",), ("MRFOVGeometrySequence",)
IMAGING, COIL = ("MRImagingModifierSequence",), ("MRReceiveCoilSequence",)
NUMBERS = (
    Number("MagneticFieldStrength", "T", 0.01, 20), Number("EchoTime", "ms", 0.01, 2000, ECHO, "EffectiveEchoTime"),
    Number("RepetitionTime", "ms", 0.5, 100_000, TIMING), Number("InversionTime", "ms", 1, 20_000, MODIFIER, "InversionTimes"),
    Number("FlipAngle", "deg", 0.1, 360, TIMING), Number("NumberOfAverages", "1", 0.1, 1000, AVERAGES),
    Number("PixelBandwidth", "Hz", 1, 100_000, IMAGING), Number("EchoTrainLength", "1", 1, 5000, TIMING),
    Number("ParallelReductionFactorInPlane", "1", 1, 100, MODIFIER), Number("ParallelReductionFactorOutOfPlane", "1", 1, 100, MODIFIER),
    Number("ImagingFrequency", "MHz", 0.1, 1000, IMAGING, "TransmitterFrequency"), Number("PercentSampling", "%", 1, 200, FOV),
    Number("NumberOfPhaseEncodingSteps", "1", 1, 10_000), Number("SAR", "W/kg", 0.0001, 50),
)
TEXTS = (
    Text("ScanningSequence"), Text("SequenceVariant"), Text("SequenceName"), Text("PulseSequenceName"), Text("EchoPulseSequence"),
    Text("MRAcquisitionType"), Text("ScanOptions"), Text("ReceiveCoilName", COIL), Text("TransmitCoilName", ("MRTransmitCoilSequence",)),
    Text("ParallelAcquisition", MODIFIER), Text("ParallelAcquisitionTechnique", MODIFIER),
    Text("InPlanePhaseEncodingDirection", FOV), Text("ContrastBolusAgent", ("ContrastBolusAgentSequence",), "CodeMeaning"),
)


def read_mr(images: Sequence[Image], places: Sequence[float]) -> Acquisition:
    """All MR parameters of a series; `places` of its slices along the normal, mm."""
    into = Collected()
    for parameter in NUMBERS:
        read_number(into, images, parameter)
    for words in TEXTS:
        read_text(into, images, words)
    _matrix(into, images)
    read_geometry(into, images, places)
    row, column, deep = (into.number(n) for n in ("PixelSpacingRow", "PixelSpacingColumn", "SliceThickness"))
    if row is not None and column is not None and deep is not None:
        into.derive("VoxelVolume", row * column * deep, "mm3")
    else:
        into.absent["VoxelVolume"] = "pixel spacing or slice thickness is absent"
    return into.acquisition()


def _matrix(into: Collected, images: Sequence[Image]) -> None:
    """Acquisition Matrix as `frequency x phase`; zeros of the unused direction are left out."""
    for ds, frame in images:
        found = numbers(raw(ds, "AcquisitionMatrix"), 4)
        steps = [int(v) for v in found if v > 0] if found is not None else []
        if not steps:
            across = integer(find(ds, "MRAcquisitionFrequencyEncodingSteps", *FOV, frame=frame))
            along = integer(find(ds, "MRAcquisitionPhaseEncodingStepsInPlane", *FOV, frame=frame))
            steps = [v for v in (across, along) if v and v > 0]
        if len(steps) == 2:
            into.values["AcquisitionMatrix"] = Quantity(" x ".join(map(str, steps)), "")
            return
    into.absent["AcquisitionMatrix"] = "missing"
