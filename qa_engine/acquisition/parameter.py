"""How one parameter is read: keyword, where enhanced objects keep it, unit, plausible range.

A value is used as it stands in the header or not at all. Why it is not used is one of: missing, zero, not a number, wrongly typed (its VR
cannot hold it, or it is no number by its VR), `n values instead of m`, not plausible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from statistics import median, median_low
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import ISfloat

from qa_engine.assessment import Finding, Quantity
from qa_engine.header import UNREADABLE, find, number, text
from qa_engine.volume import Acquisition

VARIES = 0.05
"""A relative spread above this is told as a finding."""
TOLD = frozenset({"missing", "zero"})
"""Reasons that are common and harmless; any other is worth a finding."""
MAX_TEXT = 64
LONGEST_DS = 16
"""Characters of a decimal string (PS3.5 6.2)."""
MEASURES = ("PixelMeasuresSequence",)
Image = tuple[Dataset, int | None]
"""One image: its data set and its 0-based frame there, None for single-frame objects."""


@dataclass(frozen=True)
class Number:
    """A number in `unit`; `low` and `high` bound what is believed. `sequences`: functional groups of enhanced objects, which may use
    another keyword (`enhanced`). `place` and `count`: which value of how many."""

    name: str
    unit: str
    low: float
    high: float
    sequences: tuple[str, ...] = ()
    enhanced: str = ""
    keyword: str = ""
    place: int = 0
    count: int = 1


@dataclass(frozen=True)
class Text:
    """A text of at most MAX_TEXT characters; several values are joined by a backslash."""

    name: str
    sequences: tuple[str, ...] = ()
    enhanced: str = ""


@dataclass
class Collected:
    """What has been read so far; becomes an Acquisition."""

    values: dict[str, Quantity] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def number(self, name: str) -> float | None:
        """A number that was read, None when absent."""
        found = self.values.get(name)
        return float(found.value) if found is not None and not isinstance(found.value, str) else None

    def derive(self, name: str, value: float, unit: str) -> None:
        """A number that follows from others, to four digits."""
        self.values[name] = Quantity(float(f"{value:.4g}"), unit)

    def leave_out(self, name: str, reason: str) -> None:
        """Say why there is no value."""
        self.absent[name] = reason
        if reason not in TOLD:
            self.findings.append(Finding("parameter-unusable", f"{name} is left out: {reason}."))

    def acquisition(self) -> Acquisition:
        return Acquisition(dict(self.values), dict(self.absent), tuple(self.findings))


def _found(image: Image, p: Number | Text) -> Any:
    """The value as pydicom gives it, UNREADABLE, or None."""
    ds, frame = image
    for keyword in (getattr(p, "keyword", "") or p.name, p.enhanced):
        value = find(ds, keyword, *p.sequences, frame=frame, unreadable=UNREADABLE) if keyword else None
        if value is not None:
            return value
    return None


def amount(image: Image, p: Number) -> float | str | None:
    """The number of one image; a text says why a value is not used; None when there is none."""
    value = _found(image, p)
    if value is None:
        return None
    values = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
    if len(values) != p.count:
        return f"{len(values)} values instead of {p.count}"
    one = values[p.place]
    if isinstance(one, ISfloat) or not isinstance(one, (int, float, Decimal)):
        return "wrongly typed" if not isinstance(one, str) or number(one) is not None else "not a number"
    plain = number(one)
    if plain is None:
        return "not a number"
    if plain == 0.0 and p.low > 0:
        return "zero"
    return plain if p.low <= plain <= p.high else f"not plausible ({plain:g})"


def read_number(into: Collected, images: Sequence[Image], p: Number) -> None:
    """Put the parameter into `values`, or the reason into `absent`. Of different values the middle one stands, always a recorded one."""
    answers = [amount(image, p) for image in images]
    found = [a for a in answers if isinstance(a, float)]
    if not found:
        reasons = Counter(a for a in answers if isinstance(a, str))
        into.leave_out(p.name, reasons.most_common(1)[0][0] if reasons else "missing")
        return
    if len(found) < len(answers):
        into.findings.append(Finding("parameter-incomplete", f"{p.name} is usable in {len(found)} of {len(answers)} images."))
    if max(found) - min(found) > VARIES * max(map(abs, found)):
        into.findings.append(Finding("parameter-varies", f"{p.name} varies from {min(found):g} to {max(found):g} {p.unit}."))
    into.values[p.name] = Quantity(as_recorded(median_low(found)), p.unit)


def read_text(into: Collected, images: Sequence[Image], p: Text) -> None:
    """The most frequent text of the series."""
    answers = [v for image in images if (v := _found(image, p)) is not None]
    values = [text(v)[:MAX_TEXT] for v in answers if isinstance(v, str) or (isinstance(v, MultiValue) and all(isinstance(w, str) for w in v))]
    values = [v for v in values if v]
    if not values:
        into.leave_out(p.name, "wrongly typed" if answers else "missing")
        return
    if len(set(values)) > 1:
        into.findings.append(Finding("parameter-varies", f"{p.name} has {len(set(values))} different values."))
    into.values[p.name] = Quantity(Counter(values).most_common(1)[0][0], "")


def as_recorded(value: float) -> float | int:
    """The number with the digits that it was recorded with: whole ones as int, 32-bit floats without the noise of their conversion."""
    if value == int(value):
        return int(value)
    if len(repr(value)) <= LONGEST_DS:
        return value
    with np.errstate(over="ignore"):
        short = np.float32(value)
    return float(str(short)) if float(short) == value else value


def read_geometry(into: Collected, images: Sequence[Image], places: Sequence[float]) -> None:
    """Slice thickness, pixel size, and the distance of the slices: from their places (mm, ascending), not from a header's word for it."""
    for p in (Number("SliceThickness", "mm", 0.01, 500, MEASURES),
              Number("PixelSpacingRow", "mm", 0.01, 100, MEASURES, keyword="PixelSpacing", count=2),
              Number("PixelSpacingColumn", "mm", 0.01, 100, MEASURES, keyword="PixelSpacing", place=1, count=2)):
        read_number(into, images, p)
    gaps = [b - a for a, b in pairwise(places)]
    if not gaps:
        into.absent["SliceIncrement"] = "fewer than two positions"
        return
    middle = median(gaps)
    into.values["SliceIncrement"] = Quantity(as_recorded(round(middle, 4)), "mm")
    if max(gaps) - min(gaps) > 0.1 * middle:
        into.findings.append(Finding("slice-increment-varies",
                                     f"The distance of the slices varies from {min(gaps):.2f} to {max(gaps):.2f} mm."))
