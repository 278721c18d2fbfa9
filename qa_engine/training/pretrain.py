"""Stage one of MedIQA (arXiv 2507.19004): the encoder learns to tell the physical parameters of the scan from its pixels.

A linear side head reads pooled tokens; the loss is smooth L1 on standardised parameters, masked where the header lacks them. All prompts are
unknown and the classical measures are not shown, so header words and estimates of noise are no short cut. What is kept is the encoder.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from qa_engine.network.mediqa import MedIQA, pooled_tokens
from qa_engine.network.views import channels
from qa_engine.prompts import SIZES
from qa_engine.training.cache import Cache
from qa_engine.training.calibrate import srcc
from qa_engine.training.parameters import PARAMETERS
from qa_engine.training.run_log import RunLog

COLUMNS = ("step", "loss", "kept out")
LEAST_KNOWN = 3
"""Subjects with a value that a parameter needs to be learnt, and to be judged on subjects kept out."""
SAVE_SECONDS = 30.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class PretrainSettings:
    """Bounded by `steps` where given, else by `minutes`; slices per step; native crops shown of each; device: cpu or cuda:N."""

    minutes: float = 5.0
    steps: int | None = None
    batch: int = 16
    crops: int = 2
    rate: float = 1e-3
    seed: int = 0
    device: str = "cpu"


class NoParameters(ValueError):
    """The caches hold no physical parameters to learn."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Standardised parameters (N,P) with 0 where unknown, and what is known (N,P); `learnt` (P,) have enough subjects."""

    values: Tensor
    known: Tensor
    learnt: Tensor

    @staticmethod
    def of(cache: Cache) -> Targets:
        """Standardised on the subjects that are fitted."""
        raw = cache.parameters
        known = raw.isfinite()
        fitted = torch.from_numpy(~cache.held_out)
        mean, std, learnt = torch.zeros(raw.shape[1]), torch.ones(raw.shape[1]), torch.zeros(raw.shape[1], dtype=torch.bool)
        for k in range(raw.shape[1]):
            rows = known[:, k] & fitted
            values = raw[rows, k]
            if len(set(cache.subject[rows.numpy()])) >= LEAST_KNOWN and float(values.std()) > 1e-6:
                mean[k], std[k], learnt[k] = values.mean(), values.std(), True
        return Targets(torch.where(known, (raw - mean) / std, 0.0), known & learnt, learnt)


class SideHead(nn.Module):
    """Pooled tokens (N,2C) -> standardised parameters (N,P)."""

    def __init__(self, network: MedIQA) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * network.place.shape[-1], len(PARAMETERS))

    def forward(self, network: MedIQA, views: Tensor, is_mr: Tensor) -> Tensor:
        """views (N,V,96,96) in measuring units; every prompt is the unknown word."""
        prompt = network.prompt(torch.zeros(len(views), len(SIZES), dtype=torch.long, device=views.device))
        return self.linear(pooled_tokens(network.encode(channels(views, is_mr), prompt)))


