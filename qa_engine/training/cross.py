"""The way of training: folds, each with what it says of subjects that it never saw, then the network that is shipped, fitted to all of them and
calibrated by the folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from qa_engine.measures import MEASURE_NAMES
from qa_engine.model import save_model
from qa_engine.training.cache import Cache, leave_out
from qa_engine.training.calibrate import load_predictions, novelty, predict, report
from qa_engine.training.fit import RUN_COLUMNS, FitSettings, fit
from qa_engine.training.fold_names import SPLITS
from qa_engine.training.run_log import RunLog

Say = Callable[[str], None]
Encoder = Mapping[str, Tensor] | None
NEVER_CALIBRATED = {modality: {"interval": None, "subjects": 0} for modality in ("CT", "MR")}
"""A fold's network is for evaluation alone: it gives nobody a number."""


class NotEnough(ValueError):
    """Subjects or folds are missing; one line that says which."""


def _checked(cache: Cache, name: str) -> Cache:
    for mr, modality in ((False, "CT"), (True, "MR")):
        if not ((cache.is_mr.numpy() == mr) & ~cache.held_out).any():
            raise NotEnough(f"no {modality} subject is left to fit {name}: the caches must hold CT and MR of several subjects and sources")
    return cache


def fit_fold(cache: Cache, name: str, out: Path, settings: FitSettings, encoder: Encoder, say: Say) -> None:
    """Fits all but the subjects of fold `name` (subject-0 ...), writes weights and predictions of those subjects into `out`."""
    cache = _checked(leave_out(cache, name), name)
    network, _ = fit(cache, settings, None, lambda line: say(f"{name} {line}"), encoder)
    save_model(network, novelty(network, cache), {"version": "fold", "measures": list(MEASURE_NAMES), "calibration": NEVER_CALIBRATED}, out, name)
    predict(network, cache, np.flatnonzero(cache.held_out)).save(out / f"{name}.npz")


def evaluated(folder: Path) -> dict[str, Any]:
    """`calibrate.report` of the folds in a folder. NotEnough when the folds by subject are not all there."""
    found = {split: [folder / f"{split}-{k}.npz" for k in range(count)] for split, count in SPLITS.items()}
    missing = [path.name for path in found["subject"] if not path.is_file()]
    if missing:
        raise NotEnough(f"no {missing[0]} in {folder}: run mediqa train fit first")
    whole = all(path.is_file() for path in found["source"])
    return report(load_predictions(found["subject"]), load_predictions(found["source"]) if whole else None)


def fit_shipped(cache: Cache, out: Path, settings: FitSettings, profile: str, version: str, encoder: Encoder, say: Say) -> tuple[Path, dict[str, Any]]:
    """The network of all subjects, with the calibration of the folds in `out`: path of the weights and figures."""
    figures = evaluated(out)
    cache = _checked(leave_out(cache, None), profile)
    log = RunLog(out / f"{profile}-run.csv", RUN_COLUMNS)
    network, _ = fit(cache, settings, out / f"{profile}.checkpoint", say, encoder, log)
    log.draw(f"{profile}: loss")
    card = {"version": version, "measures": list(MEASURE_NAMES), "calibration": figures, "steps": settings.steps, "seed": settings.seed}
    return save_model(network, novelty(network, cache), card, out, profile), figures
