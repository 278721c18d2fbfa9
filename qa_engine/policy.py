"""What a site decides about scoring; `digest` goes into the identity of results, so that a change makes new ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

THRESHOLDS: Mapping[str, tuple[float, float]] = {"CT": (40.0, 50.0), "MR": (25.0, 40.0)}
"""modality -> (reject_below, good_from); config.yaml shows the same. MR stands lower: so do all of its scores, and its interval is wider."""


@dataclass(frozen=True)
class Policy:
    """thresholds: modality -> (reject_below, good_from) in points; slices: salient or full; device: auto, cpu or cuda:N."""

    thresholds: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(THRESHOLDS))
    max_interval: float = 60.0
    slices: str = "salient"
    device: str = "auto"
    decode_seconds: float = 60.0
    max_pixels: int = 2048 * 10 ** 6
    profile: str = "mediqa-compact"

    def digest(self) -> str:
        """sha256 hex of what changes numbers or words; the device and limits do not."""
        told = {k: v for k, v in asdict(self).items() if k in ("thresholds", "max_interval", "slices", "profile")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
