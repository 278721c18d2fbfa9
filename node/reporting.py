"""From an Assessment to objects that lie durably in the store of results."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """A rendered object as it lies in the store; fields as in the table result_object."""

    kind: str
    sop_class_uid: str
    sop_uid: str
    series_uid: str
    study_uid: str
    path: str
    digest: str
    bytes: int
