"""Hundreds of ratings move the last layers of the network, a copy for one modality; everything before them stays as it is.

What the last layers see of a slice is computed once. The loss is the squared error of the series' rating and the order of series, and a
pull that keeps noise, width and artefact near what the network said before: they stay physics.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qa_engine.network.mediqa import MedIQA
from qa_engine.network.standard import Standard
from qa_engine.ratings import tuned_network
from qa_engine.targets import FLOOR, axes_of, quality_of
from qa_engine.training.fit import Curves, curves_of
from qa_engine.training.rating_map import Candidate, Rated, choose, fit_map, folds

EPOCHS = 200
RATE = 3e-4
PULL = 0.3
"""Weight of staying near the physics that were predicted before."""
SPREAD = 20.0
"""Points of rating that count as 1 in the loss."""
STRAIGHT = Candidate(None, 0)


@dataclass(frozen=True, eq=False)
class Seen:
    """A rated series and what the last layers see of its n slices: features (n,F), raw measures (n,M)."""

    rated: Rated
    features: Tensor
    measures: Tensor
    modality: str
    purpose: str
    part: np.ndarray
    """(n,) by which the Assessor multiplies a slice's own weight: 1 unless some of the slices are outliers."""


@dataclass(frozen=True, eq=False)
class Slices:
    """All slices of several series in one row; `of` (n,) numbers the series."""

    features: Tensor
    measures: Tensor
    of: Tensor
    is_mr: Tensor
    purpose: np.ndarray
    part: Tensor
    rating: Tensor
    share: Tensor
    """(S,) by which each patient counts once."""

    @staticmethod
    def joined(series: Sequence[Seen]) -> Slices:
        """The slices of `series`, in order."""
        counts = torch.tensor([len(s.features) for s in series])
        patients = [s.rated.patient for s in series]
        share = torch.tensor([1.0 / patients.count(p) for p in patients])
        return Slices(torch.cat([s.features for s in series]), torch.cat([s.measures for s in series]),
                      torch.repeat_interleave(torch.arange(len(series)), counts),
                      torch.repeat_interleave(torch.tensor([s.modality == "MR" for s in series]), counts),
                      np.repeat([s.purpose for s in series], counts.numpy()),
                      torch.from_numpy(np.concatenate([s.part for s in series])).float(), torch.tensor([s.rated.rating for s in series]).float(),
                      share / share.sum())


def last_layers(network: MedIQA, one: Seen) -> list[str]:
    """Names of the parameters behind the features: those that `answer` uses."""
    copy = deepcopy(network).requires_grad_(True)
    out = copy.answer(one.features, one.measures, copy.grown(one.measures))
    (out.axes.sum() + out.weight_logit.sum()).backward()
    return [name for name, parameter in copy.named_parameters() if parameter.grad is not None]


def _ratings(network: MedIQA, slices: Slices, grown: Tensor | None, curves: Curves, standard: Standard,
             line: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Predicted rating of each series (S,), and the axes of all slices; `grown`: what the trees say of them."""
    out = network.answer(slices.features, slices.measures, grown)
    q = 100.0 * curves.quality(standard.physics(out.axes, slices.is_mr), torch.arange(len(slices.of)))
    raised = slices.part * (out.weight_logit - out.weight_logit.max().detach()).exp()
    count = len(slices.rating)
    total = torch.zeros(count).index_add(0, slices.of, raised)
    mean = torch.zeros(count).index_add(0, slices.of, raised * q) / total
    return line[0] + (line[1] - line[0]) * mean / 100.0, out.axes


def tune(network: MedIQA, series: Sequence[Seen], seed: int = 0) -> dict[str, Tensor]:
    """The last layers fitted to the ratings of `series`, by parameter name."""
    torch.manual_seed(seed)
    copy = deepcopy(network).cpu().eval()
    names = last_layers(copy, series[0])
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(name in names)
    slices = Slices.joined(series)
    curves, standard = curves_of(slices, "cpu"), copy.standard
    values = fit_map(STRAIGHT, [s.rated for s in series]).values
    line = (float(values[0]), float(values[-1]))
    with torch.no_grad():
        grown = copy.grown(slices.measures)  # once: the trees are not tuned
        _, before = _ratings(copy, slices, grown, curves, standard, line)
    optimiser = torch.optim.AdamW([p for p in copy.parameters() if p.requires_grad], lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    apart = slices.rating[:, None] - slices.rating[None]
    for _ in range(EPOCHS):
        found, axes = _ratings(copy, slices, grown, curves, standard, line)
        error = (((found - slices.rating) / SPREAD).square() * slices.share).sum()
        order = F.softplus(-(found[:, None] - found[None]) / SPREAD)[apart > SPREAD / 4].mean() if (apart > SPREAD / 4).any() else 0.0
        loss = error + 0.5 * order + PULL * F.smooth_l1_loss(axes, before)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    state = copy.state_dict()
    return {name: state[name].detach().clone() for name in names}


def rescored(network: MedIQA, series: Sequence[Seen]) -> list[Rated]:
    """The series as another network answers them."""
    standard, found = network.standard, []
    for one in series:
        with torch.inference_mode():
            out = network.answer(one.features, one.measures, network.grown(one.measures))
            physics = standard.physics(out.axes, torch.full((len(one.features),), one.modality == "MR")).double().numpy()
        physics = np.maximum(physics, FLOOR[one.modality])
        weight = one.part * out.weight_logit.double().softmax(0).numpy()
        found.append(replace(one.rated, q=quality_of(physics, one.modality, one.purpose), axes=axes_of(physics, one.modality, one.purpose),
                             weight=weight / weight.sum()))
    return found


def tuned_out_of_fold(network: MedIQA, series: Sequence[Seen], among: Sequence[Candidate], count: int = 5) -> np.ndarray:
    """(n,) ratings by layers and maps fitted without the patient; the map of Q is the better one of `among` on the fitted patients."""
    fold, predicted = folds([s.rated for s in series], count), np.zeros(len(series))
    for k in range(count):
        rest, left = [s for s, f in zip(series, fold, strict=True) if f != k], [s for s, f in zip(series, fold, strict=True) if f == k]
        other = tuned_network(network, tune(network, rest))
        again = rescored(other, rest)
        predicted[fold == k] = fit_map(choose(again, among), again).predict(rescored(other, left))
    return predicted
