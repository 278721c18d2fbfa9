"""Which rows a method may be fitted on: folds by subject, and whole sources left out (the two tables that every claim needs).

Where the training of the shipped weights has folds of its own (`qa_engine.training.folds`), they are taken, so that every method is fitted on
the same subjects; subjects that it never saw are dealt out here.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np

from qa_engine.training.fold_names import SPLITS


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def deal(subject: np.ndarray, source: np.ndarray, split: str) -> np.ndarray:
    """Fold (N,) of each row. subject: subjects of each source are dealt out evenly, in the order of a hash; source: whole sources, the largest
    first, each to the fold with the fewest subjects so far. With too few of them there are fewer folds; one source alone makes none (-1)."""
    of_source = {str(s): str(w) for s, w in zip(subject, source, strict=True)}
    fold_of: dict[str, int] = {}
    if split == "subject":
        ordered = sorted(of_source, key=lambda s: (of_source[s], _hash(s)))
        count = min(SPLITS["subject"], len(ordered))
        fold_of = {s: k % count for k, s in enumerate(ordered)}
        return np.array([fold_of[str(s)] for s in subject]) if count > 1 else np.full(len(subject), -1)
    sizes = Counter(of_source.values())
    count = min(SPLITS["source"], len(sizes))
    if count < 2:
        return np.full(len(subject), -1)
    filled = [0] * count
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        k = int(np.argmin(filled))
        fold_of[name] = k
        filled[k] += size
    return np.array([fold_of[str(s)] for s in source])
