"""Small real Assessments built by hand, for tests of what happens to an Assessment afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qa_engine.assessment import (
    Assessment,
    Degradation,
    Finding,
    ModelIdentity,
    Quantity,
    SeriesFacts,
    SlicePicture,
    SliceScore,
)
from qa_engine.outcome import End, Reason, Severity


def assessed(series_uid: str = "1.2.3.4", sop_uids: Sequence[str] = ("1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"), score: float = 61.234,
             study_uid: str = "1.2.3", sop_class_uid: str = "1.2.840.10008.5.1.4.1.1.2") -> Assessment:
    """A CT series of three slices with a number."""
    weights = [1 / len(sop_uids)] * len(sop_uids)
    slices = tuple(SliceScore(uid, sop_class_uid, None, float(k), score - 1 + k, weights[k], k + 1, 60.0, 61.0, 62.0)
                   for k, uid in enumerate(sop_uids))
    pixels = np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)
    return Assessment(
        series_uid=series_uid, modality="CT", end=End.ASSESSED, reason=None, instances=len(sop_uids), region="chest",
        description="Chest 1 mm", score=score, interval=(55.25, 66.75), verdict="Usable", noise=60.0, sharpness=61.0, artefact=62.0,
        slices=slices, degradations=(Degradation("noise", Severity.MILD, 0.7, 12.5, "[hnsf'U]"),),
        measures={"noise": Quantity(12.5, "[hnsf'U]")}, acquisition={"kvp": Quantity(120, "kV"), "kernel": Quantity("B30f", "")},
        findings=(Finding("missing-slices", "1 slice is missing"),), text="A chest CT. Mild noise.",
        model=ModelIdentity("mediqa-compact", "0.1", "ab" * 32), seconds={"read": 0.1, "network": 0.2, "total": 0.3}, device="cpu",
        thresholds=(35.0, 60.0), purpose="soft tissue",
        facts=SeriesFacts(study_uid=study_uid, series_number=3, protocol="CHEST", stack_size=len(sop_uids), orientation="axial",
                          ends=("F", "H")),
        pictures=tuple(SlicePicture(pixels, (1.0, 1.0), ("R", "A")) for _ in sop_uids))


def skipped(series_uid: str = "1.2.3.5", instances: int = 2) -> Assessment:
    """A localizer."""
    return Assessment(series_uid=series_uid, modality="CT", end=End.SKIPPED, reason=Reason.LOCALIZER, instances=instances)
