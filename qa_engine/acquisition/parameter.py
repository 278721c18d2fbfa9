"""How one parameter is read: keyword, where enhanced objects keep it, unit, plausible range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pydicom.dataset import Dataset

from qa_engine.assessment import Finding, Quantity
from qa_engine.header import find, integer, items, number, raw, text
from qa_engine.volume import Acquisition

MAX_FRAMES = 64
VARIES = 0.05
"""A relative spread above this is told as a finding."""


@dataclass(frozen=True)
class Number:
    """A number in `unit`; `low` and `high` bound what is believed. `sequences`: functional groups of enhanced objects."""

    name: str
    unit: str
    low: float
    high: float
    sequences: tuple[str, ...] = ()
    keyword: str = ""
    factor: float = 1.0
    place: int = 0
    """Which value of a multi-valued attribute."""


@dataclass(frozen=True)
class Text:
    """A text of at most 64 characters."""

    name: str
    sequences: tuple[str, ...] = ()
    keyword: str = ""


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

    def acquisition(self) -> Acquisition:
        return Acquisition(dict(self.values), dict(self.absent), tuple(self.findings))


def everywhere(headers: Sequence[Dataset], keyword: str, sequences: tuple[str, ...]) -> list[Any]:
    """The values of a keyword in all objects, of enhanced ones in frames spread over the object."""
    found = []
    for ds in headers:
        frames = len(items(ds, "PerFrameFunctionalGroupsSequence"))
        if frames and sequences:
            step = max(1, frames // MAX_FRAMES)
            found += [find(ds, keyword, *sequences, frame=k) for k in range(0, frames, step)]
        else:
            found.append(find(ds, keyword, *sequences, frame=0 if sequences else None))
    return found


def read_number(into: Collected, headers: Sequence[Dataset], p: Number, convert: Callable[[Any], Any] | None = None) -> None:
    """Put the parameter into `values`, or the reason into `absent`."""
    keyword = p.keyword or p.name
    values = [v for v in everywhere(headers, keyword, p.sequences) if v is not None]
    if not values:
        into.absent[p.name] = "missing"
        return
    found, reasons = [], Counter[str]()
    for value in values:
        single = value
        if p.place or type(value).__name__ == "MultiValue":
            single = value[p.place] if hasattr(value, "__len__") and len(value) > p.place else None
        one = number(convert(single) if convert is not None else single)
        if one is None:
            reasons["not a number"] += 1
        elif one == 0:
            reasons["zero"] += 1
        elif not p.low <= one * p.factor <= p.high:
            reasons[f"not plausible ({one:g})"] += 1
        else:
            found.append(one * p.factor)
    if not found:
        into.absent[p.name] = reasons.most_common(1)[0][0]
        return
    middle = median(found)
    if max(found) - min(found) > VARIES * abs(middle):
        into.findings.append(Finding("parameter-varies", f"{p.name} varies from {min(found):g} to {max(found):g} {p.unit}."))
    into.values[p.name] = Quantity(_tidy(middle), p.unit)


def read_text(into: Collected, headers: Sequence[Dataset], p: Text) -> None:
    """The most frequent text of the series."""
    values = [text(v)[:64] for v in everywhere(headers, p.keyword or p.name, p.sequences)]
    values = [v for v in values if v]
    if not values:
        into.absent[p.name] = "missing"
        return
    into.values[p.name] = Quantity(Counter(values).most_common(1)[0][0], "")


def _tidy(value: float) -> float | int:
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e9 else rounded


def read_geometry(into: Collected, headers: Sequence[Dataset]) -> None:
    """Slice thickness, distance of the slices and pixel size; the distance from positions, not from a header's word for it."""
    from qa_engine.frames import frames_of
    from qa_engine.geometry import split_stacks

    measures = ("PixelMeasuresSequence",)
    read_number(into, headers, Number("SliceThickness", "mm", 0.01, 500, measures))
    read_number(into, headers, Number("PixelSpacingRow", "mm", 0.01, 100, measures, "PixelSpacing"))
    read_number(into, headers, Number("PixelSpacingColumn", "mm", 0.01, 100, measures, "PixelSpacing", place=1))
    frames = [f for ds in headers for f in frames_of(ds.filename if hasattr(ds, "filename") else "", ds)][:2000]
    located = [f for f in frames if f.position is not None and f.orientation is not None]
    keys = Counter(f.geometry_key() for f in located)
    located = [f for f in located if f.geometry_key() == keys.most_common(1)[0][0]] if keys else []
    if len(located) < 2:
        into.absent["SliceIncrement"] = "fewer than two positions"
        return
    places = [f.place() for f in located]
    stack = split_stacks(places, [f.instance_number or k for k, f in enumerate(located)])[0]
    gaps = [b - a for a, b in zip([places[k] for k in stack], [places[k] for k in stack[1:]], strict=False) if b - a > 1e-3]
    if not gaps:
        into.absent["SliceIncrement"] = "all positions are equal"
        return
    middle = median(gaps)
    into.values["SliceIncrement"] = Quantity(_tidy(round(middle, 4)), "mm")
    if max(gaps) - min(gaps) > 0.1 * middle:
        into.findings.append(Finding("slice-increment-varies",
                                     f"The distance of the slices varies from {min(gaps):.2f} to {max(gaps):.2f} mm."))


def first_integer(headers: Sequence[Dataset], keyword: str) -> int | None:
    """The first usable integer of a keyword."""
    return next((v for ds in headers if (v := integer(raw(ds, keyword))) is not None), None)
