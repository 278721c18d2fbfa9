"""CT acquisition: PS3.3 C.8.2.1 (CT Image), C.8.15.3 (Enhanced CT functional groups). Units: kV, mA, ms, mA.s, mGy, mm."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, median_low

from qa_engine.acquisition.parameter import Collected, Image, Number, Text, amount, read_geometry, read_number, read_text
from qa_engine.assessment import Finding, Quantity
from qa_engine.volume import Acquisition

AGREES = 0.20
"""Relative difference up to which a recorded Exposure agrees with a derived one."""
EXPOSURE_GROUP, XRAY = ("CTExposureSequence",), ("CTXRayDetailsSequence",)
TABLE, RECONSTRUCTION = ("CTTableDynamicsSequence",), ("CTReconstructionSequence",)
ACQUISITION = ("CTAcquisitionDetailsSequence",)
CURRENT = Number("XRayTubeCurrent", "mA", 1, 2000, EXPOSURE_GROUP, "XRayTubeCurrentInmA")
TIME = Number("ExposureTime", "ms", 1, 100_000, EXPOSURE_GROUP, "ExposureTimeInms")
EXPOSURE = Number("Exposure", "mA.s", 0.05, 20_000, EXPOSURE_GROUP, "ExposureInmAs")
PITCH = Number("SpiralPitchFactor", "1", 0.05, 5, TABLE)
NUMBERS = (
    Number("KVP", "kV", 20, 200, XRAY), CURRENT, TIME, EXPOSURE, Number("CTDIvol", "mGy", 0.01, 1000, EXPOSURE_GROUP), PITCH,
    Number("RevolutionTime", "s", 0.05, 20, ACQUISITION), Number("SingleCollimationWidth", "mm", 0.1, 50, ACQUISITION),
    Number("TotalCollimationWidth", "mm", 0.1, 500, ACQUISITION), Number("TableFeedPerRotation", "mm", 0.1, 1000, TABLE),
    Number("ReconstructionDiameter", "mm", 10, 2000, RECONSTRUCTION), Number("DataCollectionDiameter", "mm", 10, 2000, ACQUISITION),
    Number("GantryDetectorTilt", "deg", -90, 90, ACQUISITION),
)
TEXTS = (
    Text("ConvolutionKernel", RECONSTRUCTION), Text("ReconstructionAlgorithm", RECONSTRUCTION), Text("FilterType", XRAY), Text("ScanOptions"),
    Text("ContrastBolusAgent", ("ContrastBolusAgentSequence",), "CodeMeaning"), Text("ExposureModulationType", EXPOSURE_GROUP),
)


def read_ct(images: Sequence[Image], places: Sequence[float]) -> Acquisition:
    """All CT parameters of a series; `places` of its slices along the normal, mm."""
    into = Collected()
    for parameter in NUMBERS:
        read_number(into, images, parameter)
    for words in TEXTS:
        read_text(into, images, words)
    read_geometry(into, images, places)
    exposure(into, images)
    return into.acquisition()


def exposure(into: Collected, images: Sequence[Image]) -> None:
    """mAs and mAs/pitch from current, time and pitch of each image, and which of them the recorded Exposure (0018,1152) agrees with.

    The attribute is mAs on some scanners and mAs/pitch on others; it is kept as recorded.
    """
    product, effective, to_product, to_effective = [], [], [], []
    for image in images:
        current, time, pitch, recorded = (v if isinstance(v := amount(image, p), float) else None for p in (CURRENT, TIME, PITCH, EXPOSURE))
        if current is None or time is None:
            continue
        product.append(current * time / 1000.0)
        effective += [] if pitch is None else [product[-1] / pitch]
        if recorded is not None:
            to_product.append(recorded / product[-1])
            to_effective += [] if pitch is None else [recorded / effective[-1]]
    if product:
        into.derive("TubeCurrentTimeProduct", median_low(product), "mA.s")
    else:
        into.absent["TubeCurrentTimeProduct"] = "tube current or exposure time is absent"
    if effective:
        into.derive("EffectiveTubeCurrentTimeProduct", median_low(effective), "mA.s")
    else:
        into.absent["EffectiveTubeCurrentTimeProduct"] = "pitch is absent" if product else "tube current or exposure time is absent"
    if not to_product:
        into.absent["ExposureMeaning"] = "nothing to compare"
        return
    apart = {"mAs": abs(median(to_product) - 1.0)} | ({"mAs/pitch": abs(median(to_effective) - 1.0)} if to_effective else {})
    nearest = min(apart, key=lambda meaning: apart[meaning])
    if apart[nearest] <= AGREES:
        into.values["ExposureMeaning"] = Quantity(nearest, "")
        return
    into.absent["ExposureMeaning"] = "agrees with neither mAs nor mAs/pitch"
    into.findings.append(Finding("exposure-disagrees",
                                 f"Exposure says {into.number('Exposure'):g} mAs; tube current times exposure time is "
                                 f"{into.number('TubeCurrentTimeProduct'):g} mAs"
                                 + (f", by pitch {into.number('EffectiveTubeCurrentTimeProduct'):g} mAs." if effective else ".")))
