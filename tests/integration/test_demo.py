"""`make demo` with a folder of the newcomer's own: the script that it runs, from an empty folder to the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qa_engine.simulation.dicom_series import write_sample

pytestmark = [pytest.mark.model]

ROOT = Path(__file__).resolve().parents[2]


def demo(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "scripts/demo.py", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=240)


def test_a_study_of_ones_own_goes_round(tmp_path: Path) -> None:
    write_sample("mr", tmp_path / "study", slices=9, size=128, seed=5)
    done = demo("--study", tmp_path / "study", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SC + SR" in done.stdout and "7 of 9" in done.stdout and "not for diagnosis" in done.stdout
    assert len(list((tmp_path / "run" / "pacs").glob("SR-*.dcm"))) == len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 1


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = demo("--study", tmp_path / "none", "--run", tmp_path / "run")
    assert done.returncode == 1 and done.stderr.startswith("demo: ") and len(done.stderr.splitlines()) == 1
