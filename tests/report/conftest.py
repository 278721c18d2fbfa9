"""Series that the real engine has scored once for all tests of the reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from node.report.source_header import read_source_header
from qa_engine.assess import assess
from qa_engine.assessment import Assessment
from qa_engine.decode import Decoder
from qa_engine.model import load_model
from qa_engine.simulation.dicom_series import write_sample
from tests.support.reports import Scored, enhanced_mr

Engine = Callable[[Sequence[Path]], Assessment]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Files of a series -> Assessment, with one model and one decoder."""
    model = load_model("mediqa-compact")
    with Decoder(60.0, 2 ** 31) as decoder:
        yield lambda files: assess(list(files), model=model, decoder=decoder)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Files of simulated series: a CT of nine slices, an MR of three, the MR as one Enhanced MR object."""
    folder = tmp_path_factory.mktemp("samples")
    write_sample("ct", folder / "ct", slices=9, size=64, views=90)
    write_sample("mr", folder / "mr", slices=3, size=64)
    found = {kind: sorted((folder / kind).glob("*.dcm")) for kind in ("ct", "mr")}
    (folder / "enhanced").mkdir()
    enhanced_mr(found["mr"]).save_as(folder / "enhanced" / "1.dcm", enforce_file_format=True)
    return found | {"enhanced": [folder / "enhanced" / "1.dcm"]}


@pytest.fixture(scope="session")
def scored(engine: Engine, samples: dict[str, list[Path]]) -> dict[str, Scored]:
    """The simulated series, assessed."""
    found = {kind: Scored(files, engine(files), read_source_header(files)) for kind, files in samples.items()}
    assert {str(s.assessment.end) for s in found.values()} == {"assessed"}, {k: s.assessment.reason for k, s in found.items()}
    return found
