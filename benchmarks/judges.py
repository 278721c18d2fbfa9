"""Which network may answer for which row: none is asked about a subject that it was fitted on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.rows import INDEX, Rows
from qa_engine.model import Model, load_model
from qa_engine.training.cache import held_out_rows


@dataclass(frozen=True, eq=False)
class Judge:
    """models[0] is the shipped one. fitted: (modality, subject) that it saw; known: those of the training folder."""

    models: list[Model | None]
    known: frozenset[tuple[str, str]]
    fitted: frozenset[tuple[str, str]]
    notes: tuple[str, ...]

    @property
    def shipped(self) -> Model:
        """The network that the product uses."""
        assert self.models[0] is not None
        return self.models[0]

    def which(self, rows: Rows, modality: str, split: str) -> np.ndarray:
        """Number of the network (N,) that answers for each row, -1 where every one has seen the subject (or, for split source, its source)."""
        known = np.array([(modality, str(s)) in self.known for s in rows.subject])
        fitted = np.array([(modality, str(s)) in self.fitted for s in rows.subject])
        return np.where(fitted, -1, np.where(known & (split == "source"), -1, 0))

    def straight(self, rows: Rows, modality: str) -> bool:
        """Whether the shipped network answers for all rows, none of whose subjects is in the training folder."""
        return not any((modality, str(s)) in self.known for s in np.unique(rows.subject))

    def half_width(self, modality: str) -> float | None:
        """Of the shipped interval."""
        try:
            return self.shipped.calibration(modality).half_width
        except KeyError:
            return None


def _subjects(train: Path, modality: str) -> list[tuple[str, str]]:
    """(subject, source) of the shippable patients in a folder's index."""
    if not (train / INDEX[modality]).is_file():
        return []
    with (train / INDEX[modality]).open(encoding="utf-8") as file:
        return [(r["subject"], r["source_key"]) for r in csv.DictReader(file)
                if r["modality"] == modality and r.get("role", "patient") == "patient" and r.get("ship", "yes") == "yes"]


def our_judge(train: Path, default: Path, folds: Path | None) -> Judge:
    """The shipped network, and what is known of its training: subjects of the training folder count as known wherever they turn up."""
    known, fitted = set(), set()
    for modality in INDEX:
        rows = _subjects(default, modality)
        if rows:
            subject, source = (np.array(column) for column in zip(*rows, strict=True))
            out = held_out_rows(subject, source, np.full(len(rows), modality))
            known |= {(modality, str(s)) for s in subject}
            fitted |= {(modality, str(s)) for s in subject[~out]}
    named = {(m, s) for m in INDEX for s, _ in _subjects(train, m)}
    if named & known:
        note = f"ours: the shipped network on the {len(named & (known - fitted))} subjects that were kept out of its training; it was never fitted " \
               "without a whole source; baselines: folds over all subjects, told on the same rows"
    else:
        note = "none of these subjects was in the training: ours is the shipped network as it is, baselines are fitted by folds within this folder"
    return Judge([load_model()], frozenset(known), frozenset(fitted), (note,))
