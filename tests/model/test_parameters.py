"""Physical parameters as targets: read from index rows, masked where unknown or untrue, kept in the cache."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qa_engine.training.cache import load_caches
from qa_engine.training.dataset import load_training_series, simulated_series
from qa_engine.training.ladder import save, versions
from qa_engine.training.parameters import OF_THE_SCAN_ALONE, PARAMETERS, kernel_sharpness, parameters_of
from tests.support.data import data_folder


@pytest.mark.parametrize(("kernel", "sharpness"), [("B20f", -1), ("B30s", 0), ("Br38f/3", 0), ("B60f", 1), ("SOFT", -1), ("BONEPLUS", 1),
                                                   ("Ram-Lak", 1), ("UB", 0), ("YA", 1), ("H70h", 1)])
def test_kernels(kernel: str, sharpness: float) -> None:
    assert kernel_sharpness(kernel) == sharpness


@pytest.mark.parametrize("kernel", ["", "59 .10.AB50", "31", "something"])
def test_unknown_kernels_are_unknown(kernel: str) -> None:
    assert math.isnan(kernel_sharpness(kernel))


def test_a_row_gives_what_it_has() -> None:
    found = parameters_of({"mas": "100", "kv": "", "te_ms": "0.0", "tr_ms": "many", "flip_deg": "90", "kernel": "odd"})
    assert found == {"log_mas": pytest.approx(math.log(100)), "flip": 90.0}


def test_damage_makes_dose_and_kernel_untrue(tmp_path: Path) -> None:
    one = replace(simulated_series("MR", 1, doses=(1.0,))[0], parameters={name: 1.0 for name in PARAMETERS[:6]})
    save(list(versions([one], 1)), tmp_path / "mr.npz", "MR")
    cache = load_caches([tmp_path / "mr.npz"])
    known = ~np.isnan(cache.parameters.numpy())
    for k, name in enumerate(PARAMETERS):
        assert known[:, k].tolist() == [k < 6 and (rung == 0 or name not in OF_THE_SCAN_ALONE) for rung in cache.rung.tolist()], name


@pytest.mark.data
def test_real_rows_have_parameters() -> None:
    ct, mr = (load_training_series(data_folder(), m)[:12] for m in ("CT", "MR"))
    assert sum("log_mas" in s.parameters for s in ct) >= 6
    assert all(math.log(70) < s.parameters["log_kv"] < math.log(160) for s in ct if "log_kv" in s.parameters)
    assert any("log_field" in s.parameters for s in mr) and not any("log_mas" in s.parameters for s in mr)
