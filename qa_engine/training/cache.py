"""The caches of the ladder as tensors, with the subjects of one fold kept out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from qa_engine.prompts import Prompts, mr_type
from qa_engine.training.folds import folds_of
from qa_engine.training.parameters import PARAMETERS


@dataclass(frozen=True, eq=False)
class Cache:
    """All versions of both modalities. views stay float16 (N,V,96,96); physics and measures float32; prompts (N,4) indices; parameters of
    the scan (N,P), NaN where the header lacks them."""

    views: torch.Tensor
    measures: torch.Tensor
    physics: torch.Tensor
    prompts: torch.Tensor
    is_mr: torch.Tensor
    series: np.ndarray
    subject: np.ndarray
    source: np.ndarray
    purpose: np.ndarray
    place: np.ndarray
    draw: np.ndarray
    rung: np.ndarray
    held_out: np.ndarray
    parameters: torch.Tensor

    def __len__(self) -> int:
        return len(self.series)


def leave_out(cache: Cache, fold: str | None) -> Cache:
    """The same versions with the subjects of `fold` (subject-0, source-2 ...) kept out; None: all are fitted."""
    if fold is None:
        return replace(cache, held_out=np.zeros(len(cache), bool))
    split, _, number = fold.partition("-")
    return replace(cache, held_out=folds_of(cache.subject, cache.source, np.where(cache.is_mr.numpy(), "MR", "CT"), split) == int(number))


def load_caches(files: list[Path]) -> Cache:
    """Reads cache files of `ladder.save`, no subject kept out; ValueError when there is none."""
    if not files:
        raise ValueError("no cache: run mediqa train simulate first")
    parts = [dict(np.load(f, allow_pickle=False)) for f in files]
    for part in parts:  # older files know no parameters
        part.setdefault("parameters", np.full((len(part["series"]), len(PARAMETERS)), np.nan, np.float32))
    modality = np.concatenate([np.full(len(p["series"]), str(p["modality"])) for p in parts])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([p[name] for p in parts])

    prompts = [Prompts("3d", m.lower(), region or None, purpose or mr_type(contrast)).indices()
               for m, region, purpose, contrast in zip(modality, joined("region"), joined("purpose"), joined("contrast"), strict=True)]
    subject, source = joined("subject"), joined("source")
    return Cache(torch.from_numpy(joined("views")), torch.from_numpy(joined("measures")).float(),
                 torch.from_numpy(joined("physics")).float(), torch.tensor(prompts), torch.from_numpy(modality == "MR"),
                 joined("series"), subject, source, joined("purpose"), joined("place"), joined("draw"), joined("rung"),
                 np.zeros(len(subject), bool), torch.from_numpy(joined("parameters")))
