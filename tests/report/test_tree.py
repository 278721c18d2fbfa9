"""Rules of the content tree that validators do not check and viewers depend on (PS3.16 TID 1500, 1501; docs/decisions/0005)."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import UID, EncapsulatedPDFStorage

from node.report import codes
from node.report.render import render_results
from node.report.source_header import read_source_header
from qa_engine.assessment import Assessment
from qa_engine.outcome import End, Reason
from tests.report.conftest import Engine
from tests.support.reports import (
    CAPTURE,
    SR_CLASSES,
    Scored,
    changed,
    code_items,
    codes_of,
    context,
    groups_of,
    name_of,
    numbers_of,
    texts_of,
    validate,
    walk,
)

pytestmark = [pytest.mark.model]

EXCEPTIONS = {
    ("SCT", "246112005"): "the dictionary prints SNOMED's fully specified name; without its semantic tag: Severity",
    ("SCT", "260753009"): "the same: Source; so written by highdicom's TID 1500",
    ("RFC5646", "en-US"): "RFC 5646, named by CID 5000; not a table of PS3.16",
    ("UCUM", "{0:100}"): "PS3.16 TID 4014, unit of Image Quality Rating",
    ("UCUM", "{0:1}"): "PS3.16 units of probabilities, as {0:100}",
    ("UCUM", "mA"): "PS3.16 TID 10014, unit of X-Ray Tube Current", ("UCUM", "mA.s"): "UCUM, mA times s",
    ("UCUM", "mGy"): "PS3.16 TID 10013, unit of dose", ("UCUM", "T"): "UCUM, tesla", ("UCUM", "MHz"): "UCUM, mega and hertz",
    ("UCUM", "W/kg"): "UCUM, watt per kilogram",
}
"""Codes that are not in pydicom's copy of PS3.16, or stand there in other words, and where they come from."""


def dictionary() -> dict[tuple[str, str], set[str]]:
    """(scheme, value) -> meanings in pydicom's copy of PS3.16."""
    found: dict[tuple[str, str], set[str]] = {}
    for scheme, words in concepts.items():
        for values in words.values():
            for value, (meaning, *_) in values.items():
                found.setdefault((scheme, value), set()).add(meaning)
    return found


@pytest.fixture(scope="session")
def others(scored: dict[str, Scored], samples: dict[str, list[Path]], engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scored]:
    """Series without a number, as the engine ends them: abstained, skipped, of another modality, no image at all."""
    def localizer(ds: Dataset) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def positron(ds: Dataset) -> None:
        ds.Modality, ds.SOPClassUID = "PT", "1.2.840.10008.5.1.4.1.1.128"

    def document(ds: Dataset) -> None:
        ds.Modality, ds.SOPClassUID = "DOC", EncapsulatedPDFStorage
        del ds.Rows, ds.Columns, ds.PixelData

    lacking = samples["ct"][:2] + samples["ct"][5:]
    found = {"abstained": Scored(lacking, engine(lacking), read_source_header(lacking))}
    for name, change in {"localizer": localizer, "positron": positron, "document": document}.items():
        files = changed(samples["ct"], tmp_path_factory.mktemp(name), change, pixels=True)
        found[name] = Scored(files, engine(files), read_source_header(files))
    return found


KINDS = ("ct", "mr", "enhanced", "abstained", "localizer", "positron", "document")


@pytest.fixture(scope="session")
def reports(scored: dict[str, Scored], others: dict[str, Scored]) -> Callable[[str, str], Dataset]:
    """(series, SR class) -> report, read back from the file; with standard verdict, so that every code is used."""
    kept: dict[tuple[str, str], Dataset] = {}
    for kind, series in (scored | others).items():
        made = render_results(series.assessment, series.files, context(standard_verdict=True), list(SR_CLASSES), False, series.source)
        kept |= {(kind, name): pydicom.dcmread(BytesIO(o.data)) for name, o in zip(SR_CLASSES, made, strict=True)}
    return lambda kind, sr_class: kept[kind, sr_class]


def test_ends_without_a_number_are_those_meant(others: dict[str, Scored]) -> None:
    assert {k: (str(s.assessment.end), str(s.assessment.reason)) for k, s in others.items()} == {
        "abstained": ("abstained", "incomplete-series"), "localizer": ("skipped", "localizer"),
        "positron": ("skipped", "modality-not-scored"), "document": ("skipped", "not-an-image")}


