"""Ablations: differences from the base, what a variant is shown, words of wrong use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.ablations import VARIANTS, figures, run, shown
from benchmarks.rows import mild_rungs
from qa_engine.training.cache import Cache, load_caches
from qa_engine.training.calibrate import NAMES, Predictions
from qa_engine.training.fit import FitSettings
from qa_engine.training.folds import LARGE
from qa_engine.training.ladder import LADDERS, save, versions

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "ablations.py"


def predictions(shift: np.ndarray) -> Predictions:
    """Eight CT subjects, a whole ladder each, Q of truth plus `shift` (per rung)."""
    rungs = len(LADDERS["CT"])
    truth = np.tile(np.linspace(90, 20, rungs), 8)
    n = len(truth)
    names = np.repeat([f"s{k}" for k in range(8)], rungs)
    values = {"series": names, "subject": names, "source": names, "place": np.zeros(n, int), "draw": np.zeros(n, int), "rung": np.tile(np.arange(rungs), 8),
              "is_mr": np.zeros(n, bool), "tissue": np.ones(n), "physics": np.ones((n, 3)), "true_physics": np.ones((n, 3)), "q": truth + np.tile(shift, 8),
              "truth": truth, "logit": np.zeros(n), "members": np.zeros((n, 2))}
    return Predictions(**{name: values[name] for name in NAMES})


def test_a_variant_is_told_from_the_base_on_the_same_rows() -> None:
    base, worse = predictions(np.zeros(14)), np.zeros(14)
    worse[sorted(mild_rungs("CT"))[0]] = 80.0
    found, same = figures(predictions(worse), base, "CT"), figures(base, base, "CT")
    assert same["srcc"] == 1.0 and same["mild"] == 1.0 and same["srcc_less_base"] == [0.0, 0.0]
    assert found["subjects"] == 8 and found["mild"] == pytest.approx(2 / 3, abs=1e-3) and found["mild_less_base"][1] < 0 and found["srcc_less_base"][1] < 0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    from qa_engine.training.dataset import simulated_series

    folder, files = tmp_path_factory.mktemp("caches"), []
    for kind in ("CT", "MR"):
        found = list(versions(simulated_series(kind, 1, doses=(1.0,)), 1))
        copies = [type(v)(**{**vars(v), "subject": f"{kind}-{k}", "source": LARGE[kind][k % 2], "series": f"{kind}-{k}"}) for k in range(9) for v in found]
        files.append(folder / f"{kind}.npz")
        save(copies, files[-1], kind)
    return load_caches(files)


def test_views_that_are_shown(cache: Cache) -> None:
    last = cache.views.shape[1] - 1
    assert torch.equal(shown(cache, "whole").views[:, 0], cache.views[:, last]) and shown(cache, "whole").views.shape[1] == 1
    assert torch.equal(shown(cache, "crops").views, cache.views[:, :last]) and torch.equal(shown(cache, "both").views, cache.views)


@pytest.mark.slow
def test_all_variants_run(cache: Cache) -> None:
    cache.parameters[:] = torch.arange(len(cache))[:, None].float()
    found = run(cache, ["subject-0"], FitSettings(steps=1, classical_steps=2, trees=False))
    assert list(found["variants"]) == [v.name for v in VARIANTS]
    assert all(np.isfinite(row[m]["srcc"]) for row in found["variants"].values() for m in ("CT", "MR"))


@pytest.mark.parametrize(("words", "said"), [(("none.npz",), "no such file: none.npz"), ((str(COMMAND), "--folds", "subject-9"), "no fold subject-9")])
def test_wrong_use_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run([sys.executable, COMMAND, *words], capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
