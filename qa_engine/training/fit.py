"""Fits the network: first the measures alone (seconds), then views and measures together, then the trees; seeded, with checkpoints, on CPU or
GPU.

Losses: smooth L1 on standardised logarithms of the physics, squared error of Q, ranking of versions inside a slice (softplus of what lies
between them over TEMPERATURE; pairs with the slice as it is count more), and the series' Q through the slice weights, whose target weighs
slices by the tissue that they show; a side head names the kinds of damage. What is kept is the running mean of the weights.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from qa_engine.measures import MEASURE_NAMES
from qa_engine.measures.physics import DIRECT_NAMES
from qa_engine.network.mediqa import KINDS, MedIQA, bounded
from qa_engine.network.standard import Standard
from qa_engine.network.views import channels
from qa_engine.prompts import DIMENSIONS, SIZES
from qa_engine.targets import scale_of
from qa_engine.training.boost import with_trees
from qa_engine.training.cache import Cache
from qa_engine.training.ladder import LADDERS
from qa_engine.training.run_log import RunLog

PROMPT_DROPOUT = 0.25
RANKING, TEMPERATURE, IDENTITY = 0.8, 0.05, 5.0
"""Weight of the ranking loss, its temperature in shares of the scale, and what a pair with the slice as it is counts beside other pairs."""
MEMORY = 1000
"""Steps that the running mean of the weights remembers."""
_TISSUE = MEASURE_NAMES.index("tissue_share")
EXACT = [MEASURE_NAMES.index(name) for name in ("is_mr", *DIRECT_NAMES)]


@dataclass(frozen=True)
class FitSettings:
    """minutes bounds the second stage, or `steps` where given (the same seed then gives the same weights); crops of a slice per step; seed of
    everything; device: cpu or cuda:N. What ablations vary: head (dual or film), views (both, crops or whole), prompts, ranking, trees."""

    minutes: float = 12.0
    steps: int | None = None
    classical_steps: int = 800
    ladders_per_step: int = 16
    series_per_step: int = 4
    slices_per_series: int = 2
    rungs: int = 4
    crops: int = 2
    rate: float = 1.5e-3
    seed: int = 0
    device: str = "cpu"
    head: str = "dual"
    views: str = "both"
    prompts: bool = True
    ranking: bool = True
    trees: bool = True


@dataclass(frozen=True)
class Curves:
    """Of N rows: half-way amounts, steepness and texture (N,3), low and high of the product (N,); `targets.quality_of` for gradients."""

    s50: Tensor
    p: Tensor
    texture: Tensor
    low: Tensor
    high: Tensor

    def quality(self, physics: Tensor, rows: Tensor) -> Tensor:
        """Q (n,) in 0..1, unclipped, of (n,3) physics of `rows`."""
        # a root has no slope at 0, so the least amount beyond texture is a hundredth of the half-way amount
        beyond = torch.maximum(physics.square() - self.texture[rows].square(), (0.01 * self.s50[rows]).square()).sqrt()
        product = (1.0 / (1.0 + (beyond / self.s50[rows]) ** self.p[rows])).prod(1)
        return (product - self.low[rows]) / (self.high[rows] - self.low[rows])


def curves_of(cache: Cache, device: str) -> Curves:
    """The scale in force for each row of the cache."""
    scales = [scale_of("MR" if mr else "CT", str(p)) for mr, p in zip(cache.is_mr.tolist(), cache.purpose, strict=True)]

    def tensor(values: list[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return Curves(tensor([[s.noise.s50, s.width.s50, s.artefact.s50] for s in scales]),
                  tensor([[s.noise.p, s.width.p, s.artefact.p] for s in scales]),
                  tensor([[s.noise.texture, s.width.texture, s.artefact.texture] for s in scales]),
                  tensor([s.low for s in scales]), tensor([s.high for s in scales]))


def standard_of(cache: Cache, rows: np.ndarray) -> Standard:
    """From the rows that are fitted."""
    logs, chosen = cache.physics.log(), torch.from_numpy(rows)
    pick = [logs[chosen & (cache.is_mr == flag)] for flag in (False, True)]
    return Standard(torch.stack([p.mean(0) for p in pick]), torch.stack([p.std(0).clamp(min=0.1) for p in pick]))


def dropped(prompts: Tensor, generator: torch.Generator) -> Tensor:
    """Prompts with each word made unknown with probability PROMPT_DROPOUT; a slice may stand alone, so the dimension is drawn."""
    drawn = prompts.clone()
    drawn[:, 0] = torch.randint(1, len(DIMENSIONS) + 1, (len(prompts),), generator=generator, device=prompts.device)
    lost = torch.rand(prompts.shape, generator=generator, device=prompts.device) < PROMPT_DROPOUT
    return torch.where(lost, torch.zeros_like(drawn), drawn)


def ranking(q: Tensor, truth: Tensor, slices: Tensor, rung: Tensor) -> Tensor:
    """Mean softplus over pairs of versions of one slice whose truth differs by more than 1 point (q and truth in 0..1)."""
    apart = truth[:, None] - truth[None]
    pairs = (slices[:, None] == slices[None]) & (apart > 0.01)
    weight = (1.0 + (IDENTITY - 1.0) * ((rung[:, None] == 0) | (rung[None] == 0)).float()) * pairs
    return (F.softplus(-(q[:, None] - q[None]) / TEMPERATURE) * weight).sum() / weight.sum().clamp(min=1)


def fit(cache: Cache, settings: FitSettings, checkpoint: Path | None = None, progress: Callable[[str], None] = lambda line: None,
        pretrained: Mapping[str, Tensor] | None = None, log: RunLog | None = None) -> tuple[MedIQA, Standard]:
    """The fitted network in evaluation mode on the CPU, and how its axes are standardised; `pretrained`: the encoder of `training.pretrain`."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator(settings.device).manual_seed(settings.seed)
    fitted = ~cache.held_out
    standard = standard_of(cache, fitted)
    network = MedIQA(SIZES, head=settings.head)
    network.load_state_dict({**network.state_dict(), **(pretrained or {})})
    rows = torch.from_numpy(np.flatnonzero(fitted))
    network.measure_mean.copy_(cache.measures[rows].mean(0))
    network.measure_std.copy_(cache.measures[rows].std(0).clamp(min=1e-3))
    network.axis_mean.copy_(standard.mean)
    network.axis_std.copy_(standard.std)
    network.to(settings.device)
    step = Step(cache, curves_of(cache, settings.device), standard.to(settings.device), settings, generator)
    _fit_classical(network, step, progress, log)
    averaged = _fit_all(network, step, checkpoint, progress, log).cpu().eval()
    if not settings.trees:
        return averaged, standard
    progress("trees")
    wanted = standard.of(cache.physics[rows], cache.is_mr[rows])
    return with_trees(averaged, cache.measures[rows], wanted, cache.is_mr[rows], settings.seed), standard


