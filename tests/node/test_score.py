"""`mediqa score` and its JSON, key by key as DESIGN section 7 lists them, on folders that hold anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from qa_engine.outcome import End, Reason, Severity
from qa_engine.simulation.dicom_series import write_sample
from tests.support.contract import ENDS, check
from tests.support.series import MR, axial, write_all
from tests.support.small_objects import CT, image, write

pytestmark = pytest.mark.model

@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


def mediqa(*arguments: object, cwd: Path, **env: str) -> Run:
    done = subprocess.run([sys.executable, "-m", "node", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", **env})
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have them: a CT and an MR patient among everything else."""
    root = tmp_path_factory.mktemp("anything") / "Bücher und Bilder 画像"
    write_sample("ct", root / "CT chest", slices=9, size=128, views=120)
    write_sample("mr", root / "mr" / "a" / "b", slices=9, size=128)
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("no DICOM")
    (root / "nothing").write_bytes(b"")
    (root / "\x1b[31mred\n").write_bytes(b"\x00" * 500)
    with open(os.fsencode(root) + b"/\xff\xfe.bin", "wb") as f:
        f.write(b"no UTF-8 in this name")
    os.mkfifo(root / "pipe")
    (root / "dangling").symlink_to(root / "gone")
    (root / "loop").symlink_to(root)
    first = root / "CT chest" / "0001.dcm"
    (root / "link to the first slice").symlink_to(first)
    index = FileSet()
    index.add(first)
    index.write(root / "media")
    truncated = axial(3, SeriesDescription="truncated")
    files = write_all(truncated, root / "truncated")
    files[1].write_bytes(files[1].read_bytes()[:-3000])
    twins = axial(4, SeriesDescription="twin")
    write_all(twins, root / "twins" / "a")
    other = generate_uid()
    for ds in twins:
        ds.StudyInstanceUID = other
    write_all(twins, root / "twins" / "b")
    write(image(Modality="OT"), root / "capture.dcm")
    write_all(axial(2, sop_class=MR, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), root / "scout")
    bare = image(CT)
    del bare.SeriesInstanceUID
    write(bare, root / "no series.dcm")
    return root


@pytest.fixture(scope="module")
def scored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mediqa("score", folder, "--json", cwd=tmp_path_factory.mktemp("cwd"))


def uid(folder: Path) -> str:
    return str(pydicom.dcmread(sorted(folder.iterdir())[0], stop_before_pixels=True).SeriesInstanceUID)


def test_a_folder_of_anything_follows_the_contract(folder: Path, scored: Run) -> None:
    found = check(scored.json)
    assert scored.code == 0 and "Traceback" not in scored.err
    ct, mr = found[uid(folder / "CT chest")], found[uid(folder / "mr" / "a" / "b")]
    assert (ct["end"], ct["modality"], mr["end"], mr["modality"]) == ("assessed", "CT", "assessed", "MR")
    assert ct["instances"] == mr["instances"] == 9 and len(ct["slices"]) <= 7
    assert ct["acquisition"]["KVP"]["unit"] == "kV" and mr["acquisition"]["EchoTime"]["unit"] == "ms"


def test_every_file_is_in_a_series_or_rejected(folder: Path, scored: Run) -> None:
    found = scored.json
    rejected = {Path(one["file"]).name: one["reason"] for one in found["rejected"]}
    assert rejected == {
        "notes.txt": "not a DICOM object", "nothing": "not a DICOM object", "\x1b[31mred\n": "not a DICOM object", "\udcff\udcfe.bin": "not a DICOM object",
        "pipe": "not a file", "dangling": "no such file", "DICOMDIR": "a DICOMDIR, not an object", "no series.dcm": "no Series or SOP Instance UID"}
    ends = sorted((e["description"], e["end"], e["reason"], e["instances"]) for e in found["series"] if e["end"] != "assessed")
    assert [e for e in ends if e[0] != "twin"] == [
        ("", "skipped", "localizer", 2), ("", "skipped", "modality-not-scored", 1), ("truncated", "undecodable", "inconsistent-pixel-description", 3)]
    twins = [e for e in ends if e[0] == "twin"]
    assert len(twins) == 2 and {e[3] for e in twins} == {4}  # one UID in two studies: two series


def test_every_slice_on_request_and_objects_in_a_folder(folder: Path, tmp_path: Path) -> None:
    run = mediqa("score", folder / "CT chest", "--json", "--slices", "full", "--out", tmp_path / "out", cwd=tmp_path, FORCE_COLOR="1")
    assert run.code == 0 and run.out.startswith("{") and run.out.endswith("}\n") and "\x1b" not in run.out and "score" in run.err  # progress
    assert len(next(iter(check(run.json).values()))["slices"]) == 9
    made = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert [p.name for p in made] == ["overlay.png", "sc.dcm", "sr.dcm"] and made[0].read_bytes()[:4] == b"\x89PNG"
    source = pydicom.dcmread(folder / "CT chest" / "0001.dcm")
    for file in made[1:]:
        result = pydicom.dcmread(file)
        assert result.StudyInstanceUID == source.StudyInstanceUID and "offline" in str(result).lower()


def test_a_table_for_people_and_what_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    run = mediqa("score", folder / "CT chest" / "0005.dcm", folder / "notes.txt", "--out", "out", cwd=tmp_path)
    assert run.code == 1 and "cannot write to out" in run.err
    assert "assessed" in run.out and "notes.txt: not a DICOM object" in run.out
    run = mediqa("score", folder / "scout", folder / "capture.dcm", "--out", "none", cwd=tmp_path)
    assert run.code == 0 and "no report in none for 2 series: report.on" in run.out and not (tmp_path / "none").exists()


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["gone"], 2, "no such file or folder: gone"), ([], 2, "Missing argument"), ([".", "--slices", "some"], 2, "--slices is salient or full"),
    ([".", "--json", "--wrong"], 2, "No such option"), ([".", "--json", "--quiet"], 1, "no DICOM series there"),
])
def test_exit_codes(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    run = mediqa("score", *arguments, cwd=tmp_path)
    assert run.code == code and words in run.err and "Traceback" not in run.err
    if code == 1:
        assert run.json == {"series": [], "rejected": []}


def test_words_of_the_contract() -> None:
    assert {str(e) for e in End} == {"assessed", "abstained", "skipped", "undecodable", "failed"} and len(ENDS) == len(Reason) + 1
    assert list(Severity) == ["none", "mild", "moderate", "severe"]
