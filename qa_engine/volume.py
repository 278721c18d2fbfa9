"""What reading a series yields: a Volume in physical units, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qa_engine.assessment import Finding, Quantity, SeriesFacts
from qa_engine.outcome import Reason


@dataclass(frozen=True)
class FrameRef:
    """Where one slice of a Volume came from. `frame` is 1-based, None for single-frame objects."""

    file: Path
    sop_class_uid: str
    sop_uid: str
    frame: int | None
    instance_number: int | None


@dataclass(frozen=True, eq=False)
class Volume:
    """The largest full stack of a series (PS3.3 C.7.6), sorted along the slice normal from feet/right/front upwards.

    pixels: (N, H, W) float32, HU for CT, stored MR signal after Rescale Slope and Intercept per frame.
    valid: (N, H, W) bool, False on padding (Pixel Padding Value and its range), or None when there is none.
    positions_mm: (N,) float64 along the slice normal, ascending; None for a 2D image without position.
    """

    modality: str
    pixels: np.ndarray
    unit: str
    spacing_mm: tuple[float, float]
    positions_mm: np.ndarray | None
    normal: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    frames: tuple[FrameRef, ...]
    valid: np.ndarray | None = None
    slice_thickness_mm: float | None = None
    missing: tuple[float, ...] = ()
    """Positions (mm) at which a slice is missing (DESIGN section 5)."""

    @property
    def dimension(self) -> str:
        """"3D", or "2D" for a one-slice series."""
        return "3D" if self.pixels.shape[0] > 1 else "2D"


@dataclass(frozen=True)
class Acquisition:
    """Physical parameters of the acquisition with units, straight from the headers; `absent` says why one is not there."""

    values: Mapping[str, Quantity] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, eq=False)
class Reading:
    """Result of reading the files of one series: `volume` is None exactly when `reason` is not."""

    series_uid: str
    modality: str
    instances: int
    volume: Volume | None
    reason: Reason | None
    facts: SeriesFacts
    description: str = ""
    acquisition: Acquisition = field(default_factory=Acquisition)
    findings: tuple[Finding, ...] = ()
    hints: Mapping[str, str] = field(default_factory=dict)
    """Header words that prompts and region check may use: BodyPartExamined, StudyDescription, ProtocolName, ImageType ..."""
