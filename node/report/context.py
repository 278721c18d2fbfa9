"""What a rendering needs besides the Assessment; everything that could differ between two renderings is fixed by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from qa_engine.assessment import Finding


@dataclass(frozen=True)
class Predecessor:
    """A result object of an older revision."""

    sop_class_uid: str
    sop_uid: str
    series_uid: str
    study_uid: str


@dataclass(frozen=True)
class RenderContext:
    """node_id "offline" marks objects that no node has made. made_at is UTC; instance numbers are those of the result series.

    series: kind -> series-level attributes fixed at the first instance (empty for a new series: render decides and reports them).
    """

    node_id: str
    node_name: str
    version: str
    revision: int
    made_at: datetime
    content_digest: str
    model_digest: str
    instance_numbers: Mapping[str, int] = field(default_factory=dict)
    series: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    predecessors: Mapping[str, tuple[Predecessor, ...]] = field(default_factory=dict)
    charset: str = "source"
    assumed_charset: str = "iso8859-1"
    series_numbers: Mapping[str, int] = field(default_factory=lambda: {"sr": 9901, "sc": 9902})
    standard_verdict: bool = False


@dataclass(frozen=True, eq=False)
class RenderedObject:
    """A complete Part 10 file and what is known of it. `series_attributes` are to be kept for the next instance of that series."""

    kind: str
    sop_class_uid: str
    sop_uid: str
    series_uid: str
    study_uid: str
    data: bytes
    series_attributes: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()
