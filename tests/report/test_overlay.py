"""The overlay: nothing overlaps or is cut, what is drawn is what was assessed, no verdict by colour alone."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from node.report import overlay_words as words
from node.report.context import RenderContext
from node.report.overlay import SIDE, TOP, draw_overlay
from node.report.overlay_canvas import BACKGROUND, LEFT, RIGHT, SIZE, VERDICT_COLOURS, Canvas, writable
from node.report.render import render_overlay_png
from qa_engine.assessment import Assessment, Degradation, Finding, Quantity, SeriesFacts, SlicePicture
from qa_engine.outcome import TABLE, End, Reason, Severity
from qa_engine.pictures import pictures
from qa_engine.volume import FrameRef, Volume
from tests.support.assessments import assessed

LONG = "Thorax Abdomen Becken portalvenoes nach Kontrastmittel 1.5 mm ax"
WIDEST = "W" * 64
CONTEXT = RenderContext(node_id="node-1", node_name="MEDIQA", version="0.1.0", revision=2, made_at=datetime(2026, 1, 2, 12, 0, tzinfo=UTC),
                        content_digest="c", model_digest="m")
DEGRADATIONS = (Degradation("noise", Severity.SEVERE, 0.9, 70.856, "[hnsf'U]"), Degradation("streak", Severity.MODERATE, 0.9, 25.0, "[hnsf'U]"),
                Degradation("motion", Severity.MODERATE, 0.9, 0.136, "1"), Degradation("blur", Severity.MILD, 0.9, 2.3456, "mm"))
NOTES = (Finding("parameter-varies", "XRayTubeCurrent varies from 160 to 180 mA.s."), Finding("missing-slices", "2 of 41 slices are missing."),
         *(Finding("several-stacks", f"The series holds {n} stacks of 20, 20, 20, 20, 20, 20, 20, 20 images; the first was judged.") for n in range(8)))
PARAMETERS = {
    "CT": {"KVP": Quantity(120, "kV"), "TubeCurrentTimeProduct": Quantity(282.7, "mA.s"), "XRayTubeCurrent": Quantity(1333.3, "mA"),
           "CTDIvol": Quantity(19.2661, "mGy"), "SliceThickness": Quantity(0.625, "mm"), "SliceIncrement": Quantity(0.312, "mm"),
           "ConvolutionKernel": Quantity(WIDEST, ""), "PixelSpacingRow": Quantity(0.796875, "mm"), "SpiralPitchFactor": Quantity(0.9375, "1")},
    "MR": {"MagneticFieldStrength": Quantity(2.89362, "T"), "RepetitionTime": Quantity(12345.6, "ms"), "EchoTime": Quantity(2.41, "ms"),
           "FlipAngle": Quantity(9, "deg"), "SliceThickness": Quantity(2, "mm"), "PixelSpacingRow": Quantity(0.6875, "mm"),
           "PixelBandwidth": Quantity(1302.08, "Hz"), "AcquisitionMatrix": Quantity("256 x 192", "")},
}


def result(score: float = 61.0, interval: tuple[float, float] | None = None, verdict: str = "Usable", slices: int = 7, shape: tuple[int, int] = (96, 96),
           name: str = "Chest 1 mm", modality: str = "CT", stack: int = 0, **more: object) -> Assessment:
    """An assessed series; pixels are a fixed pattern."""
    base = assessed(sop_uids=[f"1.2.3.4.{k}" for k in range(slices)], score=score)
    total = max(stack, slices)
    scored = tuple(dataclasses.replace(s, score=min(100.0, max(0.0, score + 3 * (k % 3) - 3)), ordinal=1 + round(k * (total - 1) / max(slices - 1, 1)),
                                       position_mm=-1234.5 + k, instance_number=1000 + k) for k, s in enumerate(base.slices))
    pixels = (np.add.outer(np.arange(shape[0]) * 7, np.arange(shape[1]) * 11) % 256).astype(np.uint8)
    facts = SeriesFacts(series_number=1234, stack_size=total, ends=("F", "H"), manufacturer_model="simulated scanner")
    fields = {"score": score, "interval": interval or (max(0.0, score - 16), min(100.0, score + 16)), "verdict": verdict, "slices": scored,
              "description": name, "modality": modality, "facts": facts, "acquisition": PARAMETERS[modality],
              "pictures": tuple(SlicePicture(pixels, (1.0, 1.0), ("R", "A")) for _ in scored)}
    return dataclasses.replace(base, **{**fields, **more})


def with_outliers(a: Assessment, **places: str) -> Assessment:
    """The same with outliers: index, as `k7`, -> kind."""
    slices = tuple(dataclasses.replace(s, outlier=places.get(f"k{k}", "")) for k, s in enumerate(a.slices))
    return dataclasses.replace(a, slices=slices)


def abstained(reason: Reason, **more: object) -> Assessment:
    """A series without a number."""
    end = next(row.end for row in TABLE if row.reason is reason)
    base = Assessment(series_uid="1.2.3.6", modality="CT", end=end, reason=reason, instances=28, region="head", description="Head 5 mm",
                      acquisition=PARAMETERS["CT"])
    return dataclasses.replace(base, **more)


def long_context() -> RenderContext:
    return dataclasses.replace(CONTEXT, node_name=WIDEST, version="10.20.30rc1", revision=123)


CASES = {
    **{f"score-{s}-{v}": (result(score=s, verdict=v), CONTEXT) for s in (0.0, 7.0, 100.0) for v in ("Good", "Usable", "Reject")},
    **{f"slices-{n}": (result(slices=n, stack=n), CONTEXT) for n in (1, 2, 3, 6, 7, 41)},
    **{f"outliers-{n}": (with_outliers(result(slices=7 + n, stack=2600, score=100.0), k2="noise", **more), CONTEXT)
       for n, more in ((1, {}), (2, {"k3": "structure"}), (3, {"k5": "blur", "k9": "structure"}))},
    "thousand": (result(slices=7, stack=12345), CONTEXT),
    "full-policy": (result(slices=300, stack=300), CONTEXT),
    "long-names": (result(name=LONG, region="whole-body chest", facts=SeriesFacts(series_number=2 ** 31 - 1, stack_size=99999, ends=("R", "L"),
                                                                                  manufacturer_model=WIDEST)), long_context()),
    "widest-name": (result(name=WIDEST, model=dataclasses.replace(result().model, profile=WIDEST, version=WIDEST)), long_context()),
    "wide": (result(shape=(48, 128)), CONTEXT), "tall": (result(shape=(200, 40)), CONTEXT), "large": (result(shape=(512, 512)), CONTEXT),
    "everything-wrong": (result(score=7.0, verdict="Reject", degradations=DEGRADATIONS, findings=NOTES, noise=0.0, sharpness=100.0, artefact=None),
                         CONTEXT),
    "nothing-wrong": (result(score=99.6, verdict="Good", degradations=(), findings=()), CONTEXT),
    "mr": (result(modality="MR", purpose="", degradations=(dataclasses.replace(DEGRADATIONS[2], severity=Severity.SEVERE),)), CONTEXT),
    "nothing-known": (result(slices=3, name="", region=None, acquisition={}, facts=SeriesFacts(), thresholds=None, model=None, purpose="",
                             pictures=()), CONTEXT),
    **{f"limits-{a}-{b}": (result(thresholds=(a, b)), CONTEXT) for a, b in ((0.0, 100.0), (5.0, 95.0), (40.0, 41.0), (98.0, 99.0), (1.0, 2.0), (37.25, 62.5))},
    **{str(row.reason): (abstained(row.reason), CONTEXT) for row in TABLE if row.end is not End.ASSESSED},
    "abstained-long": (abstained(Reason.OUTSIDE_ENVELOPE, findings=NOTES * 2, description=WIDEST), long_context()),
    "abstained-bare": (abstained(Reason.NOT_AN_IMAGE, modality="", region=None, description="", acquisition={}, findings=NOTES * 3), CONTEXT),
}


@pytest.mark.parametrize("name", CASES)
def test_no_texts_intersect_and_none_leaves_the_margins(name: str) -> None:
    texts = draw_overlay(*CASES[name]).texts
    assert texts
    for told, (x0, y0, x1, y1) in texts:
        assert LEFT - 2 <= x0 <= x1 <= RIGHT + 2 and 10 <= y0 <= y1 <= SIZE - 4, told
    for (one, a), (two, b) in combinations(texts, 2):
        apart = a[2] + 2 <= b[0] or b[2] + 2 <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} {a} runs into {two!r} {b}"


def drawn(a: Assessment, context: RenderContext = CONTEXT) -> list[str]:
    return [told for told, _ in draw_overlay(a, context).texts]


@pytest.mark.parametrize(("score", "interval", "verdict"), [(0.0, (0.0, 16.0), "Reject"), (7.4, (0.0, 23.0), "Reject"), (61.234, (45.6, 77.4), "Usable"),
                                                            (99.5, (84.0, 100.0), "Good"), (100.0, (84.0, 100.0), "Good")])
def test_score_interval_and_verdict_are_drawn(score: float, interval: tuple[float, float], verdict: str) -> None:
    told = drawn(result(score=score, interval=interval, verdict=verdict))
    assert told.count(verdict) >= 1 and f"{score:.0f}" in told and f"{interval[0]:.0f}\u2013{interval[1]:.0f}" in told and "90 % interval" in told
    assert {"Good", "Usable", "Reject"} & set(told[:5]) == {verdict}


def test_everything_that_the_picture_promises_is_drawn() -> None:
    a = result(score=19.4, interval=(3.6, 35.3), degradations=DEGRADATIONS, stack=41, findings=NOTES[:2], thresholds=(35.0, 50.0))
    told = drawn(a)
    wanted = ["CT chest \u00b7 soft tissue kernel \u00b7 series 1234 \u00b7 Chest 1 mm \u00b7 41 images", "Worst slice", "1 of 41", "score 16",
              "limited by noise", "image 1000", "position -1234.5 mm", "R", "A", "W 500 L 50", "severe noise, 70.9 HU", "mild blur, 2.35 mm",
              "moderate streaks, moderate motion artefacts", "60", "61", "62", "Tube voltage", "120 kV", "283 mAs", "Reject below 35", "Usable",
              "Good from 50", "The interval ends at 35.3, not below 35.", "7 scored slices, feet to head", "14 %", "feet, slice 1",
              "head, slice 41", "NOT FOR DIAGNOSIS", "Technical image quality only. Score trained on simulated degradations."]
    assert [w for w in wanted if w not in told] == []
    foot = next(t for t in told if t.startswith("MedIQA Node"))
    assert foot == "MedIQA Node 0.1.0 \u00b7 model mediqa-compact 0.1 (abababab) \u00b7 revision 2 \u00b7 2026-01-02 12:00 UTC \u00b7 node MEDIQA"
    for s in a.slices:
        assert f"{s.score:.0f}" in told
    foot = next(t for t in drawn(*CASES["widest-name"]) if t.startswith("MedIQA Node"))
    assert "(abababab)" in foot and "revision 123 \u00b7 2026-01-02 12:00 UTC \u00b7 node W" in foot, "long names leave room for the rest"


def test_abstained_has_no_number_and_tells_the_reason_in_words() -> None:
    told = drawn(abstained(Reason.OUTSIDE_ENVELOPE, acquisition={}))
    assert "Not assessed" in told and "abstained: outside-envelope" in told
    assert "Too few real patients of this modality, body region and field of view stand behind the model." in " ".join(told)
    assert not any(t.strip("\u2013- ").replace(".", "").isdigit() for t in told)
    assert not {"Good", "Usable", "Reject"} & set(told)
    assert any("Another try may help." in t for t in drawn(abstained(Reason.INCOMPLETE_SERIES)))
    assert not any("Another try" in t for t in drawn(abstained(Reason.PHANTOM)))


def badge(verdict: str | None, side: int) -> np.ndarray:
    """The sign of a verdict without colour, (side,side) float, contrast stretched to 0..1."""
    canvas = Canvas()
    canvas.badge(0, 0, 148, verdict)
    grey = np.asarray(canvas.image.crop((0, 0, 148, 148)).convert("L").resize((side, side), Image.Resampling.LANCZOS), float)
    return (grey - grey.min()) / (grey.max() - grey.min())


@pytest.mark.parametrize("side", [148, 18, 9])
def test_badges_differ_without_colour_also_in_thumbnails(side: int) -> None:
    """148 px in the picture are 18 px in a thumbnail of 128 px and 9 px in one of 64 px."""
    for one, two in combinations(VERDICT_COLOURS, 2):
        different = np.abs(badge(one, side) - badge(two, side)) > 0.35
        assert different.mean() > 0.2, (one, two, different.mean())


def test_verdicts_differ_in_lightness_and_are_readable_on_the_background() -> None:
    def luminance(rgb: tuple[int, int, int]) -> float:
        linear = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: tuple[int, int, int], two: tuple[int, int, int]) -> float:
        low, high = sorted((luminance(one), luminance(two)))
        return (high + 0.05) / (low + 0.05)

    for one, two in combinations(("Good", "Usable", "Reject"), 2):
        assert contrast(VERDICT_COLOURS[one], VERDICT_COLOURS[two]) > 1.4, (one, two)
    assert all(contrast(colour, BACKGROUND) > 4.5 for colour in VERDICT_COLOURS.values())


def test_each_verdict_says_its_word_and_why() -> None:
    told = {v: words.interval_reason(v, i, (35.0, 50.0)) for v, i in (("Good", (50.0, 80.0)), ("Reject", (0.0, 34.9)))}
    assert told == {"Good": "The whole interval lies at 50 or above.", "Reject": "The whole interval lies below 35."}
    usable = [words.interval_reason("Usable", i, (35.0, 50.0)) for i in ((4.0, 36.0), (35.0, 49.9), (40.0, 60.0), (20.0, 60.0))]
    assert words.interval_reason("Usable", (4.0, 35.3), (35.0, 50.0)) == "The interval ends at 35.3, not below 35."
    assert words.interval_reason("Usable", (49.6, 90.0), (35.0, 50.0)) == "The interval begins at 49.6, below 50."
    assert [t.rstrip(".").split(" ")[-2:] for t in usable] == [["Reject", "zone"], ["two", "limits"], ["Good", "zone"], ["not", "certain"]]


def test_rendering_is_deterministic_and_follows_the_assessment() -> None:
    a = CASES["everything-wrong"][0]
    first = render_overlay_png(a, CONTEXT)
    assert render_overlay_png(dataclasses.replace(a), CONTEXT) == first
    assert render_overlay_png(dataclasses.replace(a, score=8.0), CONTEXT) != first


def test_rendering_is_fast() -> None:
    a = result(shape=(512, 512))
    draw_overlay(a, CONTEXT)
    began = time.process_time()
    for _ in range(5):
        draw_overlay(a, CONTEXT)
    assert (time.process_time() - began) / 5 < 0.5


def test_enlarging_makes_no_new_grey() -> None:
    """Interpolation would invent greys and hide the noise of the worst slice."""
    pixels = np.array([[0, 50], [150, 250]], np.uint8).repeat(8, 0).repeat(8, 1)
    a = result(slices=2, pictures=(SlicePicture(pixels, (1.0, 1.0)),) * 2, description="")
    shown = np.asarray(draw_overlay(a, CONTEXT).image)[TOP + 60:TOP + SIDE - 60, LEFT + 130:LEFT + SIDE - 130]
    assert set(np.unique(shown)) == {0, 50, 150, 250} and np.all(shown == shown[:, :, :1])


def test_slices_that_are_not_square_keep_their_shape() -> None:
    a = result(slices=2, pictures=(SlicePicture(np.full((50, 200), 200, np.uint8), (1.0, 1.0)),) * 2)
    column = np.asarray(draw_overlay(a, CONTEXT).image)[TOP + 4:TOP + SIDE - 4, LEFT + 300, 0]
    assert (column == 200).sum() == round((SIDE - 8) / 4)
    assert np.all(column[60:150] == 0) and np.all(column[-150:-70] == 0)


def test_one_image_has_no_profile_but_words() -> None:
    told = drawn(result(slices=1, text="CT of the chest. Mild blur (1.6 mm)."))
    assert "CT of the chest. Mild blur (1.6 mm)." in told and "CT chest \u00b7 soft tissue kernel \u00b7 series 1234 \u00b7 Chest 1 mm \u00b7 1 image" in told
    assert not any("slice 1" in t for t in told)


def test_findings_about_images_come_first_and_in_plain_words() -> None:
    told = words.remarks(result(verdict="Good", degradations=DEGRADATIONS[3:], findings=NOTES[:2]))
    assert told == ["No action needed.", "2 of 41 slices are missing.", "X-Ray Tube Current varies from 160 to 180 mAs."]
    assert "Recommendation" in words.remarks(result(degradations=DEGRADATIONS))[0]
    assert any(t.endswith("more remarks in the report") for t in drawn(CASES["everything-wrong"][0]))


def test_a_good_total_does_not_hide_a_poor_slice() -> None:
    a = result(score=74.0, verdict="Good", thresholds=(35.0, 50.0), degradations=DEGRADATIONS[3:], findings=())
    assert words.remarks(a) == ["No action needed."]
    poor = dataclasses.replace(a, slices=(*a.slices[:3], dataclasses.replace(a.slices[3], score=12.0), *a.slices[4:]))
    assert words.remarks(poor) == ["1 of 7 scored slices lies below 35: look at slice 4."]
    assert words.poor_of(dataclasses.replace(poor, score=30.0)) == ""


def test_lines_fit_and_a_number_stays_with_its_unit() -> None:
    canvas = Canvas()
    lines = canvas.lines("Recorded: kernel STANDARD, slice thickness 5 mm. " * 9 + WIDEST, 300, 16)
    assert len(lines) > 9 and all(canvas.width(line, 16) <= 300 for line in lines)
    assert not any(line.endswith("5") or line.startswith("mm") for line in lines)


def test_names_in_other_scripts_and_control_characters() -> None:
    cyrillic, german = "\u041c\u043e\u0441\u043a\u0432\u0430", "Gr\u00f6\u00dfe"
    assert writable(f"\u80f8\u90e8 CT\x00\x1b 5 mm {cyrillic} {german}") == f"\u2026 CT 5 mm {cyrillic} {german}"
    assert "\u2026 CT" in " ".join(drawn(result(name="\u80f8\u90e8 CT")))


def test_parameters_have_three_digits_and_units() -> None:
    shown = dict(words.parameters(result(), 12))
    assert (shown["Pixel"], shown["Pitch"], shown["Tube current"], shown["Current \u00d7 time"]) == ("0.797 mm", "0.938", "1333 mA", "283 mAs")
    shown = dict(words.parameters(result(modality="MR"), 12))
    assert (shown["TR"], shown["Flip angle"], shown["Bandwidth"], shown["Matrix"]) == ("12346 ms", "9\u00b0", "1302 Hz/pixel", "256 x 192")


def volume(pixels: np.ndarray, modality: str, spacing: tuple[float, float] = (1.0, 1.0)) -> Volume:
    frames = tuple(FrameRef(Path(), "", f"1.2.{k}", None, k) for k in range(len(pixels)))
    return Volume(modality, pixels.astype(np.float32), "1", spacing, np.arange(float(len(pixels))), (0.0, 0.0, 1.0), (1.0, 0, 0, 0, 1.0, 0), frames)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_all_slices_of_a_series_share_one_window(modality: str) -> None:
    pixels = np.random.default_rng(0).uniform(0, 100, (3, 64, 64))
    pixels[2] *= 3
    pixels[:, :8, :8] = 40
    shown = pictures(volume(pixels, modality), [0, 1, 2], "soft tissue", "abdomen")
    assert len({int(p.pixels[4, 4]) for p in shown}) == 1
    assert shown[2].pixels.mean() > shown[0].pixels.mean() + 20
    assert shown[0].markers == ("R", "A")


def test_oblong_pixels_become_square_without_new_values() -> None:
    pixels = np.random.default_rng(0).choice([-100.0, 0.0, 100.0], (1, 32, 32))
    (shown,) = pictures(volume(pixels, "CT", (2.0, 1.0)), [0], "soft tissue", "abdomen")
    assert shown.pixels.shape == (64, 32) and shown.spacing_mm == (1.0, 1.0)
    assert len(np.unique(shown.pixels)) == 3


@pytest.mark.model
def test_overlay_of_a_simulated_patient(tmp_path: Path) -> None:
    from qa_engine.assess import assess
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("mr", tmp_path, dose=0.25, slices=9, size=96)
    a = assess(sorted(tmp_path.iterdir()))
    assert a.score is not None and a.interval is not None
    texts = draw_overlay(a, CONTEXT).texts
    told = [t for t, _ in texts]
    assert f"{a.score:.0f}" in told and a.verdict in told and f"{a.interval[0]:.0f}\u2013{a.interval[1]:.0f}" in told
    assert f"image {a.worst_slice.instance_number}" in told and a.worst_slice.instance_number == a.worst_slice.ordinal
    assert len(a.pictures) == len(a.slices) == 7
