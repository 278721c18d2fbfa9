"""When the next try is due (pure; the clock and the dice are passed in)."""

from __future__ import annotations

from datetime import datetime, timedelta

from node.deliver.answers import HOURLY

JITTER = 0.2
"""Share by which a wait is stretched or shortened, so that items of one outage do not come back together."""


def backoff(tries: int, first: float, last: float, dice: float) -> float:
    """Seconds to wait after `tries` tries (1, 2, ...): `first` doubled up to `last`, +-20 % by `dice` in [0, 1)."""
    doublings = min(max(tries, 1) - 1, 60)  # 2**60 seconds is beyond any cap, and larger powers overflow a float
    return min(last, first * 2.0**doublings) * (1 - JITTER + 2 * JITTER * dice)


def wait_before(tries: int, first: float, last: float, dice: float, floor: float = 0.0) -> float:
    """`backoff`, but at least `floor` seconds (a full destination, a code that may pass by itself)."""
    return max(backoff(tries, first, last, dice), floor)


def longest_wait(last: float) -> float:
    """Seconds that no wait exceeds: `last` stretched, or the longest floor that an answer sets."""
    return max(last * (1 + JITTER), HOURLY)


def expired(made_at: str, now: str, give_up_after_days: float) -> bool:
    """Whether an item made at `made_at` (UTC, ISO 8601) has been tried long enough; 0 days means never give up."""
    if give_up_after_days <= 0:
        return False
    return moment(now) - moment(made_at) >= timedelta(days=give_up_after_days)


def moment(text: str) -> datetime:
    """A time of the database (`2026-01-31T12:00:00.000000Z`) as an aware datetime."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def later(now: str, seconds: float) -> str:
    """`now` plus `seconds` in the form of the database."""
    at = moment(now) + timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
