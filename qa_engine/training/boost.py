"""Boosted trees on the measures: they correct what is measured directly, as the network does, and stand in the same weights file.

The library that grows them (lightgbm, extra `bench`) is needed for training alone; `network.trees` evaluates them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qa_engine.measures import MEASURE_NAMES
from qa_engine.measures.physics import DIRECT_NAMES
from qa_engine.network.mediqa import AXES, MedIQA
from qa_engine.network.trees import Trees, trees_of

SETTINGS: dict[str, Any] = {
    "n_estimators": 600, "learning_rate": 0.03, "num_leaves": 31, "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.5,
    "min_child_samples": 60, "reg_lambda": 1.0, "verbose": -1, "deterministic": True, "force_row_wise": True}
COPIES, SHAKEN = 3, 0.1
"""Every row is seen COPIES times, once as it is and then with its measures shaken by SHAKEN of their spread: so the steps of the trees lie closer."""
SHARES = (0.6, 0.5, 0.5)
"""Of the trees in noise, width and artefact: they are nearer to the amounts, the network orders versions of one slice better."""
_FIXED = [MEASURE_NAMES.index(name) for name in ("is_mr", *DIRECT_NAMES)]


class NoBooster(RuntimeError):
    """lightgbm is not installed."""


def shaken(measures: np.ndarray, seed: int) -> np.ndarray:
    """(N,M) -> (COPIES * N,M): as they are, then shaken; modality and what is measured directly stay."""
    spread = SHAKEN * measures.std(0)
    spread[_FIXED] = 0.0
    random = np.random.default_rng(seed)
    return np.concatenate([measures, *(measures + spread * random.standard_normal(measures.shape) for _ in range(COPIES - 1))])


def grow(measures: np.ndarray, corrections: np.ndarray, seed: int = 0, threads: int = 2) -> Trees:
    """Trees for `corrections` (N,AXES) of one modality from raw measures (N,M): noise and width less what is measured directly, and the curve of
    the artefact."""
    try:
        import lightgbm
    except ImportError:
        raise NoBooster("lightgbm is missing: pip install 'mediqa-node[bench]'") from None
    # thresholds are kept in single precision, so the measures are handed over as they will be compared
    rows = shaken(measures.astype(float), seed).astype(np.float32).astype(float)
    models = []
    for axis in range(AXES):
        booster = lightgbm.LGBMRegressor(random_state=seed, n_jobs=threads, **SETTINGS)
        booster.fit(rows, np.tile(corrections[:, axis], COPIES))
        models.append(booster.booster_.dump_model())
    return trees_of(models)


def with_trees(network: MedIQA, measures: torch.Tensor, axes: torch.Tensor, is_mr: torch.Tensor, seed: int = 0) -> MedIQA:
    """The network with trees fitted to rows that it may see: raw measures (N,M), true standardised axes (N,AXES)."""
    row = is_mr.long()
    with torch.inference_mode():
        wanted = axes - network.directly(measures)
        wanted[:, 2] = network.points_of_artefact(axes[:, 2], row)
    grown = [grow(measures[row == k].numpy(), wanted[row == k].numpy(), seed) for k in (0, 1)]
    return network.with_trees(grown, torch.tensor([SHARES, SHARES]))
