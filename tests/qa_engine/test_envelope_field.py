"""A small part of what the known images show is outside the envelope."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qa_engine import envelope
from qa_engine.assess import assess
from qa_engine.outcome import Reason
from qa_engine.volume import Volume
from tests.support.data import data_folder

TABLE = {"CT/trunk/2D": 280.0, "MR/extremity/2D": 60.0}


@pytest.mark.parametrize(("modality", "regions", "side", "spacing", "wrong"), [
    ("CT", ("chest",), 512, 0.7, False), ("CT", ("chest",), 512, 0.5, False), ("CT", ("abdomen", "spine", "abdomen"), 512, 0.4, True),
    ("CT", ("spine",), 512, 0.3, False), ("MR", ("extremity",), 256, 0.3, False), ("MR", ("extremity",), 64, 0.3, True), ("CT", (None,), 64, 1, False),
])
def test_field_against_the_commonest_region(modality: str, regions: tuple[str | None, ...], side: int, spacing: float, wrong: bool) -> None:
    volume = Volume(modality, np.zeros((1, side, 2 * side), np.float32), "1", (spacing, spacing), None, None, None, (), None)
    assert (envelope.field_problem(volume, regions, TABLE) is not None) == wrong


def test_every_cell_knows_its_smallest_field() -> None:
    table = envelope._table()
    assert table["cells"].keys() == table["field_mm"].keys() and all(v > 20 for v in table["field_mm"].values())


@pytest.mark.data
@pytest.mark.parametrize("file", ["ct/pydicom_CT_small.dcm", "mr/pydicom_MR_small.dcm", "enhanced/fodicom_mr_brucker.dcm", "broken/made_burned_in.dcm"])
def test_crops_and_mice_are_not_judged(file: Path) -> None:
    result = assess([data_folder() / "devtest" / file])
    assert result.reason is Reason.OUTSIDE_ENVELOPE and result.score is None
    assert "field-of-view" in {f.code for f in result.findings}
