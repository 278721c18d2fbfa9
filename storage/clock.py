"""The two clocks: UTC text for records, the monotonic clock with the boot's identity for waiting (DESIGN section 5)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

UTC_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
"""ISO 8601 with microseconds and Z, for times in UTC."""


def utc_now() -> str:
    """Now as ISO 8601 UTC with microseconds and Z; text order is time order."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"  # UTC_FORMAT, a third of the time


def monotonic() -> float:
    """Seconds since some moment of this boot; comparable between processes of one boot."""
    return time.monotonic()


@cache
def boot_id() -> str:
    """Identity of this boot: monotonic values of another one mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"started-{int(time.time() - time.monotonic())}"
