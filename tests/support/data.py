"""Where the real scans lie: `$MEDIQA_DATA` or `../shared/data` beside the checkout. They are never part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def find_data_folder() -> Path | None:
    """The folder of real scans, None where it is absent."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("MEDIQA_DATA", beside))
    return folder if (folder / "series" / "expected.csv").is_file() else None


def data_folder() -> Path:
    """The folder of real scans; skips the calling test with a clear message where it is absent."""
    folder = find_data_folder()
    if folder is None:
        pytest.skip("real scans are absent: put them into ../shared/data or set MEDIQA_DATA")
    return folder
