"""MR acquisition: PS3.3 C.8.3.1 (MR Image), C.8.13 (Enhanced MR functional groups). Units: T, ms, deg, Hz, mm."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from qa_engine.acquisition.parameter import Collected, Number, Text, read_geometry, read_number, read_text
from qa_engine.assessment import Quantity
from qa_engine.header import numbers
from qa_engine.volume import Acquisition

TIMING, ECHO = ("MRTimingAndRelatedParametersSequence",), ("MREchoSequence",)
MODIFIER, AVERAGES, FOV = ("MRModifierSequence",), ("MRAveragesSequence",), ("MRFOVGeometrySequence",)
IMAGING, COIL = ("MRImagingModifierSequence",), ("MRReceiveCoilSequence",)
NUMBERS = (
    Number("MagneticFieldStrength", "T", 0.01, 20), Number("EchoTime", "ms", 0.01, 2000, ECHO), Number("RepetitionTime", "ms", 0.5, 100_000, TIMING),
    Number("InversionTime", "ms", 1, 20_000, MODIFIER), Number("FlipAngle", "deg", 0.1, 360, TIMING),
    Number("NumberOfAverages", "1", 0.1, 1000, AVERAGES), Number("PixelBandwidth", "Hz", 1, 100_000, IMAGING),
    Number("EchoTrainLength", "1", 1, 5000, TIMING), Number("ParallelReductionFactorInPlane", "1", 1, 100, MODIFIER),
    Number("ImagingFrequency", "MHz", 0.1, 1000, IMAGING, "ImagingFrequency"), Number("PercentSampling", "%", 1, 200, FOV),
    Number("NumberOfPhaseEncodingSteps", "1", 1, 10_000), Number("SAR", "W/kg", 0.0001, 50),
)
ENHANCED = {"EchoTime": ("EffectiveEchoTime", ECHO), "PixelBandwidth": ("PixelBandwidth", IMAGING),
            "ImagingFrequency": ("TransmitterFrequency", IMAGING), "InversionTime": ("InversionTimes", MODIFIER)}
TEXTS = (
    Text("ScanningSequence"), Text("SequenceVariant"), Text("SequenceName"), Text("PulseSequenceName"), Text("EchoPulseSequence"),
    Text("MRAcquisitionType"), Text("ScanOptions"), Text("ReceiveCoilName", COIL), Text("TransmitCoilName", ("MRTransmitCoilSequence",)),
    Text("ParallelAcquisition", MODIFIER), Text("ParallelAcquisitionTechnique", MODIFIER),
    Text("InPlanePhaseEncodingDirection", FOV), Text("ContrastBolusAgent"),
)


def read_mr(headers: Sequence[Dataset]) -> Acquisition:
    """All MR parameters of a series."""
    into = Collected()
    for parameter in NUMBERS:
        read_number(into, headers, parameter)
        if parameter.name not in into.values and parameter.name in ENHANCED:
            keyword, sequences = ENHANCED[parameter.name]
            reason = into.absent.pop(parameter.name)
            read_number(into, headers, Number(parameter.name, parameter.unit, parameter.low, parameter.high, sequences, keyword))
            if parameter.name not in into.values and reason != "missing":
                into.absent[parameter.name] = reason
    for words in TEXTS:
        read_text(into, headers, words)
    _matrix(into, headers)
    read_geometry(into, headers)
    row, column, deep = (into.number(n) for n in ("PixelSpacingRow", "PixelSpacingColumn", "SliceThickness"))
    if row is not None and column is not None and deep is not None:
        into.values["VoxelVolume"] = Quantity(float(f"{row * column * deep:.4g}"), "mm3")
    else:
        into.absent["VoxelVolume"] = "pixel spacing or slice thickness is absent"
    return into.acquisition()


def _matrix(into: Collected, headers: Sequence[Dataset]) -> None:
    """Acquisition Matrix as `frequency x phase`; zeros of the unused direction are left out."""
    from qa_engine.header import find, integer, raw

    for ds in headers:
        found = numbers(raw(ds, "AcquisitionMatrix"), 4)
        steps = [int(v) for v in found if v > 0] if found is not None else []
        if not steps:
            across = integer(find(ds, "MRAcquisitionFrequencyEncodingSteps", *FOV, frame=0))
            along = integer(find(ds, "MRAcquisitionPhaseEncodingStepsInPlane", *FOV, frame=0))
            steps = [v for v in (across, along) if v]
        if steps:
            into.values["AcquisitionMatrix"] = Quantity(" x ".join(map(str, steps)), "")
            return
    into.absent["AcquisitionMatrix"] = "missing"
