"""Words beside the codes of the report: cause and impact of each degradation, and why a slice between the evenly spaced ones was scored."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from node.report.render import render_results
from qa_engine.assessment import Degradation, Quantity
from qa_engine.description import EXPECTED, describe
from qa_engine.outcome import Severity
from tests.support.reports import Scored, context, groups_of, numbers_of, texts_of, validate

pytestmark = [pytest.mark.model]


def test_cause_and_impact_stand_beside_each_degradation(scored: dict[str, Scored], tmp_path: Path) -> None:
    series = scored["ct"]
    found = (Degradation("noise", Severity.SEVERE, 0.99, 60.0, "[hnsf'U]"), Degradation("blur", Severity.MILD, 0.7, 2.2, "mm"))
    a = dataclasses.replace(series.assessment, degradations=found, verdict="Usable",
                            measures={**series.assessment.measures, EXPECTED: Quantity(15.0, "[hnsf'U]"),
                                      "NoiseStandardDeviation": Quantity(60.0, "[hnsf'U]")})
    record = describe(a)
    (made,) = render_results(a, series.files, context(), ["comprehensive-3d"], False, series.source)
    assert validate(made.data, "Comprehensive3DSR", tmp_path) == []
    groups = groups_of(pydicom.dcmread(BytesIO(made.data)))
    for k, d in enumerate(found):
        assert texts_of(groups[f"Degradation: {d.type}"], "Comment") == [record.causes[k].text, record.impacts[k].text]
    assert texts_of(groups["Degradation: noise"], "Comment")[0].startswith("Noise 60 HU where this protocol's dose, kernel and body size suggest 15 HU")
    assert numbers_of(groups["Measures"])["Noise that the protocol suggests"] == 15.0


def test_an_outlier_slice_says_why_it_was_scored(scored: dict[str, Scored]) -> None:
    series = scored["ct"]
    slices = tuple(dataclasses.replace(s, outlier="noise" if k == 3 else "") for k, s in enumerate(series.assessment.slices))
    (made,) = render_results(dataclasses.replace(series.assessment, slices=slices), series.files, context(), ["enhanced"], False, series.source)
    told = {name: texts_of(group, "Comment") for name, group in groups_of(pydicom.dcmread(BytesIO(made.data))).items() if name.startswith("Slice ")}
    assert told[f"Slice {slices[3].ordinal}"] == ["Scored since it differs from the slices around: noisier."]
    assert [words for name, words in told.items() if name != f"Slice {slices[3].ordinal}" and words] == []
