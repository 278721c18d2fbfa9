"""Our network as the benchmark asks it: below the gate, on rows, so that what the Assessor would refuse can be put in order as well.

Rows of subjects that the training saw are answered by a network that was fitted without them (`qa_engine.training.folds`), or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.baselines import FINGERPRINTS
from benchmarks.rows import Rows
from qa_engine.measures import MEASURE_NAMES, measure
from qa_engine.model import Model
from qa_engine.network.views import channels, slice_views
from qa_engine.prompts import Prompts
from qa_engine.targets import FLOOR, quality_of

BATCH = 32


@dataclass(frozen=True, eq=False)
class Answer:
    """Of N slices: physics (N,3), q (N,), logit of the slice weight (N,), q of the two models inside, network and trees (N,2)."""

    physics: np.ndarray
    q: np.ndarray
    logit: np.ndarray
    members: np.ndarray


def _answer(model: Model, views: torch.Tensor, measures: torch.Tensor, prompts: torch.Tensor, modality: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Physics (N,3), logit (N,), physics of the two models (N,2,3)."""
    is_mr = torch.full((len(views),), modality == "MR")
    standard = model.network.standard
    physics, logit, members = [], [], []
    with torch.inference_mode():
        for at in range(0, len(views), BATCH):
            part = slice(at, at + BATCH)
            out = model.network(channels(views[part].float(), is_mr[part]), measures[part], prompts[part])
            physics.append(standard.physics(out.axes.float(), is_mr[part]).double().numpy())
            members.append(torch.stack([standard.physics(out.members[:, k].float(), is_mr[part]) for k in (0, 1)], 1).double().numpy())
            logit.append(out.weight_logit.float().numpy())
    return np.maximum(np.concatenate(physics), FLOOR[modality]), np.concatenate(logit), np.maximum(np.concatenate(members), FLOOR[modality])


def purposed(physics: np.ndarray, purpose: np.ndarray, modality: str) -> np.ndarray:
    """Q (N,) of physics (N,3), each row by the curves of its purpose."""
    q = np.full(len(physics), np.nan)
    for one in np.unique(purpose):
        q[purpose == one] = quality_of(physics[purpose == one], modality, str(one))
    return q


def answer_rows(models: list[Model], which: np.ndarray, rows: Rows, modality: str, *, known_prompts: bool = True,
                fingerprints: bool = True) -> Answer:
    """Each row by models[which]; nan where which is below 0. Without `known_prompts` all prompts are unknown; without
    `fingerprints` the measures that could read the simulator stand at their mean over the training."""
    physics, logit, members = np.full((len(rows), 3), np.nan), np.full(len(rows), np.nan), np.full((len(rows), 2, 3), np.nan)
    for k, model in enumerate(models):
        pick = np.flatnonzero(which == k)
        if not len(pick):
            continue
        measures = torch.from_numpy(rows.measures[pick]).float()
        if not fingerprints:
            for column in (MEASURE_NAMES.index(name) for name in FINGERPRINTS):
                measures[:, column] = model.network.measure_mean[column]
        prompts = torch.from_numpy(rows.prompts[pick]) if known_prompts else torch.zeros((len(pick), 4), dtype=torch.long)
        physics[pick], logit[pick], members[pick] = _answer(model, torch.from_numpy(rows.views[pick]), measures, prompts, modality)
    return Answer(physics, purposed(physics, rows.purpose, modality), logit,
                  np.stack([purposed(members[:, k], rows.purpose, modality) for k in (0, 1)], 1))


def answer_slices(model: Model, images: list[np.ndarray], spacing_mm: tuple[float, float], modality: str, purpose: str, prompts: Prompts) -> Answer:
    """Slices (H,W) in HU or stored signal, outside any table of rows."""
    spacing = torch.tensor([spacing_mm], dtype=torch.float32)
    tensors = [torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in images]
    measures = torch.cat([measure(one[None], spacing, modality).vector for one in tensors])
    views = torch.stack([slice_views(one, modality) for one in tensors])
    physics, logit, members = _answer(model, views, measures, torch.tensor([prompts.indices()] * len(images)), modality)
    return Answer(physics, quality_of(physics, modality, purpose), logit, np.stack([quality_of(members[:, k], modality, purpose) for k in (0, 1)], 1))
