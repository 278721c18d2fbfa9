"""Folds in which what is scored was never fitted: by subject, and with whole sources left out. A rule of names alone, so that anybody gets
the same folds; models of the folds lie beside the benchmark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from qa_engine.model import Model, load_model
from qa_engine.training.dataset import SIMULATED
from qa_engine.training.fold_names import SPLITS

LARGE = {"CT": ("tcga_chest_set", "ibsi_sts"), "MR": ("ljms", "on2748")}
"""Sources with so many subjects that each is left out alone (folds 0 and 1; MR shares them with smaller ones)."""
SALT = 122
"""Of two hundred the one that deals the subjects at hand out most evenly."""


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def fold_of(subject: str, source: str, modality: str, split: str) -> int | None:
    """Fold in which the subject is kept out; None for simulated patients, which are always fitted and never counted."""
    if source == SIMULATED:
        return None
    if split == "subject":
        return _hash(f"{SALT}/{source}/{subject}") % SPLITS[split]
    if source in LARGE[modality]:
        return LARGE[modality].index(source)
    return 2 if modality == "CT" else _hash(source) % SPLITS[split]


def folds_of(subjects: Iterable[str], sources: Iterable[str], modalities: Iterable[str], split: str) -> np.ndarray:
    """(N,) fold of each row, -1 for what is always fitted."""
    found = [fold_of(str(a), str(b), str(m), split) for a, b, m in zip(subjects, sources, modalities, strict=True)]
    return np.array([-1 if f is None else f for f in found])


def load_fold_models(folder: Path) -> dict[str, list[Model]]:
    """Split -> the networks of its folds, in order; ModelMissing when one is not there."""
    found = {split: [load_model(f"{split}-{k}", folder) for k in range(count)] for split, count in SPLITS.items()}
    return {split: [m for m in models if isinstance(m, Model)] for split, models in found.items()}
