"""The loaded model: Q is the weighted sum, weights are trained and sum to 1, devices agree, memory that runs out is no end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qa_engine.model import Model, ModelMissing, load_model, resolve_device
from qa_engine.prompts import Prompts
from qa_engine.simulation.degradations import degrade
from qa_engine.simulation.dicom_series import simulate_arrays
from qa_engine.volume import FrameRef, Volume

pytestmark = [pytest.mark.model]

SLICES = 7
PURPOSES = {"CT": "soft tissue", "MR": ""}
SPACING = {"CT": 1.4, "MR": 1.0}
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model()


@pytest.fixture(scope="module")
def pixels() -> dict[str, np.ndarray]:
    return {m: np.asarray(simulate_arrays(m.lower(), (1.0,), slices=SLICES, size=192, seed=3)[0], np.float32) for m in PURPOSES}


def volume(modality: str, pixels: np.ndarray) -> Volume:
    frames = tuple(FrameRef(Path("none"), "1.2.3", f"1.2.{k}", None, k + 1) for k in range(len(pixels)))
    return Volume(modality, pixels, "1", (SPACING[modality],) * 2, np.arange(len(pixels)) * 10.0, (0.0, 0.0, 1.0), (1.0, 0, 0, 0, 1.0, 0), frames,
                  None, 5.0, ())


def score(model: Model, modality: str, pixels: np.ndarray, prompts: Prompts = Prompts(), device: str = "cpu"):
    return model.score(volume(modality, pixels), range(len(pixels)), prompts, PURPOSES[modality], device)


@pytest.mark.parametrize("modality", PURPOSES)
def test_quality_is_the_weighted_sum(model: Model, pixels: dict[str, np.ndarray], modality: str) -> None:
    found = score(model, modality, pixels[modality])
    assert found.weight.sum() == pytest.approx(1.0) and (found.weight > 0).all()
    assert found.score == pytest.approx(float((found.weight * found.q).sum()), abs=1e-9)
    assert found.q.min() >= 0 and found.q.max() <= 100 and found.weight.std() > 0


@pytest.mark.parametrize(("modality", "kind", "severity"), [("CT", "noise", 60.0), ("CT", "blur", 4.0), ("MR", "motion", 0.2), ("MR", "noise", 0.15)])
def test_damage_of_one_slice_changes_its_score_and_its_weight(model: Model, pixels: dict[str, np.ndarray], modality: str, kind: str,
                                                              severity: float) -> None:
    before = score(model, modality, pixels[modality])
    changed = pixels[modality].copy()
    image = torch.from_numpy(changed[3:4])
    changed[3] = degrade(kind, image, torch.tensor([[SPACING[modality]] * 2]), torch.tensor([severity]), torch.Generator().manual_seed(2), modality)[0][0]
    after = score(model, modality, changed)
    others = np.arange(SLICES) != 3
    assert np.allclose(before.q[others], after.q[others], atol=1e-3), "slices do not touch each other's scores"
    assert after.q[3] < before.q[3] - 10 and after.score < before.score
    assert abs(after.weight[3] - before.weight[3]) > 1e-3


@pytest.mark.parametrize("modality", PURPOSES)
def test_other_prompts_move_the_score_little(model: Model, pixels: dict[str, np.ndarray], modality: str) -> None:
    """Prompts help, they do not decide: a wrong one costs less than the interval is wide (model.md section 11: 0.19 SRCC once)."""
    plain = score(model, modality, pixels[modality])
    for prompts in (Prompts("3d", modality.lower(), "extremity", None), Prompts("2d", modality.lower(), "heart", "dwi")):
        assert abs(score(model, modality, pixels[modality], prompts).score - plain.score) < model.calibration(modality).quantile


def test_strange_pixels_are_strange(model: Model, pixels: dict[str, np.ndarray]) -> None:
    known = np.median(score(model, "CT", pixels["CT"]).strangeness)
    checks = np.indices((192, 192)).sum(0) % 2 * 2000.0 - 1000.0
    assert np.median(score(model, "CT", np.stack([checks] * 3).astype(np.float32)).strangeness) > max(1.6, known)


def test_devices() -> None:
    assert resolve_device("cpu") == ("cpu", ())
    device, findings = resolve_device("cuda:63")
    assert device == "cpu" and [f.code for f in findings] == ["device-absent"]
    assert resolve_device("auto")[0] == ("cuda:0" if torch.cuda.is_available() else "cpu")


@cuda
@pytest.mark.parametrize("modality", PURPOSES)
def test_cpu_and_cuda_agree_within_a_tenth_of_a_point(model: Model, pixels: dict[str, np.ndarray], modality: str) -> None:
    one, two = score(model, modality, pixels[modality]), score(model, modality, pixels[modality], device="cuda:0")
    assert two.device == "cuda:0" and abs(one.score - two.score) < 0.1 and np.abs(one.q - two.q).max() < 0.1


@cuda
def test_a_full_device_gives_the_work_to_the_cpu(model: Model, pixels: dict[str, np.ndarray]) -> None:
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(1e-6)
        found = score(model, "MR", pixels["MR"], device="cuda:0")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found.device == "cpu" and [f.code for f in found.findings] == ["out-of-device-memory"]
    assert found.score == pytest.approx(score(model, "MR", pixels["MR"]).score, abs=0.1)


def test_missing_and_foreign_weights_say_so(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="no weights"):
        load_model("mediqa-none")
    with pytest.raises(ModelMissing, match="not the name"):
        load_model("../mediqa")
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 64)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ModelMissing, match="do not fit"):
        load_model("x", tmp_path)
