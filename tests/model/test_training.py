"""Training: subjects never on both sides, the ladder is seeded, weights that are made load and are what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_engine.measures import MEASURE_NAMES
from qa_engine.model import load_model
from qa_engine.training.cache import Cache, held_out_rows, load_caches
from qa_engine.training.calibrate import predict
from qa_engine.training.dataset import SIMULATED, simulated_series
from qa_engine.training.fit import FitSettings, curves_of, fit
from qa_engine.training.ladder import LADDERS, save, versions
from tests.support.data import data_folder

pytestmark = [pytest.mark.model]  # trains it, and half a minute is too long for one's own loop


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two slices of a simulated patient of each modality, renamed so that there are subjects to keep out."""
    folder, files = tmp_path_factory.mktemp("caches"), []
    for kind in ("CT", "MR"):
        found = list(versions(simulated_series(kind, 1, doses=(1.0,)), 1))
        copies = [type(v)(**{**vars(v), "subject": f"{kind}-{k}", "source": "site", "series": f"{kind}-{k}"}) for k in range(3) for v in found]
        files.append(folder / f"{kind}.npz")
        save(copies, files[-1], kind)
    return files


@pytest.fixture(scope="module")
def cache(caches: list[Path]) -> Cache:
    return load_caches(caches)


def test_the_ladder_is_seeded_and_knows_its_physics() -> None:
    (one,) = simulated_series("MR", 1, doses=(1.0,))
    first, again, other = (list(versions([one], 1, seed=s)) for s in (0, 0, 1))
    assert all(np.array_equal(a.views, b.views) and np.array_equal(a.physics, b.physics) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1].views, other[1].views)
    assert len(first) == len(LADDERS["MR"]) and first[0].rung == 0
    clean = first[0].physics
    for version, steps in zip(first[1:], LADDERS["MR"][1:], strict=True):
        kinds = {kind for kind, _, _ in steps}
        raised = version.physics > clean * 1.0001
        assert raised.tolist() == ["noise" in kinds, "blur" in kinds, "motion" in kinds], (steps, version.physics, clean)


def test_draws_of_a_slice_differ() -> None:
    (one,) = simulated_series("MR", 1, doses=(1.0,))
    found = list(versions([one], 1, draws=2))
    assert {v.draw for v in found} == {0, 1} and not np.array_equal(found[1].views, found[1 + len(found) // 2].views)


def test_no_subject_is_fitted_and_kept_out() -> None:
    subject = np.array([f"s{k // 4}" for k in range(80)] + ["sim"] * 4)
    source = np.array(["a"] * 40 + ["b"] * 36 + ["c"] * 4 + [SIMULATED] * 4)
    out = held_out_rows(subject, source, np.array(["MR"] * 84))
    assert set(subject[out]).isdisjoint(subject[~out]) and not out[source == SIMULATED].any()
    assert 0.25 < len(set(subject[out])) / 20 < 0.4


def test_fitting_finds_the_physics(cache: Cache) -> None:
    said: list[str] = []
    network, standard = fit(cache, FitSettings(minutes=0.1, series_per_step=2), None, said.append)
    assert not network.training and any(line.startswith("network") for line in said)
    found = predict(network, standard, cache, np.arange(len(cache)))
    error = np.abs(np.log(found.physics) - np.log(cache.physics.numpy())).mean(0)
    chance = np.abs(np.log(cache.physics.numpy()) - np.log(cache.physics.numpy()).mean(0)).mean(0)
    assert (error < 0.6 * chance).all(), (error, chance)


def test_curves_for_gradients_are_those_of_the_score(cache: Cache) -> None:
    from qa_engine.targets import quality_of

    curves = curves_of(cache, "cpu")
    rows = torch.arange(len(cache))
    for modality, mr in (("CT", False), ("MR", True)):
        pick = rows[cache.is_mr == mr]
        wanted = quality_of(cache.physics[pick].double().numpy(), modality, str(cache.purpose[pick[0]])) / 100
        assert np.allclose(curves.quality(cache.physics[pick], pick).clamp(0, 1).numpy(), wanted, atol=2e-3)


def mediqa(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "node", "train", *map(str, words)], capture_output=True, text=True, timeout=280)


@pytest.mark.data
def test_simulate_writes_caches_of_real_slices(tmp_path: Path) -> None:
    done = mediqa("simulate", tmp_path, "--data", data_folder(), "--part", "7/80", "--slices", 1, "--quiet")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    found = load_caches(sorted(tmp_path.glob("*.npz")))
    assert len(found) == 2 * len(LADDERS["CT"]) + len(LADDERS["MR"]) and bool(found.measures.isfinite().all())


def test_fit_and_evaluate_as_commands(tmp_path: Path, caches: list[Path]) -> None:
    done = mediqa("fit", *caches, "--out", tmp_path, "--minutes", 0.02, "--profile", "trial", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "trial.json").read_text())
    assert json.loads(done.stdout)["calibration"] == card["calibration"] and card["measures"] == list(MEASURE_NAMES)
    assert (tmp_path / "trial-run.csv").read_text().startswith("step,loss\n0,") and (tmp_path / "trial-run.png").is_file()
    done = mediqa("evaluate", *caches, "--profile", "trial", "--weights", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["calibration"]
    for modality in ("CT", "MR"):
        assert found[modality]["srcc_slice"] == pytest.approx(card["calibration"][modality]["srcc_slice"], abs=0.01)
        assert found[modality]["half_width"] is None, "one subject kept out makes no interval"
    with pytest.raises(KeyError):
        load_model("trial", tmp_path).calibration("CT")


@pytest.mark.parametrize(("words", "said"), [
    (("simulate", "out", "--data", "nowhere"), "no train/index.csv"), (("fit", "none.npz", "--out", "x"), "no such file"),
    (("evaluate", "none.npz"), "no such file"), (("region", "--data", "nowhere", "--out", "x"), "no train/index.csv")])
def test_wrong_use_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = mediqa(*words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
