"""`mediqa sample`: several doses, a contact sheet, and one line for each wrong use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from node.cli import app

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--slices", "3", "--size", "64", "--views", "60")
Sample = Callable[..., Result]


@pytest.fixture
def sample() -> Sample:
    return lambda *args: CliRunner().invoke(app, ["sample", *map(str, args)])


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_one_dose_lies_in_the_folder_itself(sample: Sample, tmp_path: Path, kind: str) -> None:
    done = sample(kind, tmp_path / "out", *SMALL)
    assert done.exit_code == 0 and done.stdout == f"{tmp_path / 'out'}: 3 images, dose 1\n"
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["0001.dcm", "0002.dcm", "0003.dcm"]
    assert "sample: anatomy" in done.stderr


def test_several_doses_get_a_folder_each(sample: Sample, tmp_path: Path) -> None:
    done = sample("ct", tmp_path, "--dose", 1, "--dose", 0.25, "--dose", 0.1, *SMALL, "--json", "--quiet")
    assert done.exit_code == 0 and done.stderr == ""
    written = json.loads(done.stdout)["series"]
    assert [(w["dose"], Path(w["folder"]).name, w["files"], w["kind"]) for w in written] == [
        (1.0, "dose-1", 3, "ct"), (0.25, "dose-0.25", 3, "ct"), (0.1, "dose-0.1", 3, "ct")]
    for w in written:
        ds = pydicom.dcmread(Path(w["folder"]) / "0001.dcm")
        assert ds.SeriesInstanceUID == w["series_uid"] and float(ds.Exposure) == 160 * w["dose"]


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_a_contact_sheet(sample: Sample, tmp_path: Path, kind: str) -> None:
    done = sample(kind, tmp_path / "out", *SMALL, "--dose", 1, "--dose", 0.25, "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 64, 2 * 64) and sheet.mode == "L"
        grey = sheet.histogram()
    assert sum(grey[:8]) < 0.95 * sum(grey) and sum(grey[248:]) < 0.25 * sum(grey) and sum(n > 0 for n in grey) > 60


@pytest.mark.parametrize("arguments, words", [
    (("us",), "ct or mr, not us"), (("pet",), "later release"), (("ct", "--dose", "0"), "from 0.005 to 10"),
    (("ct", "--dose", "-1"), "from 0.005 to 10"), (("mr", "--dose", "nan"), "from 0.005 to 10"), (("ct", "--dose", "1", "--dose", "1.0"), "each dose once"),
    (("ct", "--slices", "0"), "slices 1 to 500"), (("ct", "--size", "9999"), "size 64 to 1024"), (("ct", "--kernel", "bone"), "shepp-logan"),
    (("mr", "--seed", "-5"), "seed 0 to 999999")], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_wrong_use_is_one_line_and_exit_2(sample: Sample, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = sample(arguments[0], tmp_path / "out", *arguments[1:])
    assert done.exit_code == 2 and done.stderr.startswith("mediqa: ") and done.stderr.count("\n") == 1 and words in done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("ct",), ("ct", "DIR", "--dose", "much"), ()], ids=str)
def test_arguments_that_are_missing_or_no_numbers_are_exit_2(sample: Sample, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert sample(*(str(tmp_path / "x") if a == "DIR" else a for a in arguments)).exit_code == 2


def test_a_folder_that_cannot_be_written_is_said_before_the_work(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        done = sample("ct", folder, *SMALL)
        assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "cannot write to" in done.stderr


def test_a_sheet_that_cannot_be_written_is_one_line(sample: Sample, tmp_path: Path) -> None:
    for sheet in (tmp_path / "nowhere" / "sheet.png", tmp_path / "sheet.unknown"):
        done = sample("mr", tmp_path / "out", *SMALL, "--quiet", "--sheet", sheet)
        assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "contact sheet" in done.stderr


def test_as_a_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "node", "sample", "mr", str(tmp_path), *SMALL, "--quiet"], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and len(list(tmp_path.iterdir())) == 3
