"""Ratings of a site's own readers become a profile (docs/training.md): a map and an interval from a few dozen rated patients, last layers from
hundreds. What the ratings cannot support is refused in one line."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module

from qa_engine.assess import judge
from qa_engine.assessment import Assessment
from qa_engine.decode import Decoder
from qa_engine.model import Model
from qa_engine.network.mediqa import Output
from qa_engine.outcome import End
from qa_engine.policy import Policy
from qa_engine.ratings import PREFIX, tuned_network
from qa_engine.series import read_series
from qa_engine.training.calibrate import MODALITIES, srcc
from qa_engine.training.rating_labels import FoundSeries, Label, RatingsRefused, Scale, agreement, find_series
from qa_engine.training.rating_map import Candidate, Rated, RatingMap, candidates, choose, fit_map, half_width, out_of_fold
from qa_engine.training.rating_tune import Seen, rescored, tune, tuned_out_of_fold

LEAST_INTERVAL = 9
"""Patients below which no interval of 90 % exists (references: Vovk 2005)."""
LEAST_MAP = 20
LEAST_TUNE = 200
NO_LIMIT = 1000.0
Say = Callable[[str], None]


@dataclass(eq=False)
class Collected:
    """Rated series of each modality, with their UIDs; what was left out and why."""

    seen: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    uids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, str] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What ratings of one modality make of a profile: the row of `rating` in the card (None: only the interval), the half width, and layers."""

    row: dict[str, Any] | None
    half_width: float
    patients: int
    layers: Mapping[str, Tensor]
    predicted: np.ndarray
    words: dict[str, Any]


def collect(labels: Sequence[Label], scale: Scale, labels_file: Path, data: Path | None, model: Model, device: str, say: Say) -> Collected:
    """Score each rated series as the node would, and keep what the last layers saw of it."""
    result = Collected()
    key = hashlib.sha256(labels_file.read_bytes()).digest()
    found, result.unreadable = find_series(list(dict.fromkeys(label.series for label in labels)), labels_file.parent, data, key)
    of_series: dict[str, FoundSeries] = {}
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for label in labels:
        if label.series in found:
            one = found[label.series]
            of_series[one.uid] = one
            scores[one.uid][label.rater].append(scale.points(label.score))
    mean = {uid: {rater: float(np.mean(v)) for rater, v in of.items()} for uid, of in scores.items()}
    policy, content = Policy(device=device, max_interval=NO_LIMIT), hashlib.sha256()
    with Decoder(policy.decode_seconds, policy.max_pixels) as decoder:
        for number, (uid, one) in enumerate(sorted(of_series.items())):
            say(f"series {number + 1} of {len(of_series)}")
            assessment, seen = _assessed(one, policy, model, decoder)
            if assessment.end is not End.ASSESSED or seen is None:
                result.left_out[f"{assessment.end}/{assessment.reason}"] += 1
                continue
            rating = float(np.mean(list(mean[uid].values())))
            weight = np.array([s.weight for s in assessment.slices])
            rated = Rated(one.patient, np.array([s.score for s in assessment.slices]),
                          np.array([[s.noise, s.sharpness, s.artefact] for s in assessment.slices]), weight, rating)
            features, measures, logit = seen
            result.seen[assessment.modality].append(
                Seen(rated, features, measures, assessment.modality, assessment.purpose, weight / logit.double().softmax(0).numpy()))
            result.uids[assessment.modality].append(uid)
            content.update(json.dumps([uid, [s.sop_uid for s in assessment.slices], round(rating, 6)]).encode())
    result.agreement = {modality: agreement({uid: mean[uid] for uid in uids}) for modality, uids in result.uids.items()}
    result.digest = content.hexdigest()
    return result


