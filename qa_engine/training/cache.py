"""The caches of the ladder as tensors, split by subject: two thirds to fit, one third kept out for calibration."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qa_engine.prompts import Prompts, mr_type
from qa_engine.training.dataset import SIMULATED
from qa_engine.training.parameters import PARAMETERS

HELD_OUT = 0.34


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


def load_caches(files: list[Path]) -> Cache:
    """Reads cache files of `ladder.save`; ValueError when there is none."""
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
                 held_out_rows(subject, source, modality), torch.from_numpy(joined("parameters")))


def held_out_rows(subject: np.ndarray, source: np.ndarray, modality: np.ndarray) -> np.ndarray:
    """Boolean rows of subjects that are never fitted: a third of each source's subjects, by a hash of the subject's name.

    Simulated patients are always fitted: they are no evidence. Sources with one subject are dealt out by the same hash, so that
    whole sources are kept out as well.
    """
    of_source: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one, where, kind in zip(subject, source, modality, strict=True):
        if where == SIMULATED:
            continue
        of_source[(str(kind), str(where))].add(str(one))
    out: set[str] = set()
    alone: dict[str, list[str]] = defaultdict(list)
    for (kind, _), names in of_source.items():
        ordered = sorted(names, key=_hash)
        if len(ordered) >= 3:
            out |= set(ordered[: round(len(ordered) * HELD_OUT)])
        else:
            alone[kind] += ordered
    for names in alone.values():
        ordered = sorted(set(names), key=_hash)
        out |= set(ordered[: round(len(ordered) * HELD_OUT)])
    return np.array([str(s) in out for s in subject])


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
