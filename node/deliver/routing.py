"""Which destination serves which calling AE title (pure).

What came from an AE that no destination serves is scored and sent nowhere: with two PACSs, one's patients never reach the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Destination(Protocol):
    """What routing reads of a configured destination."""

    name: str
    serves: Sequence[str]


def serving(calling_ae: str, destinations: Sequence[Destination]) -> list[str]:
    """Names of the destinations that take results of series received from `calling_ae` (padding is not significant)."""
    came_from = calling_ae.strip()
    if len(destinations) == 1 and not destinations[0].serves:
        return [destinations[0].name]
    return [d.name for d in destinations if came_from in {title.strip() for title in d.serves}]


def unserved(calling_aes: Sequence[str], destinations: Sequence[Destination]) -> list[str]:
    """Those of `calling_aes` whose results go nowhere; `mediqa check` and the log name them."""
    return [ae for ae in calling_aes if not serving(ae, destinations)]
