"""The released checkpoint comes in as weights alone, fits or says where it does not, and gives no series a number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from node.cli import app
from qa_engine.assess import assess
from qa_engine.assessment import Assessment
from qa_engine.decode import Decoder
from qa_engine.model import ModelMissing, load_model, profiles
from qa_engine.network.published import PublishedMedIQA
from qa_engine.network.published_input import as_released
from qa_engine.outcome import End, Reason
from qa_engine.policy import Policy
from qa_engine.published import CheckpointError, PublishedModel, convert_checkpoint
from qa_engine.simulation.dicom_series import write_sample
from tests.support.published import fill, one_hot, waves

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def network() -> PublishedMedIQA:
    made = PublishedMedIQA().eval()
    fill(made)
    return made


@pytest.fixture(scope="module")
def installed(network: PublishedMedIQA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the profile, imported by the command from a checkpoint as a training on several devices saves it."""
    folder, file = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("released") / "MedIQA.pt"
    buffers = ("attn_mask", "relative_position_index")
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in network.state_dict().items() if not n.endswith(buffers)}}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qa_engine.model.WEIGHTS", folder)
        first, second = (CliRunner().invoke(app, ["model", "import", str(file), *more]) for more in (["--json"], []))
    assert first.exit_code == 0 and json.loads(first.stdout) == {"installed": "mediqa-base"}, first.stderr
    assert second.exit_code == 1 and "there is a profile mediqa-base already" in second.stderr and second.stderr.count("\n") == 1
    file.unlink()
    return folder


@pytest.fixture(scope="module")
def model(installed: Path) -> PublishedModel:
    found = load_model("mediqa-base", installed)
    assert isinstance(found, PublishedModel)
    return found


def small(network: nn.Module, **changed: Tensor | None) -> dict[str, Tensor]:
    """All names and shapes in a file of a few kilobytes: of each tensor one value is stored. What is None is left out."""
    state: Mapping[str, Tensor | None] = {n: t.flatten()[:1].clone().expand(t.shape) for n, t in network.state_dict().items()} | changed
    return {n: t for n, t in state.items() if t is not None}


def test_imported_weights_give_the_published_score(model: PublishedModel, installed: Path) -> None:
    found = model.scores(waves(1), code=9)
    assert float(found.score) == pytest.approx(1.138961, abs=2e-5) and float(found.patch_weight) == pytest.approx(0.765149, abs=2e-5)
    assert profiles(installed) == ["mediqa-base"]
    assert model.card["source"]["file"] == "MedIQA.pt" and model.identity.version == "released-" + model.card["source"]["sha256"][:12]


def test_a_series_as_released(model: PublishedModel, network: PublishedMedIQA, tmp_path: Path) -> None:
    """Files by name, repeated up to seven, as stored, plain mean; the Assessor finds no calibration and gives no number."""
    write_sample("ct", tmp_path, slices=2, size=128, views=120)
    files = sorted(tmp_path.glob("*.dcm"))
    with Decoder() as decoder:
        images = torch.stack([as_released(decoder.read(files[k]).pixels[0]) for k in (0, 1)])
        found = model.series_score(files[::-1], decoder, code=3)
        with torch.inference_mode():
            first, second = network(images, one_hot(3)).score.tolist()
        result = assess(files, Policy(profile="mediqa-base", device="cpu"), model, decoder)  # type: ignore[arg-type]
    assert found == pytest.approx((4 * first + 3 * second) / 7, abs=2e-5) and first != second
    assert (result.end, result.reason, result.score) == (End.ABSTAINED, Reason.NO_MODEL, None)
    assert _finding(result) == "The model has no calibration for CT."


def _finding(result: Assessment) -> str:
    return next(f.text for f in result.findings if f.code == "no-model")


def test_a_pickled_module_stays_closed(tmp_path: Path) -> None:
    """Also one of a class that is not here; the message says how to get at the weights."""
    file = tmp_path / "whole.pt"
    torch.save(nn.Linear(2, 2), file)
    with pytest.raises(CheckpointError, match=r"whole\.pt holds a pickled module.*torch\.save\(model\.state_dict\(\)") as said:
        convert_checkpoint(file, tmp_path)
    assert "\n" not in str(said.value)
    done = CliRunner().invoke(app, ["model", "import", str(file)])
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1


def test_the_first_differences_are_named(network: PublishedMedIQA, tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    torch.save({"model": small(network, **{"vit.cls_token": None, "conv1.bias": torch.zeros(7), "vit.extra": torch.zeros(1)})}, file)
    with pytest.raises(CheckpointError) as said:
        convert_checkpoint(file, tmp_path)
    assert str(said.value) == ("other.pt is not a checkpoint of mediqa-base: it lacks vit.cls_token; also has vit.extra; conv1.bias is 7, not 768")
    torch.save(nn.Linear(2, 2).state_dict(), file)
    with pytest.raises(CheckpointError, match=r"it lacks vit\.cls_token, vit\.pos_embed, vit\.patch_embed\.proj\.weight and 305 more; also has"):
        convert_checkpoint(file, tmp_path)


@pytest.mark.parametrize(("held", "words"), [
    ({"conv1.bias": torch.full((768,), torch.nan)}, "values that are no numbers in conv1.bias"), ([1, 2], "holds no tensors with names"),
    ({}, "holds no tensors with names"), (b"PK\x03\x04 but not really", "is not a checkpoint that torch can read"), (b"", "is not a checkpoint"),
])
def test_what_is_no_checkpoint_is_one_line(network: PublishedMedIQA, tmp_path: Path, held: object, words: str) -> None:
    file = tmp_path / "odd.pt"
    if isinstance(held, bytes):
        file.write_bytes(held)
    else:
        torch.save(small(network, **held) if isinstance(held, dict) and held else held, file)
    with pytest.raises(CheckpointError, match=words) as said:
        convert_checkpoint(file, tmp_path)
    assert "\n" not in str(said.value) and not (tmp_path / "mediqa-base.safetensors").exists()


def test_weights_of_a_profile_without_their_card(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"no weights")
    done = CliRunner().invoke(app, ["model", "import", str(file)])
    assert done.exit_code == 1 and "mine.safetensors is not a safetensors file; weights of another profile need their card" in done.stderr
    file.with_suffix(".json").write_text(json.dumps({"architecture": "mediqa-base", "scrambled": True, "version": "1", "calibration": {}}))
    with pytest.raises(ModelMissing, match="do not fit this version"):
        load_model("mine", tmp_path)
