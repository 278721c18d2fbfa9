"""The five aspects as a record and as sentences: each is there, follows from the Assessment, and never says more than is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from qa_engine.acquisition import read_acquisition
from qa_engine.assessment import Assessment, Degradation, Finding, Quantity, SliceScore
from qa_engine.description import EXPECTED, action, consequence, describe, poor_slices
from qa_engine.description_words import ADVICE, CAUSES, FINE, NAMES, SOFT, impact_text
from qa_engine.expected_noise import constants
from qa_engine.outcome import Severity
from qa_engine.prompts import REGIONS
from tests.support.assessments import assessed, skipped
from tests.support.small_objects import CT, image

HU = "[hnsf'U]"


MEASURED = "NoiseStandardDeviation"


def scored(**fields: object) -> Assessment:
    """A CT series of three slices, a Usable one with severe noise unless told otherwise."""
    wanted: dict[str, object] = {"degradations": (Degradation("noise", Severity.SEVERE, 0.9, 55.5, HU),), "acquisition": {}, "measures": {}, "findings": ()}
    return replace(assessed(), **wanted | fields)


def test_the_five_aspects_stand_in_order() -> None:
    a = scored(region="abdomen chest", acquisition={"SliceThickness": Quantity(5, "mm")})
    assert describe(a).aspects() == (
        "CT of the abdomen.", "Severe noise (55.5 HU), worst at slice 1 of 3.", "Recorded: slice thickness 5 mm.",
        "Small differences inside organs are not shown reliably.",
        "Verdict Usable: check tube current, pitch and slice thickness against the protocol.")
    assert describe(a).text() == " ".join(describe(a).aspects()) and len(describe(a).text()) < 1024


def test_all_degradations_are_named_and_have_cause_and_impact() -> None:
    found = (Degradation("noise", Severity.MODERATE, 0.9, 40.0, HU), Degradation("blur", Severity.MILD, 0.8, 2.1, "mm"),
             Degradation("streak", Severity.MILD, 0.6, 15.0, HU))
    record = describe(scored(degradations=found))
    assert record.aspects()[1] == "Moderate noise (40 HU), mild blur (2.1 mm) and mild streaks (15 HU), worst at slice 1 of 3."
    assert [c.type for c in record.causes] == [i.type for i in record.impacts] == ["noise", "blur", "streak"]
    assert all(i.text for i in record.impacts) and [i.severity for i in record.impacts] == [d.severity for d in found]


def test_recorded_parameters_have_their_units() -> None:
    acquisition = dict(read_acquisition([(image(CT, XRayTubeCurrent=333, ExposureTime=500, ConvolutionKernel="B30f", SliceThickness=1.23456), None)]).values)
    assert "Recorded: tube current-time product 166.5 mAs, slice thickness 1.235 mm, kernel B30f." in describe(scored(acquisition=acquisition)).text()
    blur = scored(modality="MR", degradations=(Degradation("blur", Severity.MILD, 0.9, 2.0, "mm"),), acquisition={"EchoTrainLength": Quantity(15, "1")})
    assert "Recorded: echo train 15." in describe(blur).text()


def test_noise_is_compared_with_what_the_protocol_suggests() -> None:
    factor = constants().factor
    above = describe(scored(measures={EXPECTED: Quantity(15.0, HU), MEASURED: Quantity(55.5, HU)}))
    assert above.causes[0].compared == "above" and "Noise 56 HU where this protocol's dose, kernel and body size suggest 15 HU" in above.text()
    explained = describe(scored(measures={EXPECTED: Quantity(55.5 / factor + 0.1, HU), MEASURED: Quantity(55.5, HU)}))
    assert explained.causes[0].compared == "explained" and "is no more than this protocol's dose, kernel and body size suggest" in explained.text()
    assert describe(scored()).causes[0].compared == "" and "suggest" not in describe(scored()).text()


def test_unexplained_noise_is_told_also_where_something_else_is_worse() -> None:
    found = (Degradation("blur", Severity.SEVERE, 0.9, 6.0, "mm"), Degradation("noise", Severity.MILD, 0.8, 20.0, HU))
    assert "suggest 10 HU" in describe(scored(degradations=found, measures={EXPECTED: Quantity(10.0, HU), MEASURED: Quantity(20.0, HU)})).text()
    assert "suggest" not in describe(scored(degradations=found, measures={EXPECTED: Quantity(19.0, HU), MEASURED: Quantity(20.0, HU)})).text()


def test_what_averages_would_do_is_said_where_they_are_known() -> None:
    noisy = scored(modality="MR", degradations=(Degradation("noise", Severity.MODERATE, 0.9, 0.06, "1"),))
    assert "averages" not in describe(noisy).aspects()[2]
    assert "twice as many would take 29%" in describe(replace(noisy, acquisition={"NumberOfAverages": Quantity(1, "1")})).aspects()[2]


def test_a_region_in_dispute_is_not_named() -> None:
    a = scored(findings=(Finding("region-mismatch", "The header names pelvis; the pixels show something else."),))
    assert describe(a).subject.region is None and describe(a).aspects()[0] == "CT series." and "chest" not in describe(a).text()


def test_every_kind_that_is_graded_has_words_for_every_region_and_grade() -> None:
    for kind, severity, region in product(NAMES, (Severity.MILD, Severity.MODERATE, Severity.SEVERE), (*REGIONS, None)):
        told = impact_text(region, kind, severity)
        assert told.endswith(".") and told[0].isupper() and "{" not in told and told.isascii()
    assert impact_text("head", "noise", Severity.MILD) != impact_text("head", "noise", Severity.SEVERE) != impact_text("spine", "noise", Severity.SEVERE)
    assert set(ADVICE) == set(CAUSES) and set(SOFT) == set(FINE) <= set(REGIONS)


@pytest.mark.parametrize("word", ["tumour", "lesion", "cancer", "disease", "patholog", "patient has", "diagnos", "metasta", "fracture"])
def test_no_sentence_speaks_of_findings_in_the_patient(word: str) -> None:
    told = [impact_text(r, k, s) for r in (*REGIONS, None) for k in NAMES for s in Severity] + list(ADVICE.values()) + [c[1] for c in CAUSES.values()]
    assert not any(word in text.lower() for text in told)


def slice_score(score: float, ordinal: int) -> SliceScore:
    return SliceScore("1.2", "1.3", None, None, score, 0.5, ordinal, 50.0, 50.0, 50.0)


@pytest.mark.parametrize(("scores", "total", "said"), [
    ([80.0, 20.0], 60.0, "1 of 2 scored slices lies below 35: look at slice 2."), ([30.0, 20.0, 90.0], 50.0, "2 of 3 scored slices lie below 35"),
    ([80.0, 40.0], 60.0, ""), ([30.0, 20.0], 25.0, "")])
def test_a_good_total_hides_no_poor_slice(scores: list[float], total: float, said: str) -> None:
    slices = tuple(slice_score(s, k + 1) for k, s in enumerate(scores))
    found = poor_slices(slices, total, 35.0)
    assert found.startswith(said) and bool(found) == bool(said)
    mild = scored(degradations=(Degradation("noise", Severity.MILD, 0.9, 20.0, HU),), verdict="Good", slices=slices, score=total, thresholds=(35.0, 50.0))
    text = describe(mild).text()
    assert (found in text and "no action" not in text) if found else text.endswith("Verdict Good: no action needed.")
    assert "may need a closer look" not in text, "a Good series with mild noise needs no warning"


def test_what_to_do() -> None:
    assert action(scored(degradations=(), verdict="Good")) == "no action needed"
    assert action(scored(degradations=())) == "look at slice 1, which scores lowest"
    assert action(scored(verdict="Good")).startswith("check tube current"), "severe noise is told even of a Good series"
    assert action(scored(), "1 of 3 scored slices lies below 35: look at slice 2.").startswith("1 of 3 scored slices lies below 35: look at slice 2; check")
    assert consequence(scored()).endswith("Recommendation: check tube current, pitch and slice thickness against the protocol.")
    assert consequence(scored(degradations=(), verdict="Good"), "1 of 3 ...") == ""


def test_only_a_scored_series_is_described() -> None:
    with pytest.raises(ValueError, match="scored"):
        describe(skipped())