def _assessed(one: FoundSeries, policy: Policy, model: Model, decoder: Decoder) -> tuple[Assessment, tuple[Tensor, Tensor, Tensor] | None]:
    """The Assessment, and of its slices what the last layers saw and said: features, measures and weight logits."""
    caught: list[tuple[Tensor, Tensor, Tensor]] = []

    def catch(module: Module, given: tuple[Tensor, ...], out: Output) -> None:
        caught.append(tuple(t.detach().float().cpu() for t in (out.features, given[1], out.weight_logit)))  # type: ignore[arg-type]

    hook = model.network.register_forward_hook(catch)
    try:
        assessment = judge(read_series(list(one.files), decoder), policy, model)
    finally:
        hook.remove()
    if not caught or assessment.end is not End.ASSESSED:
        return assessment, None
    # a batch that a full device refused was seen twice; the last rows are those of the answer
    with torch.inference_mode(False):
        features, measures, logit = (torch.cat([c[k] for c in caught])[-len(assessment.slices):].clone() for k in range(3))
    return assessment, (features, measures, logit)


def fit_ratings(model: Model, seen: Sequence[Seen], say: Say = lambda line: None) -> Fitted:
    """Map, interval and, where there are hundreds of patients, last layers for the ratings of one modality; RatingsRefused when they
    support nothing."""
    series = [s.rated for s in seen]
    patients = len({s.patient for s in series})
    rating, score = np.array([s.rating for s in series]), np.array([float((s.weight * s.q).sum()) for s in series])
    if patients < LEAST_INTERVAL:
        raise RatingsRefused(f"{patients} rated patients: below {LEAST_INTERVAL} no interval of 90 % exists")
    if rating.std() == 0.0:
        raise RatingsRefused("all ratings are the same; there is nothing to learn from them")
    words: dict[str, Any] = {"patients": patients, "series": len(series), "srcc_before": _srcc(score, rating),
                             "error_before": round(float(np.abs(score - rating).mean()), 1)}
    if patients < LEAST_MAP:
        return Fitted(None, half_width(series, score), patients, {}, score,
                      words | {"map": "none", "why": f"fewer than {LEAST_MAP} patients: the score stays, its interval is that of these ratings"})
    among = candidates()
    predicted, constant = out_of_fold(series, among)
    if not _better((constant - rating) ** 2, (predicted - rating) ** 2, patients):
        raise RatingsRefused("the ratings do not rise with what is measured: a map would say no more than their mean")
    layers: dict[str, Tensor] = {}
    if patients >= LEAST_TUNE:
        say("fine-tuning the last layers, patients left out")
        of_quality = [c for c in among if c.exponents is None]
        moved = tuned_out_of_fold(model.network, seen, of_quality)
        words["error_recalibrated"] = round(float(np.abs(predicted - rating).mean()), 1)
        words["error_fine_tuned"] = round(float(np.abs(moved - rating).mean()), 1)
        if _better((predicted - rating) ** 2, (moved - rating) ** 2, patients):
            layers, predicted, among = tune(model.network, seen), moved, of_quality
            series = rescored(tuned_network(model.network, layers), seen)
    fitted = fit_map(choose(series, among), series)
    words |= {"map": _named(fitted.candidate, bool(layers)), "srcc": _srcc(predicted, rating), "error": round(float(np.abs(predicted - rating).mean()), 1)}
    return Fitted(_row(fitted, series), half_width(series, predicted), patients, layers, predicted, words)


def _better(before: np.ndarray, after: np.ndarray, patients: int) -> bool:
    """Whether squared errors fall by more than one standard error of their difference."""
    return float((before - after).mean()) > float((before - after).std()) / math.sqrt(patients)


def _srcc(a: np.ndarray, b: np.ndarray) -> float | None:
    return round(srcc(a, b), 3) if a.std() > 0 and b.std() > 0 else None


def _named(candidate: Candidate, tuned: bool) -> str:
    of = "quality" if candidate.exponents is None else "noise^{:g} sharpness^{:g} artefact^{:g}".format(*candidate.exponents)
    return f"{'bent' if candidate.bends else 'straight'} map of {of}{', fine-tuned layers' if tuned else ''}"


