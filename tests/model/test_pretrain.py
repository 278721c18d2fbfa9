"""Stage one: physical parameters are learnt from pixels alone, masked where unknown; a run that was cut off goes on as if it had not been."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qa_engine.measures import MEASURE_NAMES
from qa_engine.training.cache import Cache
from qa_engine.training.dataset import simulated_series
from qa_engine.training.fit import FitSettings, fit
from qa_engine.training.folds import fold_of
from qa_engine.training.ladder import save, versions
from qa_engine.training.parameters import PARAMETERS
from qa_engine.training.pretrain import NoParameters, PretrainSettings, Targets, load_pretrained, pretrain
from qa_engine.training.run_log import RunLog, plot, read_log

pytestmark = [pytest.mark.model]

SUBJECTS = 20
MAS, TE, TI = (PARAMETERS.index(n) for n in ("log_mas", "log_te", "log_ti"))


@pytest.fixture(scope="module")
def cache() -> Cache:
    """CT whose noise follows the tube current, MR whose stripes follow the echo time; every third echo time is unknown."""
    random, n = np.random.default_rng(0), 2 * SUBJECTS
    views, parameters = np.zeros((n, 7, 96, 96), np.float16), np.full((n, len(PARAMETERS)), np.nan, np.float32)
    x = np.arange(96)
    for k in range(SUBJECTS):
        mas = random.uniform(3, 6)
        views[k] = 40 + 3000 * math.exp(-mas) * random.normal(size=(7, 96, 96))
        parameters[k, MAS] = mas
        te = random.uniform(2, 5)
        views[SUBJECTS + k] = 1000 + 300 * np.sin(2 * np.pi * x / (4 + 4 * (te - 2)))[None, None, :] + 20 * random.normal(size=(7, 96, 96))
        parameters[SUBJECTS + k, TE] = np.nan if k % 3 == 2 else te
    parameters[0, TI] = 7.0  # one subject alone teaches nothing
    is_mr = np.arange(n) >= SUBJECTS
    measures = np.zeros((n, len(MEASURE_NAMES)), np.float32)
    measures[:, MEASURE_NAMES.index("is_mr")] = is_mr
    subject = np.array([f"s{k}" for k in range(n)])
    zeros, blank = np.zeros(n, int), np.full(n, "")
    return Cache(torch.from_numpy(views), torch.from_numpy(measures), torch.ones(n, 3), torch.zeros(n, 4, dtype=torch.long), torch.from_numpy(is_mr),
                 subject, subject, blank, np.where(is_mr, "", "soft tissue"), zeros, zeros, zeros, np.arange(n) % 4 == 3, torch.from_numpy(parameters))


def test_targets_are_standardised_and_masked(cache: Cache) -> None:
    targets = Targets.of(cache)
    assert targets.learnt.tolist() == [name in ("log_mas", "log_te") for name in PARAMETERS]
    fitted = torch.from_numpy(~cache.held_out)
    for k in (MAS, TE):
        values = targets.values[targets.known[:, k] & fitted, k]
        assert float(values.mean()) == pytest.approx(0, abs=1e-5) and float(values.std()) == pytest.approx(1, abs=1e-4)
    assert not targets.known[:, TI].any() and int(targets.known[:, TE].sum()) == SUBJECTS - SUBJECTS // 3 and targets.values.isfinite().all()


def test_parameters_are_learnt_from_pixels(cache: Cache, tmp_path: Path) -> None:
    said: list[str] = []
    state, found = pretrain(cache, PretrainSettings(steps=70, batch=8, crops=1), tmp_path / "encoder.safetensors", said.append)
    assert found["steps"] == 70 and found["parameters"]["log_mas"] == {"subjects": 5, "srcc": pytest.approx(1.0, abs=0.31)}
    assert found["parameters"]["log_te"]["subjects"] == 4 and found["loss_kept_out"] < 0.3
    parts = {name.split(".")[0] for name in state}
    assert {"stem", "mix1", "mix2", "layers"} <= parts and parts.isdisjoint({"score", "classical", "fuse", "slice_weight", "from_measures"})
    names, rows = read_log(tmp_path / "encoder-run.csv")
    assert names == ["step", "loss", "kept out"] and rows[-1][0] == 70 and rows[-1][1] < rows[0][1]
    assert Image.open(tmp_path / "encoder-run.png").size == (900, 520) and not (tmp_path / "encoder.checkpoint").exists()
    assert any("log_mas, log_te" in line for line in said)


def test_a_run_goes_on_where_it_was_cut_off(cache: Cache, tmp_path: Path) -> None:
    settings = PretrainSettings(steps=20, batch=2, crops=1, seed=3)
    whole, _ = pretrain(cache, settings, tmp_path / "whole.safetensors")

    def cut(line: str) -> None:
        if line.startswith("step 12"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(cache, settings, tmp_path / "cut.safetensors", cut)
    assert (tmp_path / "cut.checkpoint").is_file() and not (tmp_path / "cut.safetensors").exists()
    said: list[str] = []
    again, _ = pretrain(cache, settings, tmp_path / "cut.safetensors", said.append)
    assert said[0] == "goes on at step 12"
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    steps = [row[0] for row in read_log(tmp_path / "cut-run.csv")[1]]
    assert steps == sorted(set(steps)) == [row[0] for row in read_log(tmp_path / "whole-run.csv")[1]]


def test_a_checkpoint_of_another_run_is_not_taken(cache: Cache, tmp_path: Path) -> None:
    def cut(line: str) -> None:
        if line.startswith("step"):
            raise KeyboardInterrupt

    for spoilt in (False, True):
        with pytest.raises(KeyboardInterrupt):
            pretrain(cache, PretrainSettings(steps=3, batch=2, crops=1, seed=1), tmp_path / "x.safetensors", cut)
        if spoilt:
            (tmp_path / "x.checkpoint").write_bytes(b"cut")
        said: list[str] = []
        pretrain(cache, PretrainSettings(steps=1, batch=2, crops=1, seed=1 + (not spoilt)), tmp_path / "x.safetensors", said.append)
        assert said[0].startswith("learns")


def test_fitting_starts_from_the_encoder(cache: Cache, tmp_path: Path) -> None:
    state, _ = pretrain(cache, PretrainSettings(steps=2, batch=2, crops=1), tmp_path / "e.safetensors")
    loaded = load_pretrained(tmp_path / "e.safetensors")
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    settings = FitSettings(minutes=1e-9, classical_steps=1, ladders_per_step=2, series_per_step=2)
    network, _ = fit(cache, settings, pretrained=loaded)
    plain, _ = fit(cache, settings)
    name = next(n for n in state if n.startswith("stem"))
    assert torch.equal(network.state_dict()[name], state[name]) and not torch.equal(plain.state_dict()[name], state[name])
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        load_pretrained(tmp_path / "bad.safetensors")


def test_as_a_command(tmp_path: Path) -> None:
    (one,) = simulated_series("MR", 1, doses=(1.0,))
    found = [v for v in versions([one], 1) if v.rung < 2]
    copies = []
    for k in range(9):
        parameters = np.full(len(PARAMETERS), np.nan, np.float32)
        parameters[TE] = k
        copies += [type(v)(**{**vars(v), "subject": f"MR-{k}", "source": "site", "series": f"MR-{k}", "parameters": parameters}) for v in found]
    save(copies, tmp_path / "mr.npz", "MR")
    words = ["pretrain", str(tmp_path / "mr.npz"), "--out", str(tmp_path / "out" / "e.safetensors"), "--steps", "2", "--json"]
    done = subprocess.run([sys.executable, "-m", "node", "train", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kept_out = sum(fold_of(f"MR-{k}", "site", "MR", "subject") == 0 for k in range(9))
    assert 0 < kept_out < 9
    found = json.loads(done.stdout)
    assert found["steps"] == 2 and found["parameters"]["log_te"]["subjects"] == kept_out and "step 2 100 %" in done.stderr
    assert load_pretrained(tmp_path / "out" / "e.safetensors")


def test_nothing_to_learn_is_said(cache: Cache, tmp_path: Path) -> None:
    blank = Cache(**{**vars(cache), "parameters": torch.full_like(cache.parameters, math.nan)})
    with pytest.raises(NoParameters, match="no physical parameter"):
        pretrain(blank, PretrainSettings(steps=1), tmp_path / "e.safetensors")


def test_the_log_is_a_table_and_a_picture(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run.csv", ("step", "loss", "kept out"))
    for k in range(1, 9):
        log.append(k, 10.0 / k ** 2, math.nan if k % 4 else 1.0)
    with pytest.raises(ValueError, match="2 values for 3 columns"):
        log.append(1, 2)
    assert len(list(csv.reader((tmp_path / "run.csv").open()))) == 9
    pixels = np.asarray(Image.open(log.draw("a run")))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5
    with (tmp_path / "run.csv").open("a") as file:
        file.write("9,0.1")  # cut short
    assert [row[0] for row in RunLog(tmp_path / "run.csv", log.columns, goes_on_from=6).rows] == [1, 2, 3, 4, 5, 6]
    assert RunLog(tmp_path / "run.csv", ("step", "other"), goes_on_from=6).rows == []
    assert plot(("step", "loss"), [], "empty").size == plot(("step", "loss"), [(1.0, 2.0)], "one point").size