class Run:
    """One run: network, side head, optimiser and draws, which a checkpoint keeps together."""

    def __init__(self, cache: Cache, targets: Targets, settings: PretrainSettings) -> None:
        torch.manual_seed(settings.seed)
        self.cache, self.targets, self.settings = cache, targets, settings
        self.network = MedIQA(SIZES).to(settings.device)
        self.head = SideHead(self.network).to(settings.device)
        self.optimiser = torch.optim.AdamW([*self.network.parameters(), *self.head.parameters()], lr=settings.rate, weight_decay=1e-2)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.step, self.spent = 0, 0.0
        rows = np.flatnonzero(~cache.held_out & targets.known.any(1).numpy())
        # modalities take turns, subjects count the same
        of = [rows[cache.is_mr.numpy()[rows] == mr] for mr in (False, True)]
        self.rows = [[torch.from_numpy(r[cache.subject[r] == s]) for s in np.unique(cache.subject[r])] for r in of]

    def share(self) -> float:
        """Of the whole run that is done."""
        return self.step / self.settings.steps if self.settings.steps else self.spent / (60.0 * self.settings.minutes)

    def _draw(self) -> Tensor:
        filled = [subjects for subjects in self.rows if subjects]
        found = []
        for k in range(self.settings.batch):
            subjects = filled[k % len(filled)]
            rows = subjects[int(torch.randint(len(subjects), (1,), generator=self.generator))]
            found.append(rows[int(torch.randint(len(rows), (1,), generator=self.generator))])
        return torch.stack(found)

    def _error(self, rows: Tensor, views: Tensor) -> Tensor:
        device = self.settings.device
        found = self.head(self.network, views.float().to(device), self.cache.is_mr[rows].to(device))
        known = self.targets.known[rows].to(device)
        error = F.smooth_l1_loss(found, self.targets.values[rows].to(device), reduction="none") * known
        return error.sum() / known.sum().clamp(min=1)

    def advance(self) -> float:
        """One step; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate * max(0.02, 0.5 * (1 + math.cos(math.pi * min(1.0, self.share())))) * min(1.0, (self.step + 1) / 20)
        rows, last = self._draw(), self.cache.views.shape[1] - 1
        crops = [*torch.randperm(last, generator=self.generator)[: self.settings.crops].sort().values.tolist(), last]
        views = self.cache.views[rows][:, crops]
        turn = int(torch.randint(4, (1,), generator=self.generator))
        views = views.flip([d for d, on in ((-1, turn % 2), (-2, turn // 2)) if on])
        loss = self._error(rows, views)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*self.network.parameters(), *self.head.parameters()], 1.0)
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(n,P) standardised parameters of rows of the cache, from as many crops as a step shows."""
        device, found = self.settings.device, []
        shown = [*range(min(self.settings.crops, self.cache.views.shape[1] - 1)), self.cache.views.shape[1] - 1]
        with torch.inference_mode():
            for at in range(0, len(rows), 16):
                pick = torch.from_numpy(rows[at:at + 16])
                found.append(self.head(self.network, self.cache.views[pick][:, shown].float().to(device), self.cache.is_mr[pick].to(device)).cpu())
        return torch.cat(found).numpy() if found else np.zeros((0, len(PARAMETERS)))

    def kept_out(self) -> tuple[float, dict[str, dict[str, float | int | None]]]:
        """Loss on subjects kept out (NaN without any), and per parameter how many of them know it and the rank correlation."""
        rows = np.flatnonzero(self.cache.held_out & self.targets.known.any(1).numpy())
        if not len(rows):
            return math.nan, {}
        found, truth, known = self.predict(rows), self.targets.values[rows], self.targets.known[rows].numpy()
        error = F.smooth_l1_loss(torch.from_numpy(found), truth, reduction="none").numpy()
        each: dict[str, dict[str, float | int | None]] = {}
        for k, name in enumerate(PARAMETERS):
            pick = known[:, k]
            subjects = len(set(self.cache.subject[rows[pick]]))
            if subjects:
                a, b = found[pick, k], truth.numpy()[pick, k]
                enough = subjects >= LEAST_KNOWN and a.std() > 0 and b.std() > 0
                each[name] = {"subjects": subjects, "srcc": round(srcc(a, b), 3) if enough else None}
        return float((error * known).sum() / max(1, known.sum())), each

    def save(self, path: Path, digest: str) -> None:
        """Everything that goes on, in one file that is there whole or not at all."""
        part = path.with_name(path.name + ".part")
        torch.save({"digest": digest, "step": self.step, "spent": self.spent, "network": self.network.state_dict(), "head": self.head.state_dict(),
                    "optimiser": self.optimiser.state_dict(), "generator": self.generator.get_state()}, part)
        part.rename(path)

    def load(self, path: Path, digest: str) -> bool:
        """Goes on from a checkpoint of the same settings and caches; False when it is of another run or unreadable."""
        try:
            kept = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # a cut or foreign file is no checkpoint, whatever the parser says of it
            return False
        if not isinstance(kept, dict) or kept.get("digest") != digest:
            return False
        self.network.load_state_dict(kept["network"])
        self.head.load_state_dict(kept["head"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.generator.set_state(kept["generator"])
        self.step, self.spent = int(kept["step"]), float(kept["spent"])
        return True


def _digest(cache: Cache, settings: PretrainSettings) -> str:
    kept = {k: v for k, v in asdict(settings).items() if k not in ("device", "minutes", "steps")}
    content = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for array in (cache.subject, cache.rung, cache.parameters.numpy(), cache.measures.numpy()):
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def encoder_names(network: MedIQA) -> list[str]:
    """Names of the parameters of the encoder: those that `encode` uses."""
    network.zero_grad()
    views = torch.zeros(1, 2, 3, 96, 96, device=network.place.device)
    network.encode(views, network.prompt(torch.zeros(1, len(SIZES), dtype=torch.long, device=views.device))).sum().backward()
    names = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    network.zero_grad()
    return names


def pretrain(cache: Cache, settings: PretrainSettings, out: Path, say: Say = lambda line: None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The encoder's state, also written to `out` (.safetensors), and the figures on subjects kept out. A run that was cut off goes on."""
    targets = Targets.of(cache)
    if not targets.learnt.any():
        raise NoParameters("no physical parameter is known of three subjects; make the caches anew with mediqa train simulate")
    run, checkpoint, digest = Run(cache, targets, settings), out.with_suffix(".checkpoint"), _digest(cache, settings)
    goes_on = checkpoint.is_file() and run.load(checkpoint, digest)
    say(f"goes on at step {run.step}" if goes_on else f"learns {', '.join(n for n, on in zip(PARAMETERS, targets.learnt.tolist(), strict=True) if on)}")
    log = RunLog(out.with_name(f"{out.stem}-run.csv"), COLUMNS, run.step if goes_on else None)
    began, saved, before, average, told = time.monotonic(), time.monotonic(), run.spent, math.nan, math.floor(10 * run.share())
    try:
        while run.share() < 1.0:
            loss = run.advance()
            run.spent = before + time.monotonic() - began
            average = loss if math.isnan(average) else 0.9 * average + 0.1 * loss
            tenth = math.floor(10 * run.share())
            if run.step % 20 == 0 or tenth > told:
                kept_out = run.kept_out()[0] if tenth > told else math.nan
                log.append(run.step, average, kept_out)
                told = tenth
                say(f"step {run.step} {100 * min(1.0, run.share()):.0f} % loss {average:.4f}" + ("" if math.isnan(kept_out) else f", kept out {kept_out:.4f}"))
            if time.monotonic() - saved > SAVE_SECONDS:
                run.save(checkpoint, digest)
                saved = time.monotonic()
    except BaseException:  # also Ctrl-C: the run can go on
        run.save(checkpoint, digest)
        raise
    loss, each = run.kept_out()
    log.draw("pre-training on physical parameters")
    state = {name: value.detach().cpu().contiguous() for name, value in run.network.state_dict().items() if name in encoder_names(run.network)}
    save_file(state, out)
    checkpoint.unlink(missing_ok=True)
    return state, {"steps": run.step, "loss_kept_out": None if math.isnan(loss) else round(loss, 4), "parameters": each}


def load_pretrained(path: Path) -> dict[str, Tensor]:
    """The encoder's state that `pretrain` wrote; ValueError for any other file."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        raise ValueError(f"{path} cannot be read") from None
    wanted = MedIQA(SIZES).state_dict()
    if not state or any(name not in wanted or wanted[name].shape != value.shape for name, value in state.items()):
        raise ValueError(f"{path} holds no encoder of this network")
    return state