def _row(fitted: RatingMap, series: Sequence[Rated]) -> dict[str, Any]:
    points = [float((s.weight * fitted.candidate.points(s)).sum()) for s in series]
    return {"knots": [[round(float(x), 3), round(float(y), 3)] for x, y in zip(fitted.places, fitted.values, strict=True)],
            "exponents": None if fitted.candidate.exponents is None else list(fitted.candidate.exponents),
            "range": [round(min(points), 2), round(max(points), 2)]}


def write_profile(model: Model, weights: Path, fitted: Mapping[str, Fitted], collected: Collected, scale: Scale, out: Path, name: str) -> Path:
    """Weights, card and the table of out-of-fold ratings of a new profile; `weights` is the file that it starts from."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.safetensors"
    layers = {f"{PREFIX}{modality}.{parameter}": value for modality, f in fitted.items() for parameter, value in f.layers.items()}
    if layers:
        save_file({**load_file(weights), **layers}, path)
    else:
        shutil.copyfile(weights, path)
    card = json.loads(json.dumps(model.card))
    for modality, f in fitted.items():
        fixed = {"quantile": round(f.half_width, 2), "ends": 1.0, "apart": 0.0} if math.isfinite(f.half_width) else None
        card["calibration"].setdefault(modality, {}).update(interval=fixed, subjects=f.patients)
    card["rating"] = {modality: f.row for modality, f in fitted.items() if f.row is not None}
    card["version"] = f"{card['version']}+ratings.{collected.digest[:8]}"
    card["ratings"] = {
        "from": {"profile": model.identity.profile, "version": model.identity.version, "sha256": model.identity.sha256}, "data": collected.digest,
        "scale": [scale.low, scale.high], "lower_is_better": scale.lower_is_better, "left_out": dict(collected.left_out),
        "unreadable": len(collected.unreadable),
        "figures": {modality: f.words | {"half_width": round(f.half_width, 2)} | collected.agreement[modality] for modality, f in fitted.items()}}
    (out / f"{name}.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with (out / f"{name}-ratings.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["series_uid", "patient_digest", "modality", "rating", "rating_out_of_fold"])
        for modality, f in fitted.items():
            for uid, one, guess in zip(collected.uids[modality], collected.seen[modality], f.predicted, strict=True):
                table.writerow([uid, one.rated.patient, modality, round(one.rated.rating, 2), round(float(guess), 2)])
    return path


def finetune(labels: Sequence[Label], scale: Scale, labels_file: Path, data: Path | None, model: Model, weights: Path, out: Path, name: str,
             device: str = "cpu", say: Say = lambda line: None) -> dict[str, Any]:
    """The whole way from a table of ratings to the files of a profile; what was said of it as one mapping."""
    if "rating" in model.card:
        raise RatingsRefused(f"{model.identity.profile} is made of ratings itself; start from the profile that it came from")
    collected = collect(labels, scale, labels_file, data, model, device, say)
    fitted, refused = {}, {}
    for modality in [m for m in MODALITIES if collected.seen.get(m)]:
        try:
            fitted[modality] = fit_ratings(model, collected.seen[modality], say)
        except RatingsRefused as error:
            refused[modality] = str(error)
    found = {"refused": refused, "left_out": dict(collected.left_out), "unreadable": collected.unreadable}
    if not fitted:
        raise RatingsRefused("; ".join(f"{m}: {why}" for m, why in refused.items()) or
                             f"no rated series can be used: {len(collected.unreadable)} unreadable, {sum(collected.left_out.values())} without a score")
    path = write_profile(model, weights, fitted, collected, scale, out, name)
    return {"weights": str(path), "profile": name, "data": collected.digest,
            "modalities": {m: f.words | {"half_width": round(f.half_width, 2)} | collected.agreement[m] for m, f in fitted.items()}, **found}
