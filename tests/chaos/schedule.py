"""What goes wrong when: an endless list of faults that a seed fixes (pure).

A minute has two halves. In the first one anything is killed, the worker perhaps again and again while it starts; in the second one
supervisor and worker are left alone, so that work gets done between, while receivers and decoders go on dying.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

MINUTE = 60.0
CALM = 30.0
"""Seconds of each minute from which on supervisor and worker are left alone."""
STORM_WEIGHTS = {"receiver": 5, "worker": 5, "decoder": 3, "supervisor": 2}
CALM_WEIGHTS = {"receiver": 3, "decoder": 2}
FAULTS = {"pacs": 6, "lock": 3, "full": 2, "clock": 2}
LAST_FAULT = 12.0
"""Longest duration of a fault, seconds."""


@dataclass(frozen=True, order=True)
class Event:
    """At `at` seconds after the start: `kill` a process, or begin a fault that lasts `seconds`. `what`: whom, or in which form."""

    at: float
    kind: str
    what: str
    seconds: float = 0.0
    amount: float = 0.0


def schedule(seed: int, gap: float, fault_gap: float, kinds: tuple[str, ...] = tuple(FAULTS)) -> Iterator[Event]:
    """Events in order, without end. gap: mean seconds between kills. fault_gap: between other faults, of which `kinds` are possible."""
    return heapq.merge(kills(seed, gap), faults(seed, fault_gap, kinds))


def kills(seed: int, gap: float) -> Iterator[Event]:
    dice, at = random.Random(f"kills {seed}"), 1.0
    while True:
        at += min(dice.expovariate(1 / gap), 4 * gap)
        weights = STORM_WEIGHTS if at % MINUTE < CALM else CALM_WEIGHTS
        yield Event(at, "kill", dice.choices(list(weights), list(weights.values()))[0], amount=dice.random())


def faults(seed: int, gap: float, kinds: tuple[str, ...]) -> Iterator[Event]:
    """Each kind comes once before the dice decide."""
    dice, at, first = random.Random(f"faults {seed}"), 0.0, list(kinds)
    dice.shuffle(first)
    while kinds:
        at += dice.uniform(0.3, 1.7) * gap
        kind = first.pop() if first else dice.choices(kinds, [FAULTS[k] for k in kinds])[0]
        yield _fault(kind, at, dice)


def _fault(kind: str, at: float, dice: random.Random) -> Event:
    seconds = round(dice.uniform(2, LAST_FAULT), 1)
    if kind == "pacs":
        return Event(at, kind, dice.choice(("down", "late", "cut", "failing")), seconds, dice.randrange(1000))
    if kind == "lock":
        return Event(at, kind, "exclusive", dice.choice((1.0, 3.0, 8.0)))
    if kind == "full":
        return Event(at, kind, dice.choice(("reserve", "nothing left")), seconds / 2)
    hours = dice.choice((-9, -3, -1, 1, 3, 5))
    return Event(at, kind, "step", 0.0, hours)
