"""Fits the network: first the measures alone (seconds), then views and measures together; seeded, with checkpoints.

Losses: smooth L1 on standardised logarithms of the physics, ranking of versions inside a slice (softplus, temperature 0.3; pairs with
identity count three times), and the series' Q through the slice weights, whose target weighs slices by the tissue that they show.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qa_engine.measures import MEASURE_NAMES
from qa_engine.network.mediqa import MedIQA
from qa_engine.network.views import channels
from qa_engine.prompts import SIZES
from qa_engine.targets import scale_of
from qa_engine.training.cache import Cache

PROMPT_DROPOUT = 0.25
TEMPERATURE = 0.3
_TISSUE = MEASURE_NAMES.index("tissue_share")


@dataclass(frozen=True)
class FitSettings:
    """minutes bounds the second stage; crops of a slice per step; seed of everything."""

    minutes: float = 12.0
    classical_epochs: int = 120
    series_per_step: int = 4
    slices_per_series: int = 2
    rungs: int = 4
    crops: int = 2
    rate: float = 1.5e-3
    seed: int = 0


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation (2,3) of the log physics; row 0 CT, row 1 MR."""

    mean: Tensor
    std: Tensor

    def of(self, physics: Tensor, is_mr: Tensor) -> Tensor:
        """(N,3) physics -> standardised logarithms."""
        row = is_mr.long()
        return (physics.log() - self.mean[row]) / self.std[row]

    def physics(self, axes: Tensor, is_mr: Tensor) -> Tensor:
        """The way back; amounts beyond the ladder by three standard deviations are cut."""
        row = is_mr.long()
        return (axes.clamp(-4, 4) * self.std[row] + self.mean[row]).exp()


def standard_of(cache: Cache, rows: np.ndarray) -> Standard:
    """From the rows that are fitted."""
    logs, chosen = cache.physics.log(), torch.from_numpy(rows)
    pick = [logs[chosen & (cache.is_mr == flag)] for flag in (False, True)]
    return Standard(torch.stack([p.mean(0) for p in pick]), torch.stack([p.std(0).clamp(min=0.1) for p in pick]))


def quality(physics: Tensor, is_mr: Tensor, purposes: np.ndarray) -> Tensor:
    """Differentiable Q (N,) in 0..1, unclipped; the same curves as `targets.quality_of`."""
    scales = [scale_of("MR" if mr else "CT", str(p)) for mr, p in zip(is_mr.tolist(), purposes, strict=True)]
    s50 = torch.tensor([[s.noise.s50, s.width.s50, s.artefact.s50] for s in scales])
    p = torch.tensor([[s.noise.p, s.width.p, s.artefact.p] for s in scales])
    low, high = torch.tensor([s.low for s in scales]), torch.tensor([s.high for s in scales])
    product = (1.0 / (1.0 + (physics / s50) ** p)).prod(1)
    return (product - low) / (high - low)


def dropped(prompts: Tensor, generator: torch.Generator) -> Tensor:
    """Prompts with each word made unknown with probability PROMPT_DROPOUT."""
    return torch.where(torch.rand(prompts.shape, generator=generator) < PROMPT_DROPOUT, torch.zeros_like(prompts), prompts)


def ranking(q: Tensor, truth: Tensor, slices: np.ndarray, rung: np.ndarray) -> Tensor:
    """Mean softplus over pairs of versions of one slice whose truth differs by more than 3 points (q and truth in 0..1)."""
    same = torch.from_numpy(slices[:, None] == slices[None])
    apart = truth[:, None] - truth[None]
    pairs = same & (apart > 0.03)
    weight = 1.0 + 2.0 * torch.from_numpy((rung[:, None] == 0) | (rung[None] == 0)).float()
    loss = F.softplus(-(q[:, None] - q[None]) / TEMPERATURE * 3) * weight * pairs
    return loss.sum() / (weight * pairs).sum().clamp(min=1)


