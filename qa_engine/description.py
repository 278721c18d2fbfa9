"""Plain sentences from the structured result, the five aspects of MedQ-UNI: what it is, what is wrong, why, what it means, what to do.

Technical limits only, never a diagnosis; ASCII, so that the text fits any character set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qa_engine.assessment import Degradation, Quantity, SliceScore
from qa_engine.outcome import Reason, Severity, Verdict, sentence

NAMES = {"noise": "noise", "blur": "blur", "streak": "streaks", "motion": "motion artefacts"}
UNITS = {"[hnsf'U]": "HU", "mm": "mm", "1": "of the tissue signal"}
IMPACT = {
    "noise": "Small low-contrast structures may not be told from the background.",
    "blur": "Fine structures and thin edges may not be resolved.",
    "streak": "Streaks may imitate or hide structures along their direction.",
    "motion": "Edges may be doubled and ghosts may overlay structures.",
}
ADVICE = {
    ("CT", "noise"): "check tube current, pitch and slice thickness against the protocol",
    ("CT", "blur"): "check kernel and slice thickness against the protocol",
    ("CT", "streak"): "check for metal, arms in the field and too few projections",
    ("MR", "noise"): "check coil, averages, bandwidth and voxel size against the protocol",
    ("MR", "blur"): "check matrix, echo train and filter against the protocol",
    ("MR", "motion"): "consider a repeat with shorter or motion-robust acquisition while the patient is there",
}


def amount_text(degradation: Degradation) -> str:
    """The amount with its unit for people, "" when there is none."""
    if degradation.amount is None or degradation.unit is None:
        return ""
    if degradation.unit == "1":
        return f"{100 * degradation.amount:.1f}% of the tissue signal"
    return f"{degradation.amount:.3g} {UNITS.get(degradation.unit, degradation.unit)}"


def _quantity(quantity: Quantity) -> str:
    value = quantity.value if isinstance(quantity.value, str) else f"{quantity.value:.4g}"
    return value if quantity.unit in ("", "1") else f"{value} {UNITS.get(quantity.unit, quantity.unit)}"


def _cause(modality: str, kind: str, acquisition: Mapping[str, Quantity]) -> str:
    """What the acquisition parameters say about the cause; "" when they say nothing."""
    def told(*names: tuple[str, str]) -> str:
        return ", ".join(f"{label} {_quantity(acquisition[name])}" for name, label in names if name in acquisition)

    wanted = {
        ("CT", "noise"): (("TubeCurrentTimeProduct", "tube current-time product"), ("CTDIvol", "CTDIvol"), ("SliceThickness", "slice thickness"),
                          ("ConvolutionKernel", "kernel")),
        ("CT", "blur"): (("ConvolutionKernel", "kernel"), ("SliceThickness", "slice thickness")),
        ("CT", "streak"): (("TubeCurrentTimeProduct", "tube current-time product"), ("ReconstructionDiameter", "reconstruction diameter")),
        ("MR", "noise"): (("MagneticFieldStrength", "field strength"), ("NumberOfAverages", "averages"), ("PixelBandwidth", "bandwidth"),
                          ("VoxelVolume", "voxel")),
        ("MR", "blur"): (("AcquisitionMatrix", "matrix"), ("EchoTrainLength", "echo train"), ("SliceThickness", "slice thickness")),
        ("MR", "motion"): (("RepetitionTime", "repetition time"), ("EchoTrainLength", "echo train"), ("NumberOfAverages", "averages")),
    }[(modality, kind)]
    found = told(*wanted).replace("mA.s", "mAs")
    return f"Recorded: {found}." if found else ""


def describe_assessed(modality: str, region: str | None, degradations: tuple[Degradation, ...], acquisition: Mapping[str, Quantity],
                      verdict: str, worst_ordinal: int, stack_size: int, poor: str = "") -> str:
    """Five short sentences about a scored series; `poor` is that of `poor_slices`."""
    what = f"{modality} of the {region.split()[0]}." if region else f"{modality} series."
    if not degradations:
        wrong = "No degradation beyond what the model calls none."
        lowest = f"The lowest score is at slice {worst_ordinal} of {stack_size}."
        return " ".join([what, wrong, poor or ("Nothing to be done." if verdict == Verdict.GOOD else lowest)])
    named = [f"{d.severity} {NAMES[d.type]}" + (f" ({amount_text(d)})" if amount_text(d) else "") for d in degradations]
    joined = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
    where = f", worst at slice {worst_ordinal} of {stack_size}" if stack_size > 1 else ""
    wrong = f"{joined[:1].upper()}{joined[1:]}{where}."
    cause = _cause(modality, degradations[0].type, acquisition)
    return " ".join(part for part in (what, wrong, cause, poor, consequence(modality, degradations, verdict, poor)) if part)


def poor_slices(slices: Sequence[SliceScore], score: float, reject_below: float) -> str:
    """Single slices that lie so low that a better total must not hide them; "" when there is none or the total says so itself."""
    count = sum(s.score < reject_below for s in slices)
    if count == 0 or score < reject_below:
        return ""
    worst = min(slices, key=lambda s: s.score).ordinal
    return f"{count} of {len(slices)} scored slices {'lies' if count == 1 else 'lie'} below {reject_below:g}: look at slice {worst}."


def consequence(modality: str, degradations: Sequence[Degradation], verdict: str, poor: str = "") -> str:
    """What the first degradation means for who looks at the images, and what to do about it; "" without one, or when `poor` says it all."""
    if verdict == Verdict.GOOD and all(d.severity in (Severity.NONE, Severity.MILD) for d in degradations):
        return "" if poor or not degradations else "No action needed."
    if not degradations:
        return ""
    first = degradations[0]
    needed = verdict != Verdict.GOOD or first.severity is Severity.SEVERE
    action = f"Recommendation: {ADVICE[(modality, first.type)]}." if needed else "" if poor else "No action needed."
    return f"{IMPACT[first.type]} {action}".strip()


def describe_other(reason: Reason) -> str:
    """One sentence about a series that got no number."""
    return f"Not assessed: {sentence(reason)[:1].lower()}{sentence(reason)[1:]}"
