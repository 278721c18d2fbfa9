"""CT acquisition: PS3.3 C.8.2.1 (CT Image), C.8.15.3 (Enhanced CT functional groups). Units: kV, mA, ms, mA.s, mGy, mm."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from qa_engine.acquisition.parameter import Collected, Number, Text, read_geometry, read_number, read_text
from qa_engine.assessment import Finding, Quantity
from qa_engine.volume import Acquisition

AGREES = 0.20
"""Relative difference up to which a recorded Exposure agrees with a derived one."""
EXPOSURE, XRAY = ("CTExposureSequence",), ("CTXRayDetailsSequence",)
TABLE, RECONSTRUCTION = ("CTTableDynamicsSequence",), ("CTReconstructionSequence",)
ACQUISITION = ("CTAcquisitionDetailsSequence",)
NUMBERS = (
    Number("KVP", "kV", 20, 200, XRAY), Number("XRayTubeCurrent", "mA", 1, 2000, EXPOSURE),
    Number("ExposureTime", "ms", 1, 100_000, EXPOSURE), Number("Exposure", "mA.s", 0.05, 20_000, EXPOSURE),
    Number("CTDIvol", "mGy", 0.01, 1000, EXPOSURE), Number("SpiralPitchFactor", "1", 0.05, 5, TABLE),
    Number("RevolutionTime", "s", 0.05, 20, ACQUISITION), Number("SingleCollimationWidth", "mm", 0.1, 50, ACQUISITION),
    Number("TotalCollimationWidth", "mm", 0.1, 500, ACQUISITION), Number("TableFeedPerRotation", "mm", 0.1, 1000, TABLE),
    Number("ReconstructionDiameter", "mm", 10, 2000, RECONSTRUCTION), Number("DataCollectionDiameter", "mm", 10, 2000, ACQUISITION),
    Number("GantryDetectorTilt", "deg", -90, 90, ACQUISITION),
)
TEXTS = (
    Text("ConvolutionKernel", RECONSTRUCTION), Text("ReconstructionAlgorithm", RECONSTRUCTION), Text("FilterType"), Text("ScanOptions"),
    Text("ContrastBolusAgent"), Text("ExposureModulationType", EXPOSURE),
)


def read_ct(headers: Sequence[Dataset]) -> Acquisition:
    """All CT parameters of a series."""
    into = Collected()
    for parameter in NUMBERS:
        enhanced = {"XRayTubeCurrent": "XRayTubeCurrentInmA", "ExposureTime": "ExposureTimeInms", "Exposure": "ExposureInmAs"}
        read_number(into, headers, parameter)
        if parameter.name not in into.values and parameter.name in enhanced:
            absent = into.absent.pop(parameter.name)
            read_number(into, headers, Number(parameter.name, parameter.unit, parameter.low, parameter.high, EXPOSURE,
                                              enhanced[parameter.name]))
            if parameter.name not in into.values and absent != "missing":
                into.absent[parameter.name] = absent
    for words in TEXTS:
        read_text(into, headers, words)
    read_geometry(into, headers)
    exposure(into)
    return into.acquisition()


def exposure(into: Collected) -> None:
    """mAs and mAs/pitch from current, time and pitch, and which of them the recorded Exposure (0018,1152) agrees with.

    The attribute is mAs on some scanners and mAs/pitch on others; it is kept as recorded.
    """
    current, time, pitch, recorded = (into.number(n) for n in ("XRayTubeCurrent", "ExposureTime", "SpiralPitchFactor", "Exposure"))
    if current is None or time is None:
        into.absent["TubeCurrentTimeProduct"] = "tube current or exposure time is absent"
        into.absent["EffectiveTubeCurrentTimeProduct"] = "tube current or exposure time is absent"
        return
    product = current * time / 1000.0
    into.values["TubeCurrentTimeProduct"] = Quantity(float(f"{product:.4g}"), "mA.s")
    effective = None if pitch is None else product / pitch
    if effective is None:
        into.absent["EffectiveTubeCurrentTimeProduct"] = "pitch is absent"
    else:
        into.values["EffectiveTubeCurrentTimeProduct"] = Quantity(float(f"{effective:.4g}"), "mA.s")
    if recorded is None:
        return

    def agrees(derived: float | None) -> bool:
        return derived is not None and abs(recorded - derived) <= AGREES * derived

    if agrees(product):
        into.values["ExposureMeaning"] = Quantity("mAs", "")
    elif agrees(effective):
        into.values["ExposureMeaning"] = Quantity("mAs/pitch", "")
    else:
        into.findings.append(Finding("exposure-disagrees",
                                     f"Exposure says {recorded:g} mAs; tube current times exposure time is {product:.4g} mAs"
                                     + ("." if effective is None else f", by pitch {effective:.4g} mAs.")))
