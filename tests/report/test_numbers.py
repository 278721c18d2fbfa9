"""One Assessment speaks: the numbers and words of the SR, of the text report and of the picture are its own, read back from the files."""

from __future__ import annotations

import dataclasses
import re
from io import BytesIO

import numpy as np
import pydicom
import pytest

from node.report.overlay import draw_overlay
from node.report.render import render_results
from qa_engine.assessment import WEIGHT_DIGITS, Assessment
from tests.support.reports import SR_CLASSES, Scored, codes_of, context, groups_of, numbers_of, texts_of

pytestmark = [pytest.mark.model]

VERDICTS = ("Good", "Usable", "Reject")
OUTCOMES = [None, (0.04, (0.0, 15.2), "Reject"), (7.46, (3.3, 30.05), "Reject"), (61.25, (45.55, 77.0), "Usable"), (99.96, (88.8, 100.0), "Good")]
"""None: as the engine scored the simulated patient."""


def with_outcome(a: Assessment, outcome: tuple[float, tuple[float, float], str] | None) -> Assessment:
    if outcome is None:
        return a
    slices = tuple(dataclasses.replace(s, score=min(100.0, max(0.0, outcome[0] + 2 * k - 6))) for k, s in enumerate(a.slices))
    return dataclasses.replace(a, score=outcome[0], interval=outcome[1], verdict=outcome[2], slices=slices)


@pytest.mark.parametrize("kind, outcome", [("ct", None), *(("enhanced", o) for o in OUTCOMES)],
                         ids=lambda v: v if isinstance(v, str) else "as scored" if v is None else f"{v[0]} {v[2]}")
def test_report_picture_and_assessment_agree(scored: dict[str, Scored], kind: str, outcome: tuple[float, tuple[float, float], str] | None) -> None:
    series, facts = scored[kind], context()
    a = with_outcome(series.assessment, outcome)
    assert a.score is not None and a.interval is not None and a.verdict is not None
    files = render_results(a, series.files, facts, ["comprehensive-3d", "basic-text"], True, series.source)
    capture, report, text = (pydicom.dcmread(BytesIO(o.data)) for o in files)
    group = groups_of(report)["Series"]
    numbers = numbers_of(group)
    in_report = [numbers[n] for n in ("Image Set Quality Rating", "Lower limit of 90% interval", "Upper limit of 90% interval")]
    axes = [numbers[f"{n} score"] for n in ("Noise", "Sharpness", "Artefact")]
    assert in_report == pytest.approx([a.score, *a.interval], abs=0.0501) and axes == pytest.approx([a.noise, a.sharpness, a.artefact], abs=0.0501)
    assert [words for _, words in codes_of(group, "Verdict")] == [a.verdict]
    assert a.text in texts_of(group, "Comment")
    slices = {name: numbers_of(g) for name, g in groups_of(report).items() if name.startswith("Slice ")}
    assert slices == {f"Slice {s.ordinal}": {"Image Quality Rating": pytest.approx(s.score, abs=0.0501),
                                             "Weight in series score": pytest.approx(s.weight, abs=0.51 * 10 ** -WEIGHT_DIGITS)} for s in a.slices}
    assert list(slices) == [f"Slice {s.ordinal}" for s in sorted(a.slices, key=lambda s: s.score)], "worst first: viewers open there"

    canvas = draw_overlay(a, facts)
    assert np.array_equal(capture.pixel_array, np.asarray(canvas.image))
    drawn = canvas.texts

    def height(entry: tuple[str, tuple[float, float, float, float]]) -> float:
        return entry[1][3] - entry[1][1]

    digits = max((t for t in drawn if t[0].isdigit()), key=height)[0]
    assert digits == f"{a.score:.0f}" and abs(int(digits) - in_report[0]) <= 0.55
    assert max((t for t in drawn if t[0] in VERDICTS), key=height)[0] == a.verdict
    limits = next(m for words, _ in drawn if (m := re.fullmatch(r"(\d+)\u2013(\d+)", words)))
    assert [int(limits[1]), int(limits[2])] == [round(v) for v in a.interval]
    words = [w for w, _ in drawn]
    assert all(f"{s.score:.0f}" in words for s in a.slices)
    assert a.worst_slice is not None and f"score {a.worst_slice.score:.0f}" in words

    sentences = texts_of(text, "Finding")
    assert sentences[0] == (f"Image quality score {in_report[0]:.1f} of 100 (90% interval {in_report[1]:.1f} to {in_report[2]:.1f}): {a.verdict}")
    assert all(f"Slice {s.ordinal}: score {s.score:.1f}, weight {s.weight:.4f}" in sentences for s in a.slices)


def test_all_classes_say_the_same(scored: dict[str, Scored]) -> None:
    """The three coded classes hold one tree: also its tracking UIDs are the same, since they name the same measurements."""
    series = scored["enhanced"]
    trees = []
    for made in render_results(series.assessment, series.files, context(), [c for c in SR_CLASSES if c != "basic-text"], False, series.source):
        report = pydicom.dcmread(BytesIO(made.data))
        trees.append(str(report.ContentSequence))
    assert len(trees) == 3 and len(set(trees)) == 1


@pytest.mark.parametrize("verdict, code", [("Good", "111237"), ("Usable", "111236"), ("Reject", "111235")])
def test_standard_verdict(scored: dict[str, Scored], verdict: str, code: str) -> None:
    """DICOM's own codes, which read as clinical statements, only where the site asks for them."""
    series = scored["mr"]
    a = dataclasses.replace(series.assessment, verdict=verdict)
    for asked in (True, False):
        made = render_results(a, series.files, context(standard_verdict=asked), ["enhanced"], False, series.source)[0]
        group = groups_of(pydicom.dcmread(BytesIO(made.data)))["Series"]
        assert [c for c, _ in codes_of(group, "Quality Assessment")] == ([code] if asked else [])
        assert [c for c, _ in codes_of(group, "Quality Control Standard")] == (["111240"] if asked else [])