@pytest.mark.parametrize("kind", KINDS)
def test_shape(reports: Callable[[str, str], Dataset], kind: str) -> None:
    """Each NUM has a child, each group a NUM and a tracking UID of its own, all containers are SEPARATE, the library is there."""
    for sr_class in ("comprehensive-3d", "enhanced"):
        report = reports(kind, sr_class)
        items = list(walk(report))
        assert report.ContinuityOfContent == "SEPARATE" and report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
        assert {i.ContinuityOfContent for i, _ in items if i.ValueType == "CONTAINER"} == {"SEPARATE"}
        numbers = [i for i, _ in items if i.ValueType == "NUM"]
        assert numbers
        for number in numbers:
            assert len(number.ContentSequence) >= 1 and {c.RelationshipType for c in number.ContentSequence} == {"INFERRED FROM"}
        groups = [i for i, _ in items if name_of(i) == "Measurement Group"]
        assert len(groups) >= 1 and all(any(c.ValueType == "NUM" for c in g.ContentSequence) for g in groups)
        tracking = [[c.UID for c in g.ContentSequence if name_of(c) == "Tracking Unique Identifier"] for g in groups]
        assert all(len(uids) == 1 and UID(uids[0]).is_valid for uids in tracking)
        assert len({uids[0] for uids in tracking}) == len(groups) == len(groups_of(report))
        library = [i for i, _ in items if name_of(i) == "Image Library Group"]
        assert len(library) == (kind != "document")
        assert all({c.ValueType for c in g.ContentSequence} == {"IMAGE"} for g in library)
        assert not [i for i, _ in items if i.ValueType == "NUM" and i.MeasuredValueSequence[0].NumericValue is None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_reference_is_in_the_evidence(reports: Callable[[str, str], Dataset], scored: dict[str, Scored], others: dict[str, Scored],
                                            kind: str) -> None:
    series = (scored | others)[kind]
    for sr_class in SR_CLASSES:
        report = reports(kind, sr_class)
        evidence = {(r.ReferencedSOPClassUID, r.ReferencedSOPInstanceUID) for study in report.CurrentRequestedProcedureEvidenceSequence
                    for one in study.ReferencedSeriesSequence for r in one.ReferencedSOPSequence}
        assert evidence == {(d.SOPClassUID, d.SOPInstanceUID) for d in series.source.evidence} and len(evidence) == len(series.files)
        frames = {d.SOPInstanceUID: d.get("NumberOfFrames") for d in series.source.evidence}
        references = [r for i, _ in walk(report) for r in i.get("ReferencedSOPSequence", [])]
        assert bool(references) == (sr_class != "basic-text")
        for r in references:
            assert (r.ReferencedSOPClassUID, r.ReferencedSOPInstanceUID) in evidence
            frame = r.get("ReferencedFrameNumber")
            assert frame is None or 1 <= frame <= frames[r.ReferencedSOPInstanceUID]
        if kind == "enhanced" and references:
            assert any("ReferencedFrameNumber" in r for r in references)


@pytest.mark.parametrize("kind", KINDS)
def test_codes(reports: Callable[[str, str], Dataset], scored: dict[str, Scored], others: dict[str, Scored], kind: str) -> None:
    """Standard codes mean what the standard says, our own stand in the published table and are identified, units are UCUM."""
    published = {(r.code.scheme_designator, r.code.value): r.code.meaning for r in codes.all_codes()}
    units = set(codes.UNITS) | {codes.POINTS.value, codes.SHARE.value}
    known = dictionary()
    series = (scored | others)[kind]
    capture = pydicom.dcmread(BytesIO(render_results(series.assessment, series.files, context(), [], True, series.source)[0].data))
    for report in (*(reports(kind, name) for name in SR_CLASSES), capture):
        for item in code_items(report):
            code = (str(item.CodingSchemeDesignator), str(item.CodeValue))
            assert len(code[1]) <= 16 and len(item.CodeMeaning) <= 64 and item.CodeMeaning.isascii()
            if code[0] == "99MEDIQA":
                assert published[code] == item.CodeMeaning and item.CodingSchemeVersion == codes.SCHEME_VERSION
            elif code not in EXCEPTIONS:
                assert item.CodeMeaning in known[code], code
        own = [i for i in code_items(report) if i.CodingSchemeDesignator == "99MEDIQA"]
        if own:
            scheme = {s.CodingSchemeDesignator: s for s in report.CodingSchemeIdentificationSequence}["99MEDIQA"]
            assert scheme.CodingSchemeName and scheme.CodingSchemeVersion and scheme.CodingSchemeResponsibleOrganization
        for number in (i for i, _ in walk(report) if i.ValueType == "NUM"):
            unit = number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
            assert unit.CodingSchemeDesignator == "UCUM" and unit.CodeValue in units


def test_table_of_codes_agrees_with_the_dictionary() -> None:
    """All of the table, whether a series at hand uses it or not; an exception that is none any more is taken out."""
    known = dictionary()
    table = [(r.code.scheme_designator, r.code.value, r.code.meaning) for r in codes.all_codes()]
    table += [("UCUM", value, meaning) for value, meaning in codes.UNITS.items()]
    wrong = {(scheme, value) for scheme, value, meaning in table
             if scheme != codes.SCHEME and meaning not in known.get((scheme, value), set())}
    assert wrong == set(EXCEPTIONS)
    own = [value for scheme, value, _ in table if scheme == codes.SCHEME]
    assert all(re.fullmatch(r"Q\d{3}", value) for value in own)
    assert [v for v, n in Counter(own).items() if n > 1] == []


@pytest.mark.parametrize("kind", ["ct", "mr", "enhanced"])
def test_nothing_numeric_is_left_out(reports: Callable[[str, str], Dataset], scored: dict[str, Scored], kind: str) -> None:
    """Every measure and every numeric acquisition parameter of the Assessment is in the report with its value."""
    a, groups = scored[kind].assessment, groups_of(reports(kind, "comprehensive-3d"))
    for name, quantities, table in (("Measures", a.measures, codes.MEASURES), ("Acquisition", a.acquisition, codes.ACQUISITION)):
        expected = {table[k].meaning: float(q.value) for k, q in quantities.items() if not isinstance(q.value, str)}
        assert len(expected) >= 5 and numbers_of(groups[name]) == pytest.approx(expected)
    for d in a.degradations:
        group = groups[f"Degradation: {d.type}"]
        assert codes_of(group, "Finding")[0][0] == codes.DEGRADATIONS[d.type].value
        assert codes_of(group, "Severity")[0][1].lower() == str(d.severity)
        assert numbers_of(group) == pytest.approx({"Probability": round(d.probability, 3), "Amount of degradation": d.amount})


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["abstained", "localizer", "positron", "document"])
def test_without_a_number(reports: Callable[[str, str], Dataset], others: dict[str, Scored], kind: str, tmp_path: Path) -> None:
    """What a site wants reported besides scored series: not assessed, why, how many images; valid, and no number that could be one."""
    series = others[kind]
    a = series.assessment
    for made, iod in zip(render_results(a, series.files, context(), list(SR_CLASSES), True, series.source), [CAPTURE, *SR_CLASSES.values()], strict=True):
        assert validate(made.data, iod, tmp_path) == []
    report = reports(kind, "comprehensive-3d")
    assert list(groups_of(report)) == (["Series", "Acquisition"] if a.acquisition else ["Series"])
    group = groups_of(report)["Series"]
    assert codes_of(group, "Verdict") == [("Q124", "Not assessed")] and codes_of(group, "Quality Assessment") == []
    assert texts_of(group, "Reason without score") == [f"{a.end}/{a.reason}"]
    assert numbers_of(group) == {"Images received": len(series.files)}
    assert a.text in texts_of(group, "Comment")
    text = texts_of(reports(kind, "basic-text"), "Finding")
    assert text[:2] == [f"Not assessed: {a.end}/{a.reason}", f"Images received: {len(series.files)}"] and a.text in text


def test_an_end_without_a_look_at_the_pixels_is_explained(others: dict[str, Scored]) -> None:
    """Superseded or failed revisions have no text of the engine's; the report gives the table's sentence."""
    series = others["localizer"]
    a = Assessment(series.assessment.series_uid, "CT", End.FAILED, Reason.INTERNAL_ERROR, 9)
    report = pydicom.dcmread(BytesIO(render_results(a, series.files, context(), ["comprehensive-3d"], False, series.source)[0].data))
    assert any("The node made an error".lower() in words.lower() for words in texts_of(report, "Comment"))


def test_own_words_are_ascii(reports: Callable[[str, str], Dataset], scored: dict[str, Scored]) -> None:
    """Whatever the header's texts hold, content items fit any character set."""
    series = scored["ct"]
    a = dataclasses.replace(series.assessment, text="Kernel B30f\u00e4 \u2013 \u65e5")
    report = pydicom.dcmread(BytesIO(render_results(a, series.files, context(), ["comprehensive-3d"], False, series.source)[0].data))
    assert all(words.isascii() for words in texts_of(report, "Comment")) and "SpecificCharacterSet" not in report
