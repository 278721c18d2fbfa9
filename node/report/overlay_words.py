"""What the overlay says, in plain words: pure functions from an Assessment to short texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.datadict import dictionary_description, tag_for_keyword

from node.report.context import RenderContext
from qa_engine.assessment import Assessment, Degradation, Quantity, SliceScore
from qa_engine.description import amount_text, consequence, poor_slices
from qa_engine.description_words import NAMES
from qa_engine.outcome import TABLE, Severity, Verdict
from qa_engine.pictures import ct_window

GRADE = {Severity.NONE: 0, Severity.MILD: 1, Severity.MODERATE: 2, Severity.SEVERE: 3}
END_WORDS = {"F": "feet", "H": "head", "A": "front", "P": "back", "R": "right", "L": "left"}
LIMITED_BELOW = 85.0
"""Points from which on nothing is said to limit a slice."""
ASPECT_OF = {"noise": "noise", "blur": "sharpness"}
"""Degradation type -> the aspect that it lowers; any other lowers `artefact`."""
OUTLIER = {"noise": "noisier", "structure": "streaky", "blur": "softer"}
"""What an outlier slice differs in, in one word."""
ABOUT_HEADERS = ("exposure-", "parameter-", "slice-increment-", "source-header", "character-set", "identity-")
"""Beginnings of the codes of findings about values rather than images; told last."""
PARAMETERS = {
    "CT": (("KVP", "Tube voltage"), ("TubeCurrentTimeProduct", "Current \u00d7 time"), ("XRayTubeCurrent", "Tube current"),
           ("CTDIvol", "CTDIvol"), ("SliceThickness", "Slice thickness"), ("SliceIncrement", "Slice distance"), ("ConvolutionKernel", "Kernel"),
           ("PixelSpacingRow", "Pixel"), ("SpiralPitchFactor", "Pitch"), ("RevolutionTime", "Rotation"), ("Exposure", "Exposure"),
           ("ReconstructionDiameter", "Field of view")),
    "MR": (("MagneticFieldStrength", "Field"), ("RepetitionTime", "TR"), ("EchoTime", "TE"), ("InversionTime", "TI"), ("FlipAngle", "Flip angle"),
           ("SliceThickness", "Slice thickness"), ("SliceIncrement", "Slice distance"), ("PixelSpacingRow", "Pixel"),
           ("PixelBandwidth", "Bandwidth"), ("NumberOfAverages", "Averages"), ("AcquisitionMatrix", "Matrix"), ("EchoTrainLength", "Echo train")),
}
SHOWN_UNITS = {"mA.s": "mAs", "1": "", "deg": "\u00b0", "mm3": "mm\u00b3"}


@dataclass(frozen=True)
class Aspect:
    """One of the three axes: points 0..100 (100 is best), squares 0..3 and what was found, worst first."""

    name: str
    points: float | None
    grade: int
    found: str


def shown_quantity(name: str, quantity: Quantity) -> str:
    """A parameter for people: three digits, common signs for units."""
    unit = "Hz/pixel" if name == "PixelBandwidth" else SHOWN_UNITS.get(quantity.unit, quantity.unit)
    value = quantity.value
    if not isinstance(value, str):
        value = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value}{unit}" if unit == "\u00b0" else f"{value} {unit}".strip()


def parameters(a: Assessment, most: int) -> list[tuple[str, str]]:
    """Label and value of the acquisition parameters that matter most for the modality."""
    return [(label, shown_quantity(name, a.acquisition[name])) for name, label in PARAMETERS.get(a.modality, ()) if name in a.acquisition][:most]


def aspects(a: Assessment) -> tuple[Aspect, ...]:
    """Noise, sharpness and artefacts with their degradations."""
    return tuple(_aspect(name, points, [d for d in a.degradations if ASPECT_OF.get(d.type, "artefact") == key])
                 for key, name, points in (("noise", "Noise", a.noise), ("sharpness", "Sharpness", a.sharpness), ("artefact", "Artefacts", a.artefact)))


def _aspect(name: str, points: float | None, found: Sequence[Degradation]) -> Aspect:
    worst_first = sorted(found, key=lambda d: -GRADE[d.severity])
    told = [f"{d.severity} {NAMES[d.type]}" for d in worst_first if d.severity is not Severity.NONE]
    if len(told) == 1:  # there is no room for the amounts of several
        told = [told[0] + _amount(worst_first[0])]
    return Aspect(name, points, GRADE[worst_first[0].severity] if told else 0, ", ".join(told) or "nothing found")


def _amount(d: Degradation) -> str:
    amount = amount_text(d).replace("of the tissue signal", "of the signal")
    return f", {amount}" if amount else ""


def interval_reason(verdict: str, interval: tuple[float, float], thresholds: tuple[float, float]) -> str:
    """Why the interval gives this verdict."""
    (low, high), (reject_below, good_from) = interval, thresholds
    if verdict == Verdict.GOOD:
        return f"The whole interval lies at {good_from:g} or above."
    if verdict == Verdict.REJECT:
        return f"The whole interval lies below {reject_below:g}."
    if high >= reject_below and f"{high:.0f}" == f"{reject_below:g}":  # the rounded ends would seem to say Reject
        return f"The interval ends at {high:.1f}, not below {reject_below:g}."
    if low < good_from and f"{low:.0f}" == f"{good_from:g}":
        return f"The interval begins at {low:.1f}, below {good_from:g}."
    if low < reject_below and high >= good_from:
        return "The interval spans all three zones: not certain."
    if low < reject_below:
        return "The interval lies only partly in the Reject zone."
    return "The interval lies only partly in the Good zone." if high >= good_from else "The interval lies between the two limits."


def what_was_scored(a: Assessment) -> tuple[str, str, str]:
    """Before, in the middle (free text of the series, may be cut) and behind: modality and region, description, number of images."""
    region = (a.region or "").split(" ")[0]
    number = "" if a.facts.series_number is None else f"series {a.facts.series_number}"
    images = a.facts.stack_size or a.instances
    kind = f"{a.purpose} kernel" if a.modality == "CT" and a.purpose else ""
    return (" \u00b7 ".join(part for part in (f"{a.modality} {region}".strip(), kind, number) if part), a.description,
            f"{images} image{'s' if images != 1 else ''}")


def remarks(a: Assessment) -> list[str]:
    """What it means and what to do, then the findings: those about images before those about values in the header."""
    poor = poor_of(a)
    meaning = "" if a.verdict is None else consequence(a, poor)
    notes = sorted(a.findings, key=lambda f: f.code.startswith(ABOUT_HEADERS))
    return [words for words in (poor, meaning, *(plain(f.text) for f in notes)) if words]


def poor_of(a: Assessment) -> str:
    """The sentence of `poor_slices` for a scored series."""
    return "" if a.score is None or a.thresholds is None else poor_slices(a.slices, a.score, a.thresholds[0])


def plain(words: str) -> str:
    """DICOM keywords and UCUM units of a finding as people write them."""
    def spoken(match: re.Match[str]) -> str:
        tag = tag_for_keyword(match.group())
        return match.group() if tag is None else dictionary_description(tag)

    return re.sub(r"\b[A-Z][A-Za-z]*[a-z][A-Z][A-Za-z]*\b", spoken, words).replace("mA.s", "mAs")


def window_text(a: Assessment) -> str:
    """The CT window of the pictures; MR has no unit that would tell anything."""
    if a.modality != "CT":
        return ""
    low, high = ct_window(a.purpose, a.region)
    return f"W {high - low:.0f} L {(high + low) / 2:.0f}"


def place_text(s: SliceScore) -> list[str]:
    """Where the viewer shows the slice: frame or Instance Number, and the position along the normal in mm."""
    number = f"frame {s.frame}" if s.frame is not None else "" if s.instance_number is None else f"image {s.instance_number}"
    return [words for words in (number, "" if s.position_mm is None else f"position {s.position_mm:.1f} mm") if words]


def limited_by(s: SliceScore) -> str:
    """What costs the slice most; "" where nothing costs much."""
    return "" if s.score >= LIMITED_BELOW else "limited by " + min(((s.noise, "noise"), (s.sharpness, "blur"), (s.artefact, "artefacts")))[1]


def stack_ends(a: Assessment) -> tuple[str, str]:
    """Words for the first and the last slice of the stack; "" where the orientation is unknown."""
    first, last = (END_WORDS.get(letter, "") for letter in a.facts.ends)
    return first, last


def share_text(weight: float) -> str:
    """The weight of a slice in per cent."""
    return f"{100 * weight:.0f} %" if weight >= 0.0095 else f"{100 * weight:.1f} %"


def not_assessed_code(a: Assessment) -> str:
    """End and reason as database and report spell them."""
    return f"{a.end}: {a.reason}"


def again_text(a: Assessment) -> str:
    """Whether the same series may get a number another time."""
    return "Another try may help." if any(row.again_helps for row in TABLE if row.reason is a.reason) else ""


def foot_texts(a: Assessment, context: RenderContext) -> tuple[str, str, str, str]:
    """Who said so: our version; the model's name (may be cut); its hash, revision, time; the node (may be cut)."""
    name, digest = ("", "") if a.model is None else (f"model {a.model.profile} {a.model.version}", f"({a.model.sha256[:8]})")
    node = "offline, no node" if context.node_id == "offline" else f"node {context.node_name}"
    behind = (digest, f"revision {context.revision}", context.made_at.strftime("%Y-%m-%d %H:%M UTC"))
    return f"MedIQA Node {context.version}", name, " \u00b7 ".join(part for part in behind if part), node
