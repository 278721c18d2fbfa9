"""Reading of header values that may be anything: missing, of a wrong type, absurd. Nothing here raises; a bad value is None or "".

Enhanced multi-frame objects keep values in functional groups (PS3.3 C.7.6.16): `find` looks into the frame's own, then the shared one,
then the root.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

MAX_TEXT = 256


def raw(ds: Dataset, keyword: str) -> Any:
    """The value of a keyword, None when absent, empty or impossible to decode."""
    try:
        value = ds.get(keyword)
    except Exception:  # pydicom raises many kinds of errors on hostile elements; any of them means: no value
        return None
    return None if value is None or value == "" else value


def number(value: Any) -> float | None:
    """A finite float out of a value or the first of several; None otherwise."""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite floats; None otherwise."""
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        found = [number(v) for v in value]
    except TypeError:
        return None
    return tuple(found) if len(found) == count and all(v is not None for v in found) else None  # type: ignore[arg-type]


def integer(value: Any) -> int | None:
    """An int below 2^31 in size; None otherwise."""
    found = number(value)
    return int(found) if found is not None and abs(found) < 2 ** 31 and found == int(found) else None


def text(value: Any) -> str:
    """Printable text of at most MAX_TEXT characters; several values joined by a backslash."""
    if value is None or isinstance(value, (bytes, Sequence, Dataset)):
        return ""
    if not isinstance(value, str) and isinstance(value, Iterable):
        value = "\\".join(str(v) for v in value)
    return "".join(c for c in str(value) if c.isprintable()).strip()[:MAX_TEXT]


def texts(value: Any) -> tuple[str, ...]:
    """Each value of a multi-valued text, upper case."""
    return tuple(part.strip().upper() for part in text(value).split("\\") if part.strip())


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; [] when it is none."""
    value = raw(ds, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def groups(ds: Dataset, frame: int | None) -> Iterator[Dataset]:
    """The data sets in which a value of a frame (0-based) may stand: its own functional groups, the shared ones, the root."""
    if frame is not None:
        own = items(ds, "PerFrameFunctionalGroupsSequence")
        if frame < len(own):
            yield own[frame]
        yield from items(ds, "SharedFunctionalGroupsSequence")[:1]
    yield ds


def find(ds: Dataset, keyword: str, *sequences: str, frame: int | None = None) -> Any:
    """The value of `keyword` at the root, or in the functional groups under one of `sequences` (the frame's own first)."""
    for group in groups(ds, frame):
        if group is ds:
            value = raw(ds, keyword)
            if value is not None:
                return value
        for sequence in sequences:
            for item in items(group, sequence)[:1]:
                value = raw(item, keyword)
                if value is not None:
                    return value
    return None