def fit(cache: Cache, settings: FitSettings, checkpoint: Path | None = None,
        progress: Callable[[str], None] = lambda line: None) -> tuple[MedIQA, Standard]:
    """The fitted network in evaluation mode, and how its axes are standardised."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    fitted = ~cache.held_out
    standard = standard_of(cache, fitted)
    network = MedIQA(SIZES)
    rows = torch.from_numpy(np.flatnonzero(fitted))
    network.measure_mean.copy_(cache.measures[rows].mean(0))
    network.measure_std.copy_(cache.measures[rows].std(0).clamp(min=1e-3))
    _fit_classical(network, cache, rows, standard, settings, generator, progress)
    _fit_all(network, cache, standard, settings, generator, checkpoint, progress)
    return network.eval(), standard


def _fit_classical(network: MedIQA, cache: Cache, rows: Tensor, standard: Standard, settings: FitSettings, generator: torch.Generator,
                   progress: Callable[[str], None]) -> None:
    parts = [*network.classical.parameters(), *network.from_measures.parameters(), *network.tables.parameters()]
    steps = settings.classical_epochs * (len(rows) // 256 + 1)
    optimiser = torch.optim.AdamW(parts, lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    target = standard.of(cache.physics, cache.is_mr)
    for step in range(steps):
        pick = rows[torch.randint(len(rows), (256,), generator=generator)]
        prompts = dropped(cache.prompts[pick], generator)
        prompt = torch.cat([table(prompts[:, k]) for k, table in enumerate(network.tables)], 1)
        measures = ((cache.measures[pick] - network.measure_mean) / network.measure_std).clamp(-6, 6)
        measures = measures + 0.05 * torch.randn(measures.shape, generator=generator)
        axes = network.from_measures(network.classical(torch.cat([measures, prompt], 1)))
        loss = F.smooth_l1_loss(axes, target[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            progress(f"measures {step}/{steps} loss {loss.item():.4f}")


def _groups(cache: Cache) -> dict[str, dict[str, dict[int, dict[int, int]]]]:
    """subject -> series -> place -> rung -> row, of rows that are fitted."""
    found: dict[str, dict[str, dict[int, dict[int, int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in np.flatnonzero(~cache.held_out):
        found[str(cache.subject[row])][str(cache.series[row])][int(cache.place[row])][int(cache.rung[row])] = int(row)
    return found


def _fit_all(network: MedIQA, cache: Cache, standard: Standard, settings: FitSettings, generator: torch.Generator,
             checkpoint: Path | None, progress: Callable[[str], None]) -> None:
    groups, names = _groups(cache), sorted(set(map(str, cache.subject[~cache.held_out])))
    random = np.random.default_rng(settings.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-2)
    began, step, average = time.monotonic(), 0, 0.0
    network.train()
    while (spent := (time.monotonic() - began) / (60 * settings.minutes)) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * max(0.02, 0.5 * (1 + np.cos(np.pi * spent))) * min(1.0, (step + 1) / 20)
        picked, series_of = [], []
        for number in range(settings.series_per_step):
            subject = groups[names[random.integers(len(names))]]
            series = subject[sorted(subject)[random.integers(len(subject))]]
            places = random.permutation(sorted(series))[: settings.slices_per_series]
            rungs = sorted({0, *random.permutation(sorted(series[places[0]]))[: settings.rungs]})
            for rung in rungs:
                for place in places:
                    picked.append(series[place][int(rung)])
                    series_of.append(number * 100 + int(rung))
        row = torch.tensor(picked)
        loss = _loss(network, cache, standard, row, np.array(series_of), settings, generator, random)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average = loss.item() if step == 0 else 0.95 * average + 0.05 * loss.item()
        if step % 20 == 0:
            progress(f"network step {step} {100 * spent:.0f} % loss {average:.4f}")
            if checkpoint is not None and step % 100 == 0:
                torch.save(network.state_dict(), checkpoint)
        step += 1


def _loss(network: MedIQA, cache: Cache, standard: Standard, row: Tensor, series_of: np.ndarray, settings: FitSettings,
          generator: torch.Generator, random: np.random.Generator) -> Tensor:
    crops = [*sorted(random.permutation(cache.views.shape[1] - 1)[: settings.crops].tolist()), cache.views.shape[1] - 1]
    is_mr = cache.is_mr[row]
    seen = channels(cache.views[row][:, crops].float(), is_mr)
    turn = int(random.integers(4))
    seen = seen.flip(-1) if turn % 2 else seen
    seen = seen.flip(-2) if turn // 2 else seen
    measures = cache.measures[row] + 0.03 * network.measure_std * torch.randn(cache.measures[row].shape, generator=generator)
    out = network(seen, measures, dropped(cache.prompts[row], generator))
    rows = row.numpy()
    purposes = cache.purpose[rows]
    direct = F.smooth_l1_loss(out.axes, standard.of(cache.physics[row], is_mr))
    q = quality(standard.physics(out.axes, is_mr), is_mr, purposes)
    truth = quality(cache.physics[row], is_mr, purposes)
    slices = np.array([f"{s}/{p}" for s, p in zip(cache.series[rows], cache.place[rows], strict=True)])
    ordered = ranking(q, truth, slices, cache.rung[rows])
    whole = torch.zeros(())
    for number in np.unique(series_of):
        inside = torch.from_numpy(series_of == number)
        tissue = cache.measures[row][inside, _TISSUE] + 1e-3
        weight = out.weight_logit[inside].softmax(0)
        whole = whole + ((weight * q[inside]).sum() - (tissue * truth[inside]).sum() / tissue.sum()).square()
        whole = whole + 0.1 * (weight * (weight.clamp(min=1e-6) / (tissue / tissue.sum())).log()).sum()
    return 2.0 * direct + 0.8 * ordered + 2.0 * whole / len(np.unique(series_of))
