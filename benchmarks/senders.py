"""Ten senders with habits of their own, for `benchmarks/verdict.py`: every parameter in one table, everything else drawn from a seed.

Times are seconds of a simulated clock. A sender sends acquisitions one after another; an acquisition is one series, or the reconstructions of
one, two to four series whose images come in shuffled rounds: an image of each, in a new order each time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SEED = 20261126
SERIES = 200
"""Series of each sender; ten senders make 2,000."""


@dataclass(frozen=True)
class Sender:
    """Habits of a calling AE title. gap: of single images, uniform between the two, or a median (log-normal, sigma 0.7, cut at `longest`)."""

    name: str
    modality: str
    images: tuple[int, int]
    """Images of a series, least and most."""
    median_gap: float | None = None
    uniform_gap: tuple[float, float] | None = None
    longest: float = 2.0
    """No gap of a steady sender is longer."""
    association: str = "acquisition"
    """`acquisition`, `image` (one for each image), `day` (never released), `piece` (released before each pause)."""
    paused_share: float = 0.0
    """Share of acquisitions with pauses."""
    pause: tuple[float, float] = (5.0, 40.0)
    pauses: tuple[int, int] = (1, 3)
    """Pauses of such an acquisition, least and most."""
    reconstructions: float = 0.25
    """Share of acquisitions that are two to four series interleaved."""


SENDERS = (
    Sender("STEADY1", "CT", (100, 400), median_gap=0.03),
    Sender("STEADY2", "CT", (60, 300), median_gap=0.08),
    Sender("STEADY3", "MR", (20, 120), median_gap=0.15, association="day"),
    Sender("STEADY4", "MR", (20, 80), median_gap=0.3),
    Sender("STEADY5", "CT", (40, 200), median_gap=0.5),
    Sender("STEADY6", "MR", (15, 60), median_gap=0.8, association="day"),
    Sender("PERIMAGE1", "CT", (20, 60), uniform_gap=(0.3, 8.0), association="image"),
    Sender("PERIMAGE2", "MR", (10, 40), uniform_gap=(0.3, 8.0), association="image"),
    Sender("PAUSING1", "CT", (40, 200), median_gap=0.1, paused_share=0.3),
    Sender("PAUSING2", "MR", (20, 100), median_gap=0.3, paused_share=0.3, association="piece"),
)
SIGMA = 0.7
RELEASE = (0.05, 1.0)
"""Seconds from the last image of an association to its release."""
BREAK = (5.0, 240.0)
"""Seconds between two acquisitions of a sender."""
TOGETHER = (2, 4)
"""Series of an acquisition that is reconstructed several times."""
SPACING = 2.5
"""Millimetres between two slices."""


class Image(NamedTuple):
    """An image of series `series` (0, 1, ... of the sender) has arrived on an association."""

    at: float
    series: int
    number: int
    association: int


class Release(NamedTuple):
    """An association ended by A-RELEASE."""

    at: float
    association: int


def events(sender: Sender, count: int, seed: int) -> Iterator[Image | Release]:
    """What comes from `sender` until it has sent `count` series, in order of time; the same for the same seed."""
    dice = np.random.default_rng([seed, *sender.name.encode()])
    clock, series = 0.0, 0
    associations = itertools.count(1)
    day = next(associations)
    while series < count:
        together = min(count - series, int(dice.integers(*TOGETHER, endpoint=True)) if dice.random() < sender.reconstructions else 1)
        order = _rounds(series, together, int(dice.integers(*sender.images, endpoint=True)), dice)
        gaps = _gaps(sender, len(order), dice)
        association, came = next(associations), []
        for k, (of, number) in enumerate(order):
            clock += gaps[k]
            if k and (sender.association == "image" or (sender.association == "piece" and gaps[k] >= sender.pause[0])):
                came.append(Release(clock - gaps[k] + min(float(dice.uniform(*RELEASE)), 0.9 * gaps[k]), association))
                association = next(associations)
            came.append(Image(clock, of, number, day if sender.association == "day" else association))
        if sender.association != "day":
            came.append(Release(clock + float(dice.uniform(*RELEASE)), association))
        yield from came
        series += together
        clock += float(dice.uniform(*BREAK))


def _rounds(first: int, together: int, images: int, dice: np.random.Generator) -> list[tuple[int, int]]:
    """(series, InstanceNumber) in the order of sending."""
    return [(first + int(k), number) for number in range(1, images + 1) for k in dice.permutation(together)]


def _gaps(sender: Sender, images: int, dice: np.random.Generator) -> list[float]:
    """Seconds before each image; pauses stand before images of the middle, so that what is cut is cut in two."""
    if sender.uniform_gap is not None:
        gaps = dice.uniform(*sender.uniform_gap, images)
    else:
        gaps = np.minimum(dice.lognormal(np.log(sender.median_gap or 1.0), SIGMA, images), 0.999 * sender.longest)
    if dice.random() < sender.paused_share:
        for k in dice.integers(1, images, int(dice.integers(*sender.pauses, endpoint=True))):
            gaps[k] = dice.uniform(*sender.pause)
    return [float(g) for g in gaps]
