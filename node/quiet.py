"""The waits of `completion.quiet: auto`, learned per calling AE title and modality from the pauses inside past series (pure).

A series is cut in two exactly when its longest pause is longer than the wait. So what is learned from is one number per series, its longest
gap between two instances, and the wait is a high quantile of those with a margin that shrinks as more series are seen. A pause that did
cut a series is seen all the same, when the rest comes: otherwise short waits would prove themselves right.

After the end of an association (`contiguous`) only a gap between two associations can follow, so the wait for that evidence is learned from
those gaps alone: a sender that pauses with its association open, or interleaves reconstructions on one, is done soon after its release. Only
series count for it in which an association ended while the node was still waiting: of others nobody knows what would have followed.

| constant | value | why |
|---|---|---|
| `FLOOR` | 5 s | the shortest wait: a sender's network and disk make pauses of a second or two at any time |
| `CEILING` | 60 s | the longest wait, and that of a sender not known yet: what others wait by default |
| `ENOUGH` | 20 series | a sender that pauses in 30 % of its series shows no pause in 20 of them once in a thousand times |
| `WINDOW` | 200 series | about two days of a scanner; older habits are forgotten |
| `QUANTILE` | 0.99 | of n + 1 exchangeable series: the longest of all up to 198, then one freak in 200 is forgiven |
| `RECENT` | 20 series | their longest gap always counts, so that a new habit cuts one series, not several |
| `MARGIN`, `DOUBT` | 1.25 + 20 / n | the longest of n series says little of the next one while n is small: 2.25 at 20, 1.35 at 200 |
| `LATE` | 600 s | what comes later is another delivery, no pause: no wait of this module would have caught it |

Only gaps that one receiver process saw from end to end count: what the node itself missed is no habit of the sender.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from node.completion import Waits

FLOOR, CEILING = 5.0, 60.0
ENOUGH, WINDOW, RECENT = 20, 200, 20
QUANTILE = 0.99
MARGIN, DOUBT = 1.25, 20.0
LATE = 600.0


@dataclass(frozen=True)
class Arrived:
    """One instance that was new to its series.

    instance_id: ascending in the order of arrival. mono: monotonic seconds, comparable where `start_id` is the same.
    start_id: the receiver process that took it, None where that is not known. association: the one that brought it.
    """

    instance_id: int
    mono: float
    start_id: str | None
    association: int | None = None


@dataclass(frozen=True)
class Seen:
    """What one series of a sender showed.

    longest: its longest gap, seconds, 0 to LATE. between: its longest gap between two associations, 0 to `longest`, 0 where one was released
    and nothing followed; None where none ended before the series was complete. split: it came in parts.
    """

    series_id: int
    longest: float
    between: float | None = None
    split: bool = False


History = tuple[Seen, ...]
"""At most WINDOW series of one sender and modality, the newest last."""


def learn(history: History, series_id: int, arrived: Sequence[Arrived], seen_before: int | None, released: bool) -> History:
    """The history after a series was taken for complete.

    arrived: all its new instances in order of arrival. seen_before: the newest instance of the revision before, None at the first one.
    released: the association that brought the newest instance had ended by A-RELEASE. A later revision teaches only where its first instance
    came within LATE seconds, that is where the wait was too short. Unchanged where there is nothing to learn from: a single instance, or no
    gap that one receiver saw.
    """
    gaps = [(round(b.mono - a.mono, 3), a, b) for a, b in pairwise(arrived)
            if a.start_id is not None and a.start_id == b.start_id and 0 <= b.mono - a.mono <= LATE]
    split = seen_before is not None and any(a.instance_id <= seen_before < b.instance_id for _, a, b in gaps)
    if not gaps or (seen_before is not None and not split):
        return history
    between = max((gap for gap, a, b in gaps if a.association != b.association), default=0.0 if released else None)
    seen = Seen(series_id, max(gap for gap, _, _ in gaps), between, split)
    if any(known.series_id == series_id for known in history):
        return tuple(seen if known.series_id == series_id else known for known in history)
    return (*history, seen)[-WINDOW:]


@dataclass(frozen=True)
class Learned:
    """Learned waits, whole seconds from FLOOR to CEILING, None before ENOUGH series; `contiguous` is at most `quiet`.

    between: longest gap between two associations of one series so far, seconds.
    """

    quiet: float | None = None
    contiguous: float | None = None
    between: float = 0.0


def learned(history: History) -> Learned:
    """The waits for a sender with this history."""
    between = [seen.between for seen in history if seen.between is not None]
    quiet = _wait([seen.longest for seen in history]) if len(history) >= ENOUGH else None
    contiguous = None if quiet is None or len(between) < ENOUGH else min(quiet, _wait(between))
    return Learned(quiet, contiguous, max(between, default=0.0))


def _wait(gaps: Sequence[float]) -> float:
    """The wait for the next series after these longest gaps, the newest last; there are at least ENOUGH."""
    count = len(gaps)
    high = sorted(gaps)[min(count, math.ceil(QUANTILE * (count + 1))) - 1]
    expected = max(high, *gaps[-RECENT:]) * (MARGIN + DOUBT / count)
    return float(math.ceil(min(max(expected, FLOOR), CEILING)))


def auto_or_seconds(value: object) -> object:
    """A value of `completion.quiet` as it is kept: `auto`, or a number from 0.1 to 86400 as float; ValueError for anything else."""
    if value == "auto":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.1 <= value <= 86400:
        return float(value)
    raise ValueError("neither auto nor seconds")


def unlearned(quiet: float | str, contiguous: float, announced: float, forced: float) -> Waits:
    """The waits of the configuration, seconds, before anything was learned: `auto` is CEILING."""
    return Waits(CEILING if isinstance(quiet, str) else quiet, contiguous, announced, forced)


def with_learned(waits: Waits, known: Learned) -> Waits:
    """`waits` for a sender of which this is known; anything outside FLOOR to CEILING (a damaged row) becomes the nearer of the two.

    Until `contiguous` is known it only grows: a sender that was seen to pause between associations is not cut by the configured wait.
    """
    quiet, contiguous = (None if w is None or math.isnan(w) else min(max(w, FLOOR), CEILING) for w in (known.quiet, known.contiguous))
    if contiguous is None:
        asked = min(known.between * (MARGIN + DOUBT / ENOUGH), CEILING)
        contiguous = max(waits.contiguous, float(math.ceil(asked))) if asked > 0 else waits.contiguous
    return replace(waits, quiet=waits.quiet if quiet is None else quiet, contiguous=contiguous)


def to_text(history: History) -> str:
    """JSON for the database."""
    return json.dumps([[seen.series_id, seen.longest, seen.between, int(seen.split)] for seen in history], separators=(",", ":"))


def from_text(text: str | None) -> History:
    """What `to_text` wrote; anything else is no history, which only means that it is learned anew."""
    try:
        seen = tuple(Seen(int(series_id), float(longest), None if between is None else float(between), bool(split))
                     for series_id, longest, between, split in json.loads(text or "[]"))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return ()
    return seen[-WINDOW:] if all(0 <= (s.between or 0.0) <= s.longest <= LATE for s in seen) else ()
