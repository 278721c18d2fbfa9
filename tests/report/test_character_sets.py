"""Names in every character set that hospitals use reach the results as they stand in the source, or in UTF-8 (PS3.3 C.12.1.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from node.report.render import render_results
from node.report.source_header import read_source_header
from tests.support.reports import CAPTURE, SR_CLASSES, Scored, changed, context, put_bytes, validate

pytestmark = [pytest.mark.model, pytest.mark.peer]


def _escaped(groups: str, encoding: str, escape: bytes = b"") -> bytes:
    """Components in ISO 2022; each begins and ends in ASCII, as PS3.5 6.1.2.5.3 asks."""
    return b"^".join(escape + part.encode(encoding) for part in groups.split("^"))


@dataclass(frozen=True)
class Case:
    """declared: Specific Character Set of the source, None for absent; expected: what the result declares."""

    declared: str | None
    name: bytes
    text: str
    expected: str | list[str] | None
    explained: bool = True


CASES = {
    "ascii": Case(None, b"SIMULATED^TEST", "SIMULATED^TEST", None),
    "ascii declared as latin-1": Case("ISO_IR 100", b"SIMULATED^TEST", "SIMULATED^TEST", None),
    "latin-1": Case("ISO_IR 100", "SIMULIERT^PRÜFUNG".encode("latin-1"), "SIMULIERT^PRÜFUNG", "ISO_IR 100"),
    "cyrillic": Case("ISO_IR 144", "СИМУЛЯЦИЯ^ТЕСТ".encode("iso8859_5"), "СИМУЛЯЦИЯ^ТЕСТ", "ISO_IR 144"),
    "greek": Case("ISO_IR 126", "ΔΟΚΙΜΗ^ΤΕΣΤ".encode("iso8859_7"), "ΔΟΚΙΜΗ^ΤΕΣΤ", "ISO_IR 126"),
    "japanese": Case("\\ISO 2022 IR 87", b"SIMULATED^TEST=" + _escaped("模擬^試験", "iso2022_jp") + b"=" + _escaped("もぎ^しけん", "iso2022_jp"),
                     "SIMULATED^TEST=模擬^試験=もぎ^しけん", ["", "ISO 2022 IR 87"]),
    "japanese with half-width katakana": Case(
        "ISO 2022 IR 13\\ISO 2022 IR 87", "ﾓｷﾞ^ｼｹﾝ=".encode("shift_jis") + _escaped("模擬^試験", "iso2022_jp").replace(b"\x1b(B", b"\x1b(J"),
        "ﾓｷﾞ^ｼｹﾝ=模擬^試験", ["ISO 2022 IR 13", "ISO 2022 IR 87"]),
    "japanese with half-width katakana alone": Case("ISO_IR 13", "ﾓｷﾞ^ｼｹﾝ".encode("shift_jis"), "ﾓｷﾞ^ｼｹﾝ", ["ISO 2022 IR 13", "ISO 2022 IR 87"]),
    "korean": Case("\\ISO 2022 IR 149", b"SIMULATED^TEST=" + _escaped("모의^시험", "euc_kr", b"\x1b$)C"), "SIMULATED^TEST=모의^시험",
                   ["", "ISO 2022 IR 149"]),
    "chinese gb18030": Case("GB18030", "SIMULATED^TEST=模拟^试验".encode("gb18030"), "SIMULATED^TEST=模拟^试验", "GB18030"),
    "chinese gbk": Case("GBK", "SIMULATED^TEST=模拟^试验".encode("gbk"), "SIMULATED^TEST=模拟^试验", "ISO_IR 192"),
    "utf-8": Case("ISO_IR 192", "SIMULATED^TEST=模擬^시험 Ü".encode(), "SIMULATED^TEST=模擬^시험 Ü", "ISO_IR 192"),
    "utf-8 with another": Case("ISO_IR 192\\ISO 2022 IR 100", "SIMULIERT^PRÜFUNG".encode(), "SIMULIERT^PRÜFUNG", "ISO_IR 192"),
    "another with gb18030": Case("ISO 2022 IR 6\\GB18030", "SIMULATED^TEST=模拟^试验".encode("gb18030"), "SIMULATED^TEST=模拟^试验", "GB18030"),
    "none declared": Case(None, "SIMULIERT^PRÜFUNG".encode("latin-1"), "SIMULIERT^PRÜFUNG", "ISO_IR 192", False),
    "none declared, utf-8": Case(None, "SIMULIERT^PRÜFUNG".encode(), "SIMULIERT^PRÜFUNG", "ISO_IR 192", False),
    "ascii declared, latin-1 sent": Case("ISO_IR 6", "SIMULIERT^PRÜFUNG".encode("latin-1"), "SIMULIERT^PRÜFUNG", "ISO_IR 192", False),
    "japanese declared, latin-1 sent": Case("\\ISO 2022 IR 87", "SIMULIERT^PRÜFUNG".encode("latin-1"), "SIMULIERT^PRÜFUNG", "ISO_IR 192", False),
    "misspelt": Case("ISO-IR 100", "SIMULIERT^PRÜFUNG".encode("latin-1"), "SIMULIERT^PRÜFUNG", "ISO_IR 192", False),
    "unknown": Case("ISO_IR 999", "SIMULIERT^PRÜFUNG".encode("latin-1"), "SIMULIERT^PRÜFUNG", "ISO_IR 192", False),
    "utf-8 declared, latin-1 sent": Case("ISO_IR 192", "SIMULIERT^PRÜFUNG".encode("latin-1"), "SIMULIERT^PRÜFUNG", "ISO_IR 192", False),
}


@pytest.mark.parametrize("name", CASES)
def test_name_survives_and_objects_are_valid(scored: dict[str, Scored], name: str, tmp_path: Path) -> None:
    case, series = CASES[name], scored["mr"]

    def rename(ds: Dataset) -> None:
        ds.pop("SpecificCharacterSet", None)
        if case.declared is not None:
            put_bytes(ds, "SpecificCharacterSet", case.declared.encode())
        put_bytes(ds, "PatientName", case.name)
        put_bytes(ds, "StudyDescription", case.name.split(b"=")[0].split(b"^")[0])

    files = changed(series.files, tmp_path, rename)
    source = read_source_header(files)
    assert [f.code for f in source.findings] == ([] if case.explained else ["character-set"])
    classes = list(SR_CLASSES) if name in ("japanese", "cyrillic") else ["comprehensive-3d", "basic-text"]
    made = render_results(series.assessment, files, context(), classes, True, source)
    for o, iod in zip(made, [CAPTURE, *(SR_CLASSES[c] for c in classes)], strict=True):
        assert validate(o.data, iod, tmp_path) == []
        ds = pydicom.dcmread(BytesIO(o.data))
        stored = ds.get_item("PatientName").value
        assert str(ds.PatientName) == case.text
        declared = ds.get("SpecificCharacterSet")
        assert (declared if declared is None or isinstance(declared, str) else list(declared)) == case.expected
        assert stored.rstrip() == (case.text.encode() if case.expected == "ISO_IR 192" else case.name)


def test_utf_8_by_policy(scored: dict[str, Scored], tmp_path: Path) -> None:
    case = CASES["cyrillic"]

    def rename(ds: Dataset) -> None:
        put_bytes(ds, "SpecificCharacterSet", b"ISO_IR 144")
        put_bytes(ds, "PatientName", case.name)

    files = changed(scored["mr"].files, tmp_path, rename)
    made = render_results(scored["mr"].assessment, files, context(charset="utf-8"), ["basic-text"], False)[0]
    ds = pydicom.dcmread(BytesIO(made.data))
    assert (ds.SpecificCharacterSet, str(ds.PatientName)) == ("ISO_IR 192", case.text)
    assert case.text.encode() in made.data
