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
from qa_engine.training.cache import Cache, leave_out, load_caches
from qa_engine.training.calibrate import predict
from qa_engine.training.dataset import SIMULATED, simulated_series
from qa_engine.training.fit import FitSettings, curves_of, fit
from qa_engine.training.fold_names import SPLITS
from qa_engine.training.folds import LARGE, fold_of
from qa_engine.training.ladder import LADDERS, save, versions
from tests.support.data import data_folder

pytestmark = [pytest.mark.model]  # trains it, and half a minute is too long for one's own loop


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A slice of a simulated patient of each modality, renamed so that there are subjects and sources in every fold."""
    folder, files = tmp_path_factory.mktemp("caches"), []
    for kind in ("CT", "MR"):
        sites = (*LARGE[kind], "site-a", "site-b")
        found = list(versions(simulated_series(kind, 1, doses=(1.0,)), 1))
        copies = [type(v)(**{**vars(v), "subject": f"{kind}-{k}", "source": sites[k % 4], "series": f"{kind}-{k}"}) for k in range(12) for v in found]
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
        kinds = {step[0] for step in steps}
        assert (version.added > 0).tolist() == ["noise" in kinds, "blur" in kinds, bool(kinds & {"motion", "ghost", "undersampling", "spike"})], steps
        assert (version.physics >= clean).all() and np.allclose(version.own, first[0].own)


def test_draws_of_a_slice_differ() -> None:
    (one,) = simulated_series("MR", 1, doses=(1.0,))
    found = list(versions([one], 1, draws=2))
    assert {v.draw for v in found} == {0, 1} and not np.array_equal(found[1].views, found[1 + len(found) // 2].views)


def test_every_subject_is_left_out_by_one_fold_of_each_split(caches: list[Path]) -> None:
    for split, count in SPLITS.items():
        out = np.stack([leave_out(load_caches(caches), f"{split}-{k}").held_out for k in range(count)])
        assert (out.sum(0) == 1).all()
        whole = load_caches(caches)
        names = whole.subject if split == "subject" else whole.source
        for fold in out:
            for mr in (False, True):
                of = whole.is_mr.numpy() == mr
                assert set(names[fold & of]).isdisjoint(names[~fold & of]), split
    assert not load_caches(caches).held_out.any()
    assert fold_of("anybody", SIMULATED, "MR", "subject") is None, "simulated patients are no evidence"
    assert fold_of("a", "tcga_chest_set", "CT", "source") != fold_of("a", "ibsi_sts", "CT", "source")


def test_fitting_finds_the_physics(cache: Cache) -> None:
    said: list[str] = []
    network, _ = fit(cache, FitSettings(steps=3, classical_steps=150, ladders_per_step=4, series_per_step=2), None, said.append)
    assert not network.training and any(line.startswith("network") for line in said)
    found = predict(network, cache, np.arange(len(cache)))
    error = np.abs(np.log(found.physics) - np.log(cache.physics.numpy())).mean(0)
    chance = np.abs(np.log(cache.physics.numpy()) - np.log(cache.physics.numpy()).mean(0)).mean(0)
    assert (error[[0, 2]] < 0.6 * chance[[0, 2]]).all() and error[1] < chance[1], (error, chance)


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


@pytest.fixture(scope="module")
def made(caches: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    done = mediqa("fit", *caches, "--out", folder, "--steps", 1, "--measure-steps", 15, "--profile", "trial", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calibration"] == json.loads((folder / "trial.json").read_text())["calibration"]
    return folder


def test_fit_makes_folds_and_a_calibrated_profile(made: Path) -> None:
    card = json.loads((made / "trial.json").read_text())
    assert card["measures"] == list(MEASURE_NAMES) and (made / "trial-run.csv").is_file() and (made / "trial-run.png").is_file()
    model = load_model("trial", made)
    for modality in ("CT", "MR"):
        row = card["calibration"][modality]
        assert row["subjects"] == 12 and row["interval_left_out"]["subjects"] == 12 and "source_left_out" in row
        image, training = model.calibration(modality).parts(50.0, 4.0)
        low, high = model.calibration(modality).interval(50.0, 4.0)
        assert image > 0 and training >= 0 and high - low == pytest.approx(min(100.0, 2 * (image + training)))
    with pytest.raises(KeyError):
        load_model("subject-0", made).calibration("CT")


def test_evaluate_tells_what_the_card_tells(made: Path, tmp_path: Path) -> None:
    done = mediqa("evaluate", made, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calibration"] == json.loads((made / "trial.json").read_text())["calibration"]
    done = mediqa("evaluate", tmp_path)
    assert done.returncode == 2 and "run mediqa train fit first" in done.stderr


def test_the_same_seed_gives_the_same_network(caches: list[Path], made: Path, tmp_path: Path) -> None:
    done = mediqa("fit", *caches, "--out", tmp_path, "--steps", 1, "--measure-steps", 15, "--fold", "subject-1", "--quiet")
    assert done.returncode == 0, done.stderr
    one, two = ((folder / "subject-1.npz") for folder in (made, tmp_path))
    with np.load(one) as a, np.load(two) as b:
        assert np.allclose(a["q"], b["q"], atol=1e-3)


def test_trees_answer_as_the_library_does() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    from qa_engine.training.boost import COPIES, SETTINGS, grow, shaken

    random = np.random.default_rng(0)
    rows = random.normal(size=(600, len(MEASURE_NAMES))).astype(np.float32)
    wanted = np.stack([2 * rows[:, 0] + rows[:, 1] ** 2, np.sin(rows[:, 2]), rows[:, 3]], 1)
    trees = grow(rows, wanted)
    seen = shaken(rows.astype(float), 0).astype(np.float32).astype(float)
    for k in range(3):
        known = lightgbm.LGBMRegressor(random_state=0, n_jobs=2, **SETTINGS).fit(seen, np.tile(wanted[:, k], COPIES))
        assert np.abs(trees(torch.from_numpy(rows)).numpy()[:, k] - known.predict(rows.astype(float))).max() < 1e-4


def test_what_is_measured_directly_is_never_shaken() -> None:
    from qa_engine.training.boost import COPIES, shaken

    rows = np.random.default_rng(0).normal(size=(50, len(MEASURE_NAMES)))
    found = shaken(rows, 3).reshape(COPIES, 50, -1)
    fixed = [MEASURE_NAMES.index(name) for name in ("is_mr", "noise_estimate", "width_estimate")]
    assert np.array_equal(found[0], rows) and np.array_equal(found[2][:, fixed], rows[:, fixed]) and np.ptp(found[:, 0, 0]) > 0
    assert np.array_equal(shaken(rows, 3), shaken(rows, 3))


@pytest.mark.parametrize(("words", "said"), [
    (("simulate", "out", "--data", "nowhere"), "no train/index.csv"), (("fit", "none.npz", "--out", "x"), "no such file"),
    (("evaluate", "nowhere"), "run mediqa train fit first"), (("region", "--data", "nowhere", "--out", "x"), "no train/index.csv")])
def test_wrong_use_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = mediqa(*words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