def smoothed(average: float, loss: float) -> float:
    """The running mean that people look at; NaN before the first one."""
    return loss if math.isnan(average) else 0.9 * average + 0.1 * loss


def _fit_classical(network: MedIQA, step: Step, progress: Callable[[str], None], log: RunLog | None) -> None:
    """The measures' own way to the axes: whole ladders of slices, with the losses of the second stage."""
    parts = [*network.classical.parameters(), *network.from_measures.parameters(), *network.tables.parameters(), network.prompt_gate]
    steps = step.settings.classical_steps
    optimiser = torch.optim.AdamW(parts, lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    network.train()
    average = math.nan
    for number in range(steps):
        rows, slices, rung = step.ladders()
        prompts = dropped(step.prompts[rows], step.generator)
        axes = network.directly(step.measures[rows]) + bounded(network.from_classical(step.jittered(network, rows, 0.05), prompts)[1])
        loss = step.of_axes(axes, rows, slices, rung)[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if log is not None and number % 10 == 0:
            average = smoothed(average, loss.item())
            log.append(number, average, math.nan)
        if number % 200 == 0:
            progress(f"measures {number}/{steps} loss {loss.item():.4f}")


def _fit_all(network: MedIQA, step: Step, checkpoint: Path | None, progress: Callable[[str], None], log: RunLog | None) -> MedIQA:
    """Views and measures together, until the time is over; the running mean of the weights."""
    settings = step.settings
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-2)
    averaged = AveragedModel(network, avg_fn=lambda mean, now, n: mean + (now - mean) * max(1.0 / MEMORY, 9.0 / (10.0 + n)))
    began, number, average = time.monotonic(), 0, math.nan
    network.train()
    while (spent := number / settings.steps if settings.steps else (time.monotonic() - began) / (60 * settings.minutes)) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * max(0.02, 0.5 * (1 + np.cos(np.pi * spent))) * min(1.0, (number + 1) / 20)
        loss = step.loss(network)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(network)
        if number % 2 == 0:
            average = smoothed(average, loss.item())
            if log is not None:
                log.append(settings.classical_steps + number, math.nan, average)
            if number % (20 if settings.device == "cpu" else 500) == 0:
                progress(f"network step {number} {100 * spent:.0f} % loss {average:.4f}")
            if checkpoint is not None and number % 200 == 0:
                torch.save(averaged.module.state_dict(), checkpoint)
        number += 1
    return averaged.module


def chosen_views(which: str, native: list[int], whole: int) -> list[int]:
    """Numbers of the views shown: native crops and the whole slice, or one of the two; the last always takes the whole view's place."""
    return {"both": [*native, whole], "crops": native, "whole": [whole]}[which]


def kinds_of_rungs(cache: Cache) -> Tensor:
    """(N, len(KINDS)) 1 where the rung of a row added that kind; low dose is noise."""
    table = {}
    for mr, modality in enumerate(("CT", "MR")):
        for rung, steps in enumerate(LADDERS[modality]):
            added = {"noise" if step[0] == "dose" else step[0] for step in steps}
            table[(mr, rung)] = [float(kind in added) for kind in KINDS]
    return torch.tensor([table[(int(mr), int(rung))] for mr, rung in zip(cache.is_mr.tolist(), cache.rung, strict=True)])


RUN_COLUMNS = ("step", "measures alone", "views too")
"""Of the run's log: the loss of either stage, over the steps of both."""


class Step:
    """The cache on the device, and one draw of it: series of both modalities, a few slices of each, identity and a few rungs."""

    def __init__(self, cache: Cache, curves: Curves, standard: Standard, settings: FitSettings, generator: torch.Generator) -> None:
        self.cache, self.curves, self.standard, self.settings, self.generator = cache, curves, standard, settings, generator
        self.device = settings.device
        self.views, self.measures, self.physics = (t.to(self.device) for t in (cache.views, cache.measures, cache.physics))
        self.prompts, self.is_mr = cache.prompts.to(self.device), cache.is_mr.to(self.device)
        self.kinds = kinds_of_rungs(cache).to(self.device)
        self.random = np.random.default_rng(settings.seed)
        self.rows: list[dict[str, dict[tuple[str, int], dict[int, dict[int, int]]]]] = [{}, {}]
        """Per modality: subject -> (series, draw) -> place -> rung -> row, of rows that are fitted."""
        for row in np.flatnonzero(~cache.held_out):
            of = self.rows[int(cache.is_mr[row])].setdefault(str(cache.subject[row]), defaultdict(lambda: defaultdict(dict)))
            of[(str(cache.series[row]), int(cache.draw[row]))][int(cache.place[row])][int(cache.rung[row])] = int(row)
        self.names = [sorted(of) for of in self.rows]

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows of the cache, and for each its slice, its version of a series and its rung, numbered."""
        picked: list[tuple[int, int, int, int]] = []
        for number in range(self.settings.series_per_step):
            mr = number % 2
            subject = self.rows[mr][self.names[mr][self.random.integers(len(self.names[mr]))]]
            series = list(subject.values())[self.random.integers(len(subject))]
            places = self.random.permutation(sorted(series))[: self.settings.slices_per_series]
            rungs = sorted({0, *self.random.permutation(sorted(series[places[0]]))[: self.settings.rungs].tolist()})
            picked += [(series[place][rung], 100 * number + k, 100 * number + rung, rung) for rung in rungs for k, place in enumerate(places)]
        rows, slices, of_series, rung = torch.tensor(picked, device=self.device).unbind(1)
        return rows, slices, of_series, rung

    def ladders(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of whole ladders, `ladders_per_step` slices of each modality, and for each its slice and its rung, numbered."""
        picked: list[tuple[int, int, int]] = []
        for number in range(2 * self.settings.ladders_per_step):
            mr = number % 2
            subject = self.rows[mr][self.names[mr][self.random.integers(len(self.names[mr]))]]
            series = list(subject.values())[self.random.integers(len(subject))]
            place = list(series.values())[self.random.integers(len(series))]
            picked += [(row, number, rung) for rung, row in place.items()]
        rows, slices, rung = torch.tensor(picked, device=self.device).unbind(1)
        return rows, slices, rung

    def of_axes(self, axes: Tensor, rows: Tensor, slices: Tensor, rung: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of standardised axes (N,3) of `rows`, and their Q and true Q (N,) in 0..1."""
        is_mr = self.is_mr[rows]
        q, truth = self.curves.quality(self.standard.physics(axes, is_mr), rows), self.curves.quality(self.physics[rows], rows)
        loss = 2.0 * F.smooth_l1_loss(axes, self.standard.of(self.physics[rows], is_mr)) + 2.0 * (q - truth).square().mean()
        if self.settings.ranking:
            loss = loss + RANKING * ranking(q, truth, slices, rung)
        return loss, q, truth

    def jittered(self, network: MedIQA, rows: Tensor, amount: float) -> Tensor:
        """Measures of `rows`, all but the exact ones shaken by `amount` of their spread."""
        raw = self.measures[rows]
        noise = amount * network.measure_std * torch.randn(raw.shape, generator=self.generator, device=self.device)
        noise[:, EXACT] = 0.0
        return raw + noise

    def loss(self, network: MedIQA) -> Tensor:
        """Of one draw."""
        rows, slices, of_series, rung = self.draw()
        native = sorted(self.random.permutation(self.views.shape[1] - 1)[: self.settings.crops].tolist())
        crops = chosen_views(self.settings.views, native, self.views.shape[1] - 1)
        is_mr = self.is_mr[rows]
        seen = channels(self.views[rows][:, crops].float(), is_mr)
        turn = int(self.random.integers(4))
        seen = seen.flip(-1) if turn % 2 else seen
        seen = seen.flip(-2) if turn // 2 else seen
        prompts = dropped(self.prompts[rows], self.generator) if self.settings.prompts else torch.zeros_like(self.prompts[rows])
        out = network(seen, self.jittered(network, rows, 0.03), prompts)
        fitted, q, truth = self.of_axes(out.axes, rows, slices, rung)
        # softmax of the slice weights inside each version of a series
        together = (of_series[:, None] == of_series[None]).float()
        raised = (out.weight_logit - out.weight_logit.max().detach()).exp()
        weight = raised / (together @ raised)
        tissue = self.measures[rows, _TISSUE] + 1e-3
        wanted = tissue / (together @ tissue)
        share = 1.0 / together.sum(1)
        whole = (share * (together @ (weight * q) - together @ (wanted * truth)).square()).sum() / share.sum()
        apart = (weight * (weight.clamp(min=1e-6) / wanted).log()).sum() / share.sum()
        named = F.binary_cross_entropy_with_logits(out.kinds, self.kinds[rows])
        return fitted + whole + 0.2 * apart + 0.1 * named
