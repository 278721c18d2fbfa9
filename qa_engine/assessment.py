"""Frozen result types of the engine: what `assess` hands to the report, the database and `mediqa score --json`.

Every number carries its unit; whatever is absent is None, never 0. `Assessment.to_json` is the contract of DESIGN section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qa_engine.outcome import End, Reason, Severity

WEIGHT_DIGITS = 6
"""Decimals of a weight, so that those of hundreds of slices still sum to 1."""


@dataclass(frozen=True)
class Quantity:
    """A value with its UCUM unit ("1" when dimensionless, "" when the value is text)."""

    value: float | int | str
    unit: str

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "unit": self.unit}


@dataclass(frozen=True)
class Finding:
    """Something worth telling about a series: a short code (kebab-case) and a sentence without patient data."""

    code: str
    text: str


@dataclass(frozen=True)
class SliceScore:
    """Score of one slice. `frame` is 1-based, None for single-frame objects; `weight` sums to 1 over the series."""

    sop_uid: str
    sop_class_uid: str
    frame: int | None
    position_mm: float | None
    score: float
    weight: float
    ordinal: int
    """1-based place of the slice in the sorted stack."""
    noise: float
    sharpness: float
    artefact: float
    instance_number: int | None = None
    """The number under which viewers show the image, None where the header has none."""
    outlier: str = ""
    """What it differs in from the slices around it (noise, structure, blur), "" for one of the evenly spaced slices."""

    def to_json(self) -> dict[str, Any]:
        return {"sop_uid": self.sop_uid, "frame": self.frame, "position_mm": self.position_mm,
                "score": round(self.score, 1), "weight": round(self.weight, WEIGHT_DIGITS)}


@dataclass(frozen=True)
class Degradation:
    """A named degradation (noise, blur, motion, streak, ...), its grade and its amount in a physical unit."""

    type: str
    severity: Severity
    probability: float
    amount: float | None = None
    unit: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "severity": str(self.severity), "probability": round(self.probability, 3),
                "amount": self.amount, "unit": self.unit}


@dataclass(frozen=True)
class ModelIdentity:
    """Profile name, version and sha256 (hex) of the weights file that made the numbers."""

    profile: str
    version: str
    sha256: str


@dataclass(frozen=True)
class SeriesFacts:
    """Facts of the series header that report and database need; never a patient's name or ID."""

    study_uid: str = ""
    series_number: int | None = None
    protocol: str = ""
    body_part: str = ""
    manufacturer: str = ""
    manufacturer_model: str = ""
    station: str = ""
    device_serial: str = ""
    series_date: str = ""
    stack_size: int = 0
    """Slices of the stack that was judged."""
    orientation: str = ""
    """axial, coronal, sagittal or oblique."""
    ends: tuple[str, str] = ("", "")
    """Anatomical direction of the first and the last slice of the sorted stack, e.g. ("F", "H")."""


@dataclass(frozen=True, eq=False)
class SlicePicture:
    """A salient slice as shown: (H, W) uint8, one window for the whole series; row and column spacing in mm."""

    pixels: np.ndarray
    spacing_mm: tuple[float, float]
    markers: tuple[str, str] = ("", "")
    """Anatomical letters at the left edge and the top edge, "" where unknown."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """Immutable result of the engine for one series revision (DESIGN sections 4 to 6)."""

    series_uid: str
    modality: str
    end: End
    reason: Reason | None
    instances: int
    region: str | None = None
    """Region words of the slices, most frequent first, separated by spaces."""
    description: str = ""
    """Series Description of the source."""
    score: float | None = None
    interval: tuple[float, float] | None = None
    interval_parts: tuple[float, float] | None = None
    """Half widths in points before the interval is cut to 0..100: what the image leaves open, what the training set leaves open."""
    verdict: str | None = None
    noise: float | None = None
    sharpness: float | None = None
    artefact: float | None = None
    slices: tuple[SliceScore, ...] = ()
    """In z order."""
    degradations: tuple[Degradation, ...] = ()
    measures: Mapping[str, Quantity] = field(default_factory=dict)
    acquisition: Mapping[str, Quantity] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    text: str = ""
    model: ModelIdentity | None = None
    seconds: Mapping[str, float | None] = field(default_factory=dict)
    """read, network, total; None for what was not done."""
    device: str = ""
    thresholds: tuple[float, float] | None = None
    """(reject_below, good_from) in force."""
    purpose: str = ""
    """soft tissue, lung or bone for CT; "" elsewhere."""
    facts: SeriesFacts = field(default_factory=SeriesFacts)
    pictures: tuple[SlicePicture, ...] = ()
    """One per entry of `slices`, same order; not part of the JSON."""

    @property
    def worst_slice(self) -> SliceScore | None:
        """The slice with the lowest score, None unless assessed."""
        return min(self.slices, key=lambda s: s.score) if self.slices else None

    def to_json(self) -> dict[str, Any]:
        """One entry of `mediqa score --json`, field by field as DESIGN section 7 lists them."""
        def rounded(value: float | None, digits: int = 1) -> float | None:
            return None if value is None else round(value, digits)

        worst = self.worst_slice
        return {
            "series_uid": self.series_uid, "modality": self.modality, "region": self.region,
            "description": self.description, "instances": self.instances, "end": str(self.end),
            "reason": None if self.reason is None else str(self.reason), "score": rounded(self.score),
            "interval": None if self.interval is None else [round(v, 1) for v in self.interval],
            "verdict": self.verdict, "noise": rounded(self.noise), "sharpness": rounded(self.sharpness),
            "artefact": rounded(self.artefact), "worst_slice": None if worst is None else worst.to_json(),
            "slices": [s.to_json() for s in self.slices],
            "degradations": [d.to_json() for d in self.degradations],
            "measures": {k: q.to_json() for k, q in self.measures.items()},
            "acquisition": {k: q.to_json() for k, q in self.acquisition.items()},
            "findings": [{"code": f.code, "text": f.text} for f in self.findings], "text": self.text,
            "model": None if self.model is None else
            {"profile": self.model.profile, "version": self.model.version, "sha256": self.model.sha256},
            "seconds": {k: rounded(self.seconds.get(k), 3) for k in ("read", "network", "total")},
        }
