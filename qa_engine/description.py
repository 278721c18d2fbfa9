"""The five aspects of MedQ-UNI for a scored series: what it is, what is wrong, why, what it means, what to do. Rules and fixed sentences only.

`describe` makes a structured record from an Assessment; its sentences are the text of the result. Technical limits, never a diagnosis; ASCII, so that
they fit any character set. What a cause says about dose is said only where `expected_noise` supports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qa_engine.assessment import Assessment, Degradation, Quantity, SliceScore
from qa_engine.description_words import ADVICE, CAUSES, NAMES, UNITS, impact_text
from qa_engine.expected_noise import constants
from qa_engine.outcome import Reason, Severity, Verdict, sentence

EXPECTED = "ExpectedNoise"
"""Measure that holds the noise that the protocol suggests, HU."""


@dataclass(frozen=True)
class Subject:
    """Modality, and region as the words of the product; None where it is unknown or header and pixels disagree."""

    modality: str
    region: str | None


@dataclass(frozen=True)
class Cause:
    """Technical cause of one degradation. compared: `above` or `explained` where the measured amount was compared with what the protocol
    suggests, "" elsewhere; text "" where the parameters say nothing."""

    type: str
    compared: str
    text: str


@dataclass(frozen=True)
class Impact:
    """What one degradation means for who looks at the images."""

    type: str
    severity: Severity
    text: str


@dataclass(frozen=True)
class Recommendation:
    """The verdict and what to do."""

    verdict: Verdict
    action: str


@dataclass(frozen=True)
class Description:
    """The five aspects. degradations, causes and impacts are in the same order, worst first; `where` says at which slice, `told` whether the impact
    is worth a sentence."""

    subject: Subject
    degradations: tuple[Degradation, ...]
    causes: tuple[Cause, ...]
    impacts: tuple[Impact, ...]
    recommendation: Recommendation
    where: str = ""
    told: bool = True
    certainty: str = ""
    """What the interval is made of."""

    def aspects(self) -> tuple[str, str, str, str, str]:
        """One plain text per aspect, "" where there is nothing to say. Cause and impact speak of the worst degradation, the cause also of noise
        that the protocol does not explain."""
        region = self.subject.region
        what = f"{self.subject.modality} of the {region}." if region else f"{self.subject.modality} series."
        why = " ".join(c.text for k, c in enumerate(self.causes) if c.text and (k == 0 or c.compared == "above"))
        return (what, self._wrong(), why, self.impacts[0].text if self.told else "",
                f"Verdict {self.recommendation.verdict}: {self.recommendation.action}.")

    def text(self) -> str:
        """All aspects as one paragraph."""
        return " ".join(part for part in (*self.aspects(), self.certainty) if part)

    def _wrong(self) -> str:
        if not self.degradations:
            return f"No degradation beyond what the model calls none{self.where}."
        named = [f"{d.severity} {NAMES.get(d.type, d.type)}" + (f" ({amount_text(d)})" if amount_text(d) else "") for d in self.degradations]
        joined = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
        return f"{joined[:1].upper()}{joined[1:]}{self.where}."


def describe(a: Assessment) -> Description:
    """The record of a scored series. ValueError for one without a number."""
    worst = a.worst_slice
    if a.score is None or a.verdict is None or worst is None:
        raise ValueError("only a scored series has a description")
    contradicted = any(f.code == "region-mismatch" for f in a.findings)
    region = a.region.split(" ")[0] if a.region and not contradicted else None
    size = a.facts.stack_size or a.instances
    where = "" if size < 2 else f", worst at slice {worst.ordinal} of {size}" if a.degradations else f"; lowest score at slice {worst.ordinal} of {size}"
    poor = "" if a.thresholds is None else poor_slices(a.slices, a.score, a.thresholds[0])
    return Description(
        Subject(a.modality, region), a.degradations, tuple(cause(a, d) for d in a.degradations),
        tuple(Impact(d.type, d.severity, impact_text(region, d.type, d.severity)) for d in a.degradations),
        Recommendation(Verdict(a.verdict), action(a, poor)), where, _worth_telling(a), certainty(a))


def certainty(a: Assessment) -> str:
    """The two parts of the interval: only the second falls when the model learns more of such images."""
    if a.interval is None or a.interval_parts is None:
        return ""
    image, training = a.interval_parts
    return (f"90% interval {a.interval[0]:.0f} to {a.interval[1]:.0f}: the image leaves {image:.0f} points open to either side, "
            f"the training data {training:.0f} more.")


def cause(a: Assessment, degradation: Degradation) -> Cause:
    """What the parameters of the acquisition say about one degradation."""
    wanted, hint = CAUSES.get((a.modality, degradation.type), ((), ""))
    told = ", ".join(f"{label} {_quantity(a.acquisition[name])}" for name, label in wanted if name in a.acquisition)
    recorded = f"Recorded: {told}." if told else ""
    compared, words = _compared(a, degradation)
    if hint and "NumberOfAverages" in a.acquisition:
        words = hint
    return Cause(degradation.type, compared, " ".join(part for part in (words, recorded) if part))


def _compared(a: Assessment, degradation: Degradation) -> tuple[str, str]:
    """Noise of CT against what the protocol suggests, with the spread of that suggestion."""
    expected, measured = a.measures.get(EXPECTED), a.measures.get("NoiseStandardDeviation")
    if degradation.type != "noise" or a.modality != "CT" or expected is None or measured is None:
        return "", ""
    if isinstance(expected.value, str) or isinstance(measured.value, str):
        return "", ""
    factor = constants().factor
    if measured.value > factor * expected.value:
        return "above", (f"Noise {measured.value:.0f} HU where this protocol's dose, kernel and body size suggest {expected.value:.0f} HU "
                         f"(within a factor of {factor:.1f}): they do not explain it.")
    return "explained", (f"Noise {measured.value:.0f} HU is no more than this protocol's dose, kernel and body size suggest "
                         f"({expected.value:.0f} HU, within a factor of {factor:.1f}).")


def action(a: Assessment, poor: str = "") -> str:
    """What to do, without the full stop; `poor` is the sentence of `poor_slices`."""
    look = poor.rstrip(".")
    if not _needed(a):
        return look or "no action needed"
    if not a.degradations:
        return look or f"look at slice {a.worst_slice.ordinal if a.worst_slice else 1}, which scores lowest"
    advice = ADVICE.get((a.modality, a.degradations[0].type), "check the protocol")
    return f"{look}; {advice}" if look else advice


def _needed(a: Assessment) -> bool:
    """Whether something should be done: the verdict is not Good, or the worst degradation is severe."""
    return a.verdict != Verdict.GOOD or any(d.severity is Severity.SEVERE for d in a.degradations[:1])


def _worth_telling(a: Assessment) -> bool:
    """Whether the impact of the worst degradation is: not when a Good series has mild ones alone."""
    return bool(a.degradations) and not (a.verdict == Verdict.GOOD and a.degradations[0].severity in (Severity.NONE, Severity.MILD))


def consequence(a: Assessment, poor: str = "") -> str:
    """Impact of the worst degradation and what to do, for the picture, which tells of verdict, degradations and `poor` slices in other places."""
    impact = describe(a).impacts[0].text if _worth_telling(a) else ""
    last = f"Recommendation: {action(a)}." if _needed(a) else "" if poor else "No action needed."
    return " ".join(part for part in (impact, last) if part)


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


def poor_slices(slices: Sequence[SliceScore], score: float, reject_below: float) -> str:
    """Single slices that lie so low that a better total must not hide them; "" when there is none or the total says so itself."""
    count = sum(s.score < reject_below for s in slices)
    if count == 0 or score < reject_below:
        return ""
    worst = min(slices, key=lambda s: s.score).ordinal
    return f"{count} of {len(slices)} scored slices {'lies' if count == 1 else 'lie'} below {reject_below:g}: look at slice {worst}."


def describe_other(reason: Reason) -> str:
    """One sentence about a series that got no number."""
    return f"Not assessed: {sentence(reason)[:1].lower()}{sentence(reason)[1:]}"
