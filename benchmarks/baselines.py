"""The methods that stand beside ours in the table, fitted on the same versions and folds; target: Q of the known physics.

A method is a function of rows, the numbers of those it may be fitted on and those it has to score; a higher score is better. Gradient boosting
on handcrafted measures is the one to beat (references: Mittal 2012, 2013; Esteban 2017; Ke 2017).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.iqms import IQM_NAMES, LOOKS_AT_AIR
from benchmarks.natural_scene import niqe_distance
from benchmarks.rows import Rows
from qa_engine.measures import MEASURE_NAMES

Method = Callable[[Rows, np.ndarray, np.ndarray], np.ndarray]

FINGERPRINTS = ("air_std", "air_level", "air_structure", "air_beside_a", "air_beside_b", "limit_rows", "limit_columns",
                "calm_acquired", "line_std_low_a", "line_std_low_b", "line_std_high_a", "line_std_high_b",
                "line_max_a", "line_max_b", "line_step_a", "line_step_b")
"""Measures of the product that could read a simulator instead of the damage: air, where k-space ends, single lines of k-space."""
TREES, LEAVES, RATE = 400, 15, 0.05
SEED = 0


def boosted(features: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Gradient-boosted trees (lightgbm) fitted on the rows `train`; their answer for `test`."""
    import lightgbm

    settings = {"objective": "l2", "num_leaves": LEAVES, "learning_rate": RATE, "min_data_in_leaf": 20, "feature_fraction": 0.6, "bagging_fraction": 0.8,
                "bagging_freq": 1, "lambda_l2": 1.0, "seed": SEED, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    model = lightgbm.train(settings, lightgbm.Dataset(features[train], target[train]), TREES)
    return np.asarray(model.predict(features[test]))


def all_measures(rows: Rows) -> np.ndarray:
    """Measures of the product and IQMs (N,F)."""
    return np.concatenate([rows.measures, rows.iqms], 1)


def measures_boosting(rows: Rows, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """All handcrafted measures, boosted."""
    return boosted(all_measures(rows), rows.q, train, test)


def measures_boosting_no_fingerprints(rows: Rows, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The same without those that could read the simulator."""
    keep = [name not in FINGERPRINTS for name in MEASURE_NAMES] + [name not in LOOKS_AT_AIR for name in IQM_NAMES]
    return boosted(all_measures(rows)[:, keep], rows.q, train, test)


def brisque_svr(rows: Rows, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """BRISQUE: support vector regression with radial basis functions on its 36 features, as published, refitted."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    model = make_pipeline(StandardScaler(), SVR(C=30.0, epsilon=2.0, gamma="scale"))
    model.fit(rows.brisque[train], rows.q[train])
    return np.asarray(model.predict(rows.brisque[test]))


def niqe(rows: Rows, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """NIQE: distance from the Gaussian of the patches of undegraded slices of the training folds; no label is seen."""
    import torch

    sound = rows.niqe[train[rows.rung[train] == 0]].reshape(-1, rows.niqe.shape[2])
    sound = torch.from_numpy(sound[np.isfinite(sound[:, 0])]).double()
    scale = sound.std(0).clamp(min=1e-9)
    mean, covariance = (sound / scale).mean(0), torch.cov((sound / scale).T)
    found = []
    for patches in rows.niqe[test]:
        own = torch.from_numpy(patches[np.isfinite(patches[:, 0])]).double() / scale
        found.append(-niqe_distance(own, mean, covariance))
    return np.array(found)


def _line(values: np.ndarray, rows: Rows, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """One measure, with the slope (and so the sign) of a straight line fitted on the training folds."""
    slope, intercept = np.polyfit(values[train].astype(float), rows.q[train], 1)
    return slope * values[test] + intercept


def _one_iqm(name: str) -> Method:
    def method(rows: Rows, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return _line(rows.iqms[:, IQM_NAMES.index(name)], rows, train, test)

    return method


def header_only(rows: Rows, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Acquisition parameters, pixel and matrix, boosted. Of a degraded version it sees the scan, never the damage."""
    return boosted(rows.header, rows.q, train, test)


METHODS: dict[str, Method] = {
    "measures + boosting": measures_boosting,
    "measures + boosting, no fingerprints": measures_boosting_no_fingerprints,
    "BRISQUE + SVR": brisque_svr,
    "NIQE": niqe,
    "global noise level": _one_iqm("noise_level"),
    "Tenengrad": _one_iqm("tenengrad"),
    "average edge strength": _one_iqm("edge_strength"),
    "header only": header_only,
}
