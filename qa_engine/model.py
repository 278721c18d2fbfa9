"""Loads the weights of a profile and scores slices with them: the network's answer in physical units, points and weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qa_engine.assessment import Degradation, Finding, ModelIdentity
from qa_engine.calibration import Calibration
from qa_engine.degradation_grades import artefact_word, grades
from qa_engine.measures import MEASURE_NAMES, Measured
from qa_engine.network.mediqa import MedIQA, Output, network_of
from qa_engine.network.views import channels
from qa_engine.prompts import Prompts
from qa_engine.published import PROFILE as PUBLISHED
from qa_engine.published import PublishedModel
from qa_engine.ratings import rated, take_tuned, tuned_network
from qa_engine.slice_inputs import slice_inputs
from qa_engine.targets import FLOOR, axes_of, quality_of
from qa_engine.volume import Volume

WEIGHTS = Path(__file__).with_name("weights")
DEFAULT_PROFILE = "mediqa-compact"
BATCH = 7
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


class ModelMissing(Exception):
    """There are no usable weights for a profile; one line that says what to do."""


@dataclass(frozen=True, eq=False)
class NetworkResult:
    """Of N slices: q, weight (sum 1), axes noise, sharpness, artefact (N,3) in points, physics (N,3) noise (HU, or share of tissue
    signal), width (mm), artefact (as noise), strangeness (N,) as a multiple of the 99 % quantile of known subjects; measured: one entry per slice; score of
    the series."""

    score: float
    q: np.ndarray
    weight: np.ndarray
    axes: np.ndarray
    physics: np.ndarray
    strangeness: np.ndarray
    measured: tuple[Measured, ...]
    degradations: tuple[Degradation, ...]
    device: str
    disagreement: float
    """Points by which the scores of the two models inside, network and trees, differ."""
    artefact: str
    """Word of `network.mediqa.KINDS` for the artefact, should there be one."""
    findings: tuple[Finding, ...] = ()


def resolve_device(wanted: str) -> tuple[str, tuple[Finding, ...]]:
    """auto, cpu or cuda:N -> the device to use, with a finding when the wanted one is not there."""
    if wanted == "cpu":
        return "cpu", ()
    if torch.cuda.is_available():
        number = int(wanted.partition(":")[2] or 0) if wanted.startswith("cuda") else 0
        if number < torch.cuda.device_count():
            return f"cuda:{number}", ()
    if wanted == "auto":
        return "cpu", ()
    return "cpu", (Finding("device-absent", f"The device {wanted} is not available; the CPU was used."),)


class Model:
    """Weights, card and what follows from them; made by `load_model`."""

    def __init__(self, profile: str, weights: Path, card: dict[str, Any]) -> None:
        self.card = card
        state = load_file(weights)
        self._known = {k: state.pop(k) for k in ("known.mean", "known.precision", "known.limit")}
        tuned = take_tuned(state)
        self._network = network_of(state).eval()
        self._tuned = {modality: tuned_network(self._network, layers) for modality, layers in tuned.items()}
        self.identity = ModelIdentity(profile, str(card["version"]), hashlib.sha256(weights.read_bytes()).hexdigest())

    @property
    def network(self) -> MedIQA:
        """The network in evaluation mode."""
        return self._network

    def calibration(self, modality: str) -> Calibration:
        """Conformal calibration of the modality; KeyError when the model has none, for want of subjects or of the modality."""
        row = self.card["calibration"][modality]
        if row["interval"] is None:
            raise KeyError(modality)
        return Calibration(**row["interval"], subjects=int(row["subjects"]))

    def score(self, volume: Volume, indices: Sequence[int], prompts: Prompts, purpose: str, device: str = "cpu") -> NetworkResult:
        """Score the slices `indices` of a volume; slices do not influence each other but through the softmax of the weights."""
        used, findings = resolve_device(device)
        views, measured = zip(*slice_inputs(volume, indices), strict=True)
        is_mr = torch.full((len(views),), volume.modality == "MR")
        rows = torch.tensor([prompts.indices()] * len(views))
        measures = torch.cat([m.vector for m in measured])
        out, used, more = self._run(torch.stack(views), measures, rows, is_mr, used)
        physics = self._physics(out.axes, volume.modality)
        q = quality_of(physics, volume.modality, purpose)
        weight = out.weight_logit.double().softmax(0).numpy()
        one, two = (float(weight @ quality_of(self._physics(out.members[:, k], volume.modality), volume.modality, purpose)) for k in (0, 1))
        artefact = artefact_word((out.kinds.sigmoid().double().numpy() * weight[:, None]).sum(0), volume.modality)
        found = NetworkResult(float((weight * q).sum()), q, weight, axes_of(physics, volume.modality, purpose), physics,
                              self._strangeness(measures, is_mr).numpy(), tuple(measured),
                              grades(physics, weight, volume.modality, purpose, artefact), used, abs(one - two), artefact, (*findings, *more))
        return rated(found, self.card, volume.modality)

    def _physics(self, axes: torch.Tensor, modality: str) -> np.ndarray:
        """(N,3) standardised axes -> (N,3) physics."""
        physics = self._network.standard.physics(axes, torch.full((len(axes),), modality == "MR"))
        return np.maximum(physics.double().numpy(), FLOOR[modality])

    def _run(self, views: torch.Tensor, measures: torch.Tensor, prompts: torch.Tensor, is_mr: torch.Tensor,
             device: str) -> tuple[Output, str, tuple[Finding, ...]]:
        """The network's output on the CPU; out of memory halves the batch, then goes to the CPU with a finding."""
        batch = BATCH
        while True:
            try:
                network = self._tuned.get("MR" if is_mr[0] else "CT", self._network).to(device)
                parts = []
                with torch.inference_mode():
                    for at in range(0, len(views), batch):
                        part = slice(at, at + batch)
                        out = network(channels(views[part], is_mr[part]).to(device), measures[part].to(device), prompts[part].to(device))
                        parts.append(tuple(values.float().cpu() for values in (out.axes, out.weight_logit, out.features, out.kinds, out.members)))
                fallback = () if device != "cpu" or batch == BATCH else (
                    Finding("out-of-device-memory", "The device had too little memory; the CPU was used."),)
                return Output(*(torch.cat(values) for values in zip(*parts, strict=True))), device, fallback
            except torch.OutOfMemoryError:
                if device == "cpu":
                    raise
                if batch > 1:
                    batch //= 2
                else:
                    device = "cpu"

    def _strangeness(self, measures: torch.Tensor, is_mr: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance of the standardised measures from those of known subjects, over its limit."""
        scaled = (measures - self._network.measure_mean.cpu()) / self._network.measure_std.cpu()
        row = is_mr.long()
        apart = scaled - self._known["known.mean"][row]
        distance = torch.einsum("ni,nij,nj->n", apart, self._known["known.precision"][row], apart).clamp(min=0).sqrt()
        return distance / self._known["known.limit"][row]


def save_model(network: MedIQA, extra: dict[str, torch.Tensor], card: dict[str, Any], folder: Path, profile: str = DEFAULT_PROFILE) -> Path:
    """Write weights (safetensors, no pickle) and card."""
    if tuple(card["measures"]) != MEASURE_NAMES:
        raise ValueError("the card names other measures than the program computes")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile}.safetensors"
    save_file({**{k: v.contiguous().cpu() for k, v in network.state_dict().items()}, **extra}, path)
    (folder / f"{profile}.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def profiles(folder: Path = WEIGHTS) -> list[str]:
    """Names of the profiles that have weights and card."""
    return sorted(p.stem for p in folder.glob("*.safetensors") if p.with_suffix(".json").is_file())


def load_model(profile: str = DEFAULT_PROFILE, folder: Path = WEIGHTS) -> Model | PublishedModel:
    """The model of a profile; its card may name the published architecture. ModelMissing when weights or card are absent or do not fit this program."""
    if not _NAME.fullmatch(profile):
        raise ModelMissing(f"{profile!r} is not the name of a profile")
    weights, card = folder / f"{profile}.safetensors", folder / f"{profile}.json"
    if not weights.is_file() or not card.is_file():
        raise ModelMissing(f"no weights for {profile} in {folder}; install the package anew or use mediqa model import")
    try:
        facts = json.loads(card.read_text(encoding="utf-8"))
        if facts.get("architecture") == PUBLISHED:
            return PublishedModel(profile, weights, facts)
        if tuple(facts["measures"]) != MEASURE_NAMES:
            raise ValueError("other measures")
        return Model(profile, weights, facts)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelMissing(f"the weights of {profile} do not fit this version ({type(error).__name__}); use mediqa model import") from None
