"""Every code that our reports use, in one table (PS3.16; docs/codes.md is generated from it).

Standard codes come with their meaning as the standard prints it; a test compares them with pydicom's dictionary. 99MEDIQA codes are
added, never used again for something else.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.coding import Code

SCHEME = "99MEDIQA"
SCHEME_VERSION = "1"
SCHEME_NAME = "MedIQA Node codes for technical image quality"


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


def _own(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning, SCHEME_VERSION)


def unit(code: str, meaning: str) -> Code:
    """A UCUM unit."""
    return Code(code, "UCUM", meaning)


IMAGING_MEASUREMENT_REPORT = _dcm("126000", "Imaging Measurement Report")
IMAGING_REPORT, FINDINGS = Code("18748-4", "LN", "Diagnostic Imaging Report"), _dcm("121070", "Findings")
LANGUAGE = _dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE, DEVICE = _dcm("121005", "Observer Type"), _dcm("121007", "Device")
DEVICE_OBSERVER_UID, DEVICE_OBSERVER_NAME = _dcm("121012", "Device Observer UID"), _dcm("121013", "Device Observer Name")
DEVICE_MANUFACTURER = _dcm("121014", "Device Observer Manufacturer")
DEVICE_MODEL, DEVICE_SERIAL = _dcm("121015", "Device Observer Model Name"), _dcm("121016", "Device Observer Serial Number")
PROCEDURE_REPORTED = _dcm("121058", "Procedure reported")
PROCEDURES = {"CT": Code("25045-6", "LN", "CT unspecified body region"), "MR": Code("25056-3", "LN", "MRI unspecified body region")}
ANY_PROCEDURE = _sct("363679005", "Imaging procedure")
"""What is not scored may be reported all the same (`report.on`); CID 100 has this code for any modality."""
IMAGE_LIBRARY, IMAGE_LIBRARY_GROUP = _dcm("111028", "Image Library"), _dcm("126200", "Image Library Group")
SOURCE, MODALITY = _sct("260753009", "Source"), _dcm("121139", "Modality")
MODALITIES = {"CT": _dcm("CT", "Computed Tomography"), "MR": _dcm("MR", "Magnetic Resonance")}
IMAGING_MEASUREMENTS, MEASUREMENT_GROUP = _dcm("126010", "Imaging Measurements"), _dcm("125007", "Measurement Group")
TRACKING_IDENTIFIER = _dcm("112039", "Tracking Identifier")
TRACKING_UID = _dcm("112040", "Tracking Unique Identifier")
FINDING, IMAGE_QUALITY = _dcm("121071", "Finding"), _dcm("111101", "Image Quality")
ALGORITHM_NAME, ALGORITHM_VERSION = _dcm("111001", "Algorithm Name"), _dcm("111003", "Algorithm Version")
ALGORITHM_PARAMETERS, ALGORITHM_FAMILY = _dcm("111002", "Algorithm Parameters"), _dcm("111000", "Algorithm Family")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence")
SERIES_SCORE, SLICE_SCORE = _dcm("111694", "Image Set Quality Rating"), _dcm("111029", "Image Quality Rating")
QUALITY_ASSESSMENT, QUALITY_STANDARD = _dcm("111050", "Quality Assessment"), _dcm("111051", "Quality Control Standard")
INSTITUTION_STANDARD = _dcm("111240", "Institutionally defined quality control standard")
STANDARD_VERDICTS = {"Good": _dcm("111237", "Usable - Meets the quality control standard"),
                     "Usable": _dcm("111236", "Usable - Does not meet the quality control standard"),
                     "Reject": _dcm("111235", "Unusable - Quality renders image unusable")}
COMMENT, IMAGE_REGION = _dcm("121106", "Comment"), _dcm("111030", "Image Region")
SOURCE_OF_MEASUREMENT = _dcm("121112", "Source of Measurement")
SEVERITY, PROBABILITY = _sct("246112005", "Severity"), _dcm("122157", "Probability")
SEVERITIES = {"none": _sct("260413007", "None"), "mild": _sct("255604002", "Mild"), "moderate": _sct("6736007", "Moderate"),
              "severe": _sct("24484000", "Severe")}
SLICE_THICKNESS, EXPOSURE_TIME, KVP = _dcm("112225", "Slice Thickness"), _dcm("113824", "Exposure Time"), _dcm("113733", "KVP")
TUBE_CURRENT = _dcm("113734", "X-Ray Tube Current")

LOWER, UPPER = _own("Q101", "Lower limit of 90% interval"), _own("Q102", "Upper limit of 90% interval")
NOISE_SCORE, SHARPNESS_SCORE, ARTEFACT_SCORE = (_own("Q110", "Noise score"), _own("Q111", "Sharpness score"), _own("Q112", "Artefact score"))
VERDICT = _own("Q120", "Verdict")
VERDICTS = {"Good": _own("Q121", "Good"), "Usable": _own("Q122", "Usable"), "Reject": _own("Q123", "Reject"),
            None: _own("Q124", "Not assessed")}
WEIGHT, IMAGES_RECEIVED, REASON = (_own("Q130", "Weight in series score"), _own("Q131", "Images received"),
                                   _own("Q132", "Reason without score"))
AMOUNT = _own("Q140", "Amount of degradation")
MEASURES = {"NoiseStandardDeviation": _own("Q201", "Noise standard deviation"), "SignalToNoiseRatio": _own("Q202", "Signal to noise ratio"),
            "EdgeWidth": _own("Q204", "Edge width"), "TissueShare": _own("Q205", "Share of tissue"),
            "PredictedNoise": _own("Q206", "Noise seen by the network"), "PredictedWidth": _own("Q207", "Edge width seen by the network"),
            "PredictedArtefact": _own("Q208", "Artefact seen by the network"), "ExpectedNoise": _own("Q209", "Noise that the protocol suggests")}
ACQUISITION = {
    "KVP": KVP, "XRayTubeCurrent": TUBE_CURRENT, "ExposureTime": EXPOSURE_TIME, "SliceThickness": SLICE_THICKNESS,
    "CTDIvol": _own("Q301", "CTDIvol"), "Exposure": _own("Q302", "Exposure"), "TubeCurrentTimeProduct": _own("Q303", "Tube current-time product"),
    "EffectiveTubeCurrentTimeProduct": _own("Q304", "Effective tube current-time product"), "SpiralPitchFactor": _own("Q305", "Spiral Pitch Factor"),
    "ReconstructionDiameter": _own("Q306", "Reconstruction Diameter"), "SliceIncrement": _own("Q307", "Slice increment"),
    "PixelSpacingRow": _own("Q308", "Pixel spacing of rows"), "PixelSpacingColumn": _own("Q309", "Pixel spacing of columns"),
    "EchoTime": _own("Q310", "Echo Time"), "RepetitionTime": _own("Q311", "Repetition Time"), "InversionTime": _own("Q312", "Inversion Time"),
    "FlipAngle": _own("Q313", "Flip Angle"), "MagneticFieldStrength": _own("Q314", "Magnetic Field Strength"),
    "NumberOfAverages": _own("Q315", "Number of Averages"), "PixelBandwidth": _own("Q316", "Pixel Bandwidth"),
    "EchoTrainLength": _own("Q317", "Echo Train Length"), "ParallelReductionFactorInPlane": _own("Q318", "Parallel Reduction Factor in-plane"),
    "VoxelVolume": _own("Q319", "Voxel volume"), "RevolutionTime": _own("Q320", "Revolution Time"),
    "SingleCollimationWidth": _own("Q321", "Single Collimation Width"), "TotalCollimationWidth": _own("Q322", "Total Collimation Width"),
    "TableFeedPerRotation": _own("Q323", "Table Feed per Rotation"), "DataCollectionDiameter": _own("Q324", "Data Collection Diameter"),
    "GantryDetectorTilt": _own("Q325", "Gantry/Detector Tilt"), "ImagingFrequency": _own("Q326", "Imaging Frequency"),
    "PercentSampling": _own("Q327", "Percent Sampling"), "NumberOfPhaseEncodingSteps": _own("Q328", "Number of Phase Encoding Steps"),
    "SAR": _own("Q329", "SAR"),
}
DEGRADATIONS = {"noise": _own("Q401", "Quantum or thermal noise"), "blur": _own("Q402", "Low resolution"), "streak": _own("Q403", "Streaks"),
                "motion": _dcm("111210", "Motion blur"), "ring": _own("Q404", "Rings"), "ghost": _own("Q405", "Ghosts"),
                "undersampling": _own("Q406", "Undersampling artefacts"), "spike": _own("Q407", "Spikes in k-space")}
POINTS, SHARE, NO_UNITS = unit("{0:100}", "range:0:100"), unit("{0:1}", "range:0:1"), unit("1", "no units")
UNITS = {"[hnsf'U]": "Hounsfield unit", "1": "no units", "mm": "mm", "mm3": "cubic millimeter", "kV": "Kilovolt", "mA": "mA", "ms": "millisecond",
         "s": "second", "mA.s": "mA.s", "mGy": "mGy", "T": "Tesla", "deg": "Degree", "Hz": "Hertz", "MHz": "Megahertz", "%": "Percent",
         "W/kg": "Watt per kilogram"}
PURPOSE_SOURCE_IMAGE = _dcm("121322", "Source image for image processing operation")
PROCESSING_EQUIPMENT = _dcm("109102", "Processing Equipment")


@dataclass(frozen=True)
class Row:
    """One line of docs/codes.md."""

    code: Code
    used_for: str


def all_codes() -> list[Row]:
    """Every code of this module, own ones first, with all its uses."""
    uses: dict[Code, list[str]] = {}
    for name, item in sorted(globals().items()):
        for key, code in item.items() if isinstance(item, dict) else [("", item)]:
            if isinstance(code, Code):
                uses.setdefault(code, []).append(name.lower().replace("_", " ") + (f": {key}" if key else ""))
    rows = [Row(code, "; ".join(words)) for code, words in uses.items()]
    return sorted(rows, key=lambda r: (r.code.scheme_designator != SCHEME, r.code.scheme_designator, r.code.value))


def manual() -> str:
    """docs/codes.md."""
    lines = ["# Codes in our reports", "",
             f"Made from `node/report/codes.py`. Codes of the private scheme `{SCHEME}` (version {SCHEME_VERSION}, \"{SCHEME_NAME}\") are added, never",
             "reused; the others are those of the standard (PS3.16), of SNOMED CT, LOINC and UCUM.", "",
             "| code | scheme | meaning | used for |", "|---|---|---|---|"]
    lines += [f"| {r.code.value} | {r.code.scheme_designator} | {r.code.meaning} | {r.used_for} |" for r in all_codes()]
    lines += ["", "Units (UCUM) of measures and acquisition parameters:", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in UNITS.items()]
    return "\n".join(lines) + "\n"
