"""The gates in front of the network: test objects get no number whatever their header says, and a contradicted region is an unknown prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from qa_engine.assess import judge
from qa_engine.assessment import SeriesFacts
from qa_engine.decode import Decoder
from qa_engine.model import Model, NetworkResult, load_model
from qa_engine.outcome import Reason
from qa_engine.policy import Policy
from qa_engine.prompts import REGIONS, Prompts
from qa_engine.series import group_files, read_series
from qa_engine.training.dataset import TrainingSeries, load_training_series
from qa_engine.volume import FrameRef, Reading, Volume
from tests.support.data import data_folder

pytestmark = [pytest.mark.data, pytest.mark.model]
NO_NUMBER = {Reason.PHANTOM, Reason.OUTSIDE_ENVELOPE, Reason.UNFAMILIAR_CONTENT}


@cache
def model() -> Model:
    return load_model()


def reading_of(one: TrainingSeries, shape: tuple[int, int], hints: dict[str, str]) -> Reading:
    """The slices of one size as a series that says what `hints` say."""
    pixels = np.stack([image for image in one.pixels if image.shape == shape]).astype(np.float32)
    frames = tuple(FrameRef(Path("x"), "1.2", f"1.2.{k}", None, k + 1) for k in range(len(pixels)))
    volume = Volume(one.modality, pixels, "1", one.spacing_mm, 5.0 * np.arange(len(pixels)), (0.0, 0.0, 1.0), (1.0, 0, 0, 0, 1.0, 0), frames)
    return Reading("1.2.3", one.modality, len(pixels), volume, None, SeriesFacts(), hints=hints)


@pytest.mark.parametrize(("modality", "role", "word"), [
    ("CT", "phantom_qa", "CHEST"), ("CT", "phantom_anthropomorphic", "ABDOMEN"), ("MR", "phantom_qa", "BRAIN")])
def test_no_test_object_gets_a_number_from_the_assessor(modality: str, role: str, word: str) -> None:
    """Whatever the header calls it; single slices as well as stacks."""
    rows = load_training_series(data_folder(), modality, ship_only=False, role=role)
    assert rows
    for one in rows:
        for shape in {image.shape for image in one.pixels}:
            found = judge(reading_of(one, shape, {"BodyPartExamined": word}), Policy(device="cpu"), model())
            assert found.reason in NO_NUMBER and found.score is None and found.slices == (), one.name


def test_below_the_gate_the_network_answers_for_a_test_object() -> None:
    """The gate holds the number back, not the network: a benchmark can put test objects in order."""
    one = load_training_series(data_folder(), "CT", ship_only=False, role="phantom_qa")[0]
    volume = reading_of(one, one.pixels[0].shape, {}).volume
    assert volume is not None
    found = model().score(volume, range(len(volume.pixels)), Prompts("3d", "ct"), "soft tissue", "cpu")
    assert np.isfinite(found.physics).all() and 0 <= found.score <= 100


class Listening:
    """A model that keeps the prompts that it was asked with."""

    def __init__(self, inner: Model) -> None:
        self.inner, self.prompts = inner, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def score(self, volume: Volume, indices: Sequence[int], prompts: Prompts, purpose: str, device: str = "cpu") -> NetworkResult:
        self.prompts.append(prompts)
        return self.inner.score(volume, indices, prompts, purpose, device)


@cache
def brain() -> Reading:
    (files,), _ = group_files([data_folder() / "series" / "brain-t1-post-siemens-3t"])
    with Decoder() as decoder:
        return read_series(files, decoder)


@pytest.mark.parametrize(("named", "prompt", "mismatch"), [("BRAIN", "head", False), ("", "head", False), ("PELVIS", None, True)])
def test_a_region_that_the_pixels_contradict_is_unknown(named: str, prompt: str | None, mismatch: bool) -> None:
    hints = {k: v for k, v in brain().hints.items() if k not in ("BodyPartExamined", "AnatomicRegion", "SeriesDescription", "ProtocolName",
                                                                "StudyDescription", "RequestedProcedureDescription")}
    listening = Listening(model())
    found = judge(replace(brain(), hints={**hints, "BodyPartExamined": named}), Policy(device="cpu"), listening)  # type: ignore[arg-type]
    assert found.score is not None
    assert found.text.startswith("MR series." if mismatch else "MR of the head.")
    (asked,) = listening.prompts
    assert asked.region == prompt and asked.indices()[2] == (0 if prompt is None else REGIONS.index(prompt) + 1)
    assert ("region-mismatch" in {f.code for f in found.findings}) is mismatch


def test_header_and_pixels_must_both_lie_inside_where_they_disagree() -> None:
    """A head that is called a breast, a region with too few subjects: the word alone would be outside, the pixels alone inside."""
    found = judge(replace(brain(), hints={"BodyPartExamined": "BREAST"}), Policy(device="cpu"), model())
    assert found.reason is Reason.OUTSIDE_ENVELOPE and "region-mismatch" in {f.code for f in found.findings}
