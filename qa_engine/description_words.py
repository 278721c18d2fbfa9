"""Fixed words of the description: names, recorded parameters, impact per region, degradation and severity, advice. Technical limits, no diagnosis."""

from __future__ import annotations

from qa_engine.outcome import Severity

NAMES = {"noise": "noise", "blur": "blur", "streak": "streaks", "ring": "rings", "motion": "motion artefacts", "ghost": "ghosts",
         "undersampling": "undersampling artefacts", "spike": "wave patterns"}
DIFFERENCES = {"noise": "noisier", "structure": "more streaks or ghosts", "blur": "less sharp"}
"""Kind of an outlier slice -> how it differs from the slices around."""
UNITS = {"[hnsf'U]": "HU", "mm": "mm", "1": "of the tissue signal", "mA.s": "mAs"}

Parameters = tuple[tuple[str, str], ...]
_TWICE = "Noise falls with the root of the averages: twice as many would take 29% of it away."
_SEQUENCE: Parameters = (("RepetitionTime", "repetition time"), ("EchoTrainLength", "echo train"), ("NumberOfAverages", "averages"))
CAUSES: dict[tuple[str, str], tuple[Parameters, str]] = {
    ("CT", "noise"): ((("TubeCurrentTimeProduct", "tube current-time product"), ("CTDIvol", "CTDIvol"), ("SliceThickness", "slice thickness"),
                       ("ConvolutionKernel", "kernel")), ""),
    ("CT", "blur"): ((("ConvolutionKernel", "kernel"), ("SliceThickness", "slice thickness"), ("PixelSpacingRow", "pixel")), ""),
    ("CT", "streak"): ((("TubeCurrentTimeProduct", "tube current-time product"), ("ReconstructionDiameter", "reconstruction diameter")), ""),
    ("MR", "noise"): ((("MagneticFieldStrength", "field strength"), ("NumberOfAverages", "averages"), ("PixelBandwidth", "bandwidth"),
                       ("VoxelVolume", "voxel")), _TWICE),
    ("MR", "blur"): ((("AcquisitionMatrix", "matrix"), ("EchoTrainLength", "echo train"), ("SliceThickness", "slice thickness")), ""),
    ("CT", "ring"): ((), ""),
    ("CT", "motion"): ((("RevolutionTime", "rotation time"), ("SpiralPitchFactor", "pitch")), ""),
    ("MR", "motion"): (_SEQUENCE, ""),
    ("MR", "ghost"): (_SEQUENCE, ""),
    ("MR", "undersampling"): ((("ParallelReductionFactorInPlane", "parallel reduction"), ("PercentSampling", "sampling"),
                               ("NumberOfPhaseEncodingSteps", "phase encoding steps")), ""),
    ("MR", "spike"): ((), ""),
}
"""(modality, degradation) -> recorded parameters that bear on it, and what follows from physics alone."""
ADVICE = {
    ("CT", "noise"): "check tube current, pitch and slice thickness against the protocol",
    ("CT", "blur"): "check kernel and slice thickness against the protocol",
    ("CT", "streak"): "check for metal, arms in the field and too few projections",
    ("MR", "noise"): "check coil, averages, bandwidth and voxel size against the protocol",
    ("MR", "blur"): "check matrix, echo train and filter against the protocol",
    ("CT", "ring"): "have the detector calibrated and checked",
    ("CT", "motion"): "consider a repeat with a faster rotation or breath hold while the patient is there",
    ("MR", "motion"): "consider a repeat with shorter or motion-robust acquisition while the patient is there",
    ("MR", "ghost"): "check for periodic movement, flow and the phase correction; consider another phase-encode direction",
    ("MR", "undersampling"): "check acceleration and coil calibration against the protocol",
    ("MR", "spike"): "have the scanner checked for sparks and radio interference: loose contacts, dry air, the door of the room",
}

SOFT = {"head": "small differences between grey and white matter", "neck": "small differences between the soft tissues of the neck",
        "chest": "small differences between soft tissues of the chest", "abdomen": "small differences inside organs",
        "pelvis": "small differences between the soft tissues of the pelvis", "spine": "small differences inside discs and marrow",
        "extremity": "small differences between muscle, tendon and marrow", "breast": "small differences inside the breast",
        "heart": "small differences inside the heart muscle"}
"""Region -> what noise hides first."""
FINE = {"head": "fine folds and thin vessels", "neck": "thin vessels and tissue borders", "chest": "fine airways and vessels",
        "abdomen": "thin walls and small vessels", "pelvis": "thin walls and tissue borders", "spine": "borders of nerves and joints",
        "extremity": "thin cartilage and the grain of bone", "breast": "fine strands of tissue", "heart": "thin walls and valves"}
"""Region -> what blur takes first."""
_SOFT, _FINE = "small low-contrast structures", "fine structures and thin edges"
_SENTENCES: dict[tuple[str, Severity], str] = {
    ("noise", Severity.MILD): "{soft} may need a closer look.",
    ("noise", Severity.MODERATE): "{soft} may not be told from the background.",
    ("noise", Severity.SEVERE): "{soft} are not shown reliably.",
    ("blur", Severity.MILD): "{fine} look somewhat soft.",
    ("blur", Severity.MODERATE): "{fine} may not be resolved.",
    ("blur", Severity.SEVERE): "{fine} are not resolved.",
    ("streak", Severity.MILD): "Faint streaks cross the image; values along them are off.",
    ("streak", Severity.MODERATE): "Streaks may imitate or hide structures along their direction, {soft} first.",
    ("streak", Severity.SEVERE): "Streaks imitate or hide structures along their direction; values there cannot be used.",
    ("ring", Severity.MILD): "Faint rings run about the middle of the field; values along them are off.",
    ("ring", Severity.MODERATE): "Rings may imitate or hide structures near the middle of the field, {soft} first.",
    ("ring", Severity.SEVERE): "Rings imitate or hide structures; values along them cannot be used.",
    ("ghost", Severity.MILD): "Faint copies of bright structures lie along the phase-encode direction.",
    ("ghost", Severity.MODERATE): "Copies of bright structures may imitate or hide others, {soft} first.",
    ("ghost", Severity.SEVERE): "Copies of bright structures imitate or hide others; {soft} are not shown reliably.",
    ("undersampling", Severity.MILD): "Faint aliasing lies over the image.",
    ("undersampling", Severity.MODERATE): "Aliasing may imitate or hide structures, {soft} first.",
    ("undersampling", Severity.SEVERE): "Aliasing imitates or hides structures; {soft} are not shown reliably.",
    ("spike", Severity.MILD): "Faint waves lie over the whole image.",
    ("spike", Severity.MODERATE): "Waves over the whole image may hide structures, {soft} first.",
    ("spike", Severity.SEVERE): "Waves over the whole image hide structures; {soft} are not shown reliably.",
    ("motion", Severity.MILD): "Edges are slightly doubled.",
    ("motion", Severity.MODERATE): "Edges may be doubled and ghosts may overlay {fine}.",
    ("motion", Severity.SEVERE): "Edges are doubled and ghosts overlay structures; {fine} are not shown reliably.",
}


def impact_text(region: str | None, kind: str, severity: Severity) -> str:
    """The fixed sentence of a region (None: unknown), degradation and severity; "" for one that has none."""
    told = _SENTENCES.get((kind, severity), "").format(soft=SOFT.get(region or "", _SOFT), fine=FINE.get(region or "", _FINE))
    return told[:1].upper() + told[1:]
