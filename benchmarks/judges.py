"""Which network may answer for which row: none is asked about a subject that it was fitted on.

Every subject of the training has a network of a fold that never saw it (`fold_weights`, made by `mediqa train fit`); subjects that no training
ever saw are the shipped network's.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.folds import deal
from benchmarks.rows import INDEX, Rows
from qa_engine.calibration import Calibration
from qa_engine.model import Model, load_model
from qa_engine.training.fold_names import SPLITS
from qa_engine.training.folds import fold_of, load_fold_models

FOLDS = Path(__file__).with_name("fold_weights")
FoldOf = Callable[[str, str, str, str], int | None]
"""(subject, source, modality, split) -> number of the fold whose network never saw it, None for a subject that no training saw."""


@dataclass(frozen=True, eq=False)
class Judge:
    """models: of each split, [0] the shipped one, then those of the folds. known: (modality, subject) of the training folder."""

    models: dict[str, list[Model]]
    fold_of: FoldOf | None
    known: frozenset[tuple[str, str]]
    notes: tuple[str, ...]

    @property
    def shipped(self) -> Model:
        """The network that the product uses."""
        return self.models["subject"][0]

    def _folds(self, rows: Rows, modality: str, split: str) -> np.ndarray:
        """Fold (N,) of the training, -1 for subjects that it never saw."""
        if self.fold_of is None:
            return np.full(len(rows), -1)
        pairs = set(zip(rows.subject, rows.source, strict=True))
        fold = {pair: self.fold_of(str(pair[0]), str(pair[1]), modality, split) for pair in pairs}
        return np.array([-1 if (k := fold[pair]) is None else k for pair in zip(rows.subject, rows.source, strict=True)])

    def which(self, rows: Rows, modality: str, split: str) -> np.ndarray:
        """Number of the network (N,) that answers for each row, -1 where every one has seen the subject (or, for split source, its source)."""
        known = np.array([(modality, str(s)) in self.known for s in rows.subject])
        return np.where(known, self._folds(rows, modality, split) + 1, 0)

    def model_for(self, subject: str, source: str, modality: str) -> Model | None:
        """The network that never saw a subject."""
        if (modality, subject) not in self.known or self.fold_of is None:
            return self.shipped if (modality, subject) not in self.known else None
        fold = self.fold_of(subject, source, modality, "subject")
        return None if fold is None else self.models["subject"][fold + 1]

    def method_folds(self, rows: Rows, modality: str, split: str) -> np.ndarray:
        """Folds (N,) that the other methods are fitted by: those of our training, others dealt out here."""
        own, dealt = self._folds(rows, modality, split), deal(rows.subject, rows.source, split)
        return np.where(own < 0, dealt, own)

    def straight(self, rows: Rows, modality: str) -> bool:
        """Whether the shipped network answers for all rows, none of whose subjects is in the training folder."""
        return not any((modality, str(s)) in self.known for s in np.unique(rows.subject))

    def calibration(self, modality: str) -> Calibration | None:
        """Of the shipped interval."""
        try:
            return self.shipped.calibration(modality)
        except KeyError:
            return None


def _subjects(train: Path, modality: str) -> list[tuple[str, str]]:
    """(subject, source) of the shippable patients in a folder's index."""
    if not (train / INDEX[modality]).is_file():
        return []
    with (train / INDEX[modality]).open(encoding="utf-8") as file:
        return [(r["subject"], r["source_key"]) for r in csv.DictReader(file)
                if r["modality"] == modality and r.get("role", "patient") == "patient" and r.get("ship", "yes") == "yes"]


def our_judge(train: Path, default: Path, folds: Path) -> Judge:
    """The shipped network, those of the folds, and what is known of the training."""
    known = {(modality, s) for modality in INDEX for s, _ in _subjects(default, modality)}
    named = {(m, s) for m in INDEX for s, _ in _subjects(train, m)}
    shipped = load_model()
    assert isinstance(shipped, Model)
    if not named & known:
        note = "none of these subjects was in the training: ours is the shipped network as it is, the others are fitted by folds within this folder"
        return Judge({split: [shipped] for split in SPLITS}, None, frozenset(known), (note,))
    models = {split: [shipped, *of_split] for split, of_split in load_fold_models(folds).items()}
    note = "ours: for each subject the network of the fold that was fitted without it; the others: the same folds"
    return Judge(models, fold_of, frozenset(known), (note,))
