"""Evidence beyond the ladder: real pairs, damage between the sampled slices, what must get no number, and how many slices are enough."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.foreign import foreign_versions
from benchmarks.metrics import srcc
from benchmarks.ours import Answer, answer_slices
from qa_engine.assess import assess, judge
from qa_engine.assessment import SeriesFacts
from qa_engine.decode import Decoder
from qa_engine.measures import normalised
from qa_engine.measures.noise import noise_mode
from qa_engine.measures.physics import calm_tissue, reference_factor
from qa_engine.model import Model
from qa_engine.outcome import End
from qa_engine.policy import Policy
from qa_engine.prompts import Prompts, mr_type
from qa_engine.salience import salient_slices
from qa_engine.series import group_files, read_series
from qa_engine.targets import purpose_of
from qa_engine.training.dataset import TrainingSeries, load_training_series, simulated_series
from qa_engine.volume import FrameRef, Reading, Volume

NOISE, WIDTH = 0, 1
UNSEEN_SEED = 52_000
"""Simulated patients of the training have seeds from 1000 on."""
DOSES = (1.0, 0.5, 0.25, 0.1)
SLAB, LEAST_GAP = 3, 5
MOST_APART_MM = 5.0
"""Neighbouring slices farther apart than this show other anatomy."""
Tell = Callable[[str], None]


def _answer(model: Model, one: TrainingSeries) -> Answer:
    purpose = purpose_of(one.modality, one.kernel)
    prompts = Prompts("3d", one.modality.lower(), one.region or None, purpose or mr_type(one.contrast))
    return answer_slices(model, one.pixels, one.spacing_mm, one.modality, purpose, prompts)


def _shares(rows: dict[str, tuple[np.ndarray, str]]) -> dict[str, dict[str, Any]]:
    return {name: {"right": int(right.sum()), "total": len(right), "axis": axis} for name, (right, axis) in rows.items()}


def real_pairs(model: Model, train: Path) -> dict[str, dict[str, Any]]:
    """Pairs of one patient or phantom that differ in one thing: right order on the axis in question, slice by slice. None was trained on."""
    if not (train / "index.csv").is_file():
        return {}
    series = {s.name: s for role in ("patient", "phantom_anthropomorphic") for s in load_training_series(train, "CT", ship_only=False, role=role)}

    def both(one: str, two: str) -> tuple[np.ndarray, np.ndarray] | None:
        return (_answer(model, series[one]).physics, _answer(model, series[two]).physics) if one in series and two in series else None

    found: dict[str, tuple[np.ndarray, str]] = {}
    if (dose := both("mayo506", "mayo506_q")) is not None:
        found["dose"] = dose[1][:, NOISE] > dose[0][:, NOISE], "quarter dose is noisier"
    if (kernel := both("dqph01_s2", "dqph01_s3")) is not None:
        found["kernel_noise"] = kernel[1][:, NOISE] > kernel[0][:, NOISE], "the sharp kernel is noisier"
        found["kernel_sharpness"] = kernel[1][:, WIDTH] < kernel[0][:, WIDTH], "the sharp kernel is sharper"
    if (thickness := both("dqph01", "dqph01_s2")) is not None:
        thick, thin = (received(physics) for physics in thickness)
        seen = [soft_tissue(a, "CT") and soft_tissue(b, "CT") for a, b in zip(series["dqph01"].pixels, series["dqph01_s2"].pixels, strict=True)]
        found["thickness"] = (thin > thick)[seen], "1 mm is noisier than 5 mm, as received, where there is soft tissue"
    return _shares(found)


def soft_tissue(image: np.ndarray, modality: str) -> bool:
    """Whether most of what the measures look at in a slice is soft tissue (-150 to 250 HU), and not what they fall back to."""
    unit, mask, _ = normalised(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None], modality)
    inside = unit[mask]
    return bool(((inside > -150) & (inside < 250)).float().mean() > 0.5)


def neighbours(one: TrainingSeries) -> list[list[int]]:
    """Runs of slices of a series that follow one another at its smallest distance, which is no more than MOST_APART_MM."""
    gaps = np.abs(np.diff(one.z_mm))
    if not len(gaps) or not 0.0 < gaps.min() <= MOST_APART_MM:
        return []
    runs = [[0]]
    for k, gap in enumerate(gaps):
        if gap < 1.01 * gaps.min() and one.pixels[k].shape == one.pixels[k + 1].shape:
            runs[-1].append(k + 1)
        else:
            runs.append([k + 1])
    return [run for run in runs if len(run) > 1]


def neighbour_evidence(model_of: Callable[[TrainingSeries], Model | None], train: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Two or three neighbouring slices of a patient and their mean, one thicker slice: it is calmer, as received. And the witness of the noise:
    what the difference of two neighbours says beside the mode of one."""
    calmer, modes, differences = [], [], []
    for one in load_training_series(train, "CT"):
        model, runs = model_of(one), neighbours(one)
        if model is None or not runs:
            continue
        run = max(runs, key=len)[:3]
        thin = one.pixels[run[len(run) // 2]]
        thick = np.mean([one.pixels[k] for k in run], 0).astype(np.float32)
        noise = received(_answer(model, replace(one, pixels=[thin, thick])).physics)
        calmer.append(noise[1] < noise[0])
        unit, mask, _ = normalised(torch.from_numpy(np.stack([one.pixels[k] for k in run[:2]]).astype(np.float32)), "CT")
        calm = calm_tissue(unit[:1], mask[:1] & mask[1:])
        modes.append(float(noise_mode(unit[:1], calm)))
        differences.append(float(noise_mode((unit[:1] - unit[1:]) / 2 ** 0.5, calm)))
    if not modes:
        return {}, {}
    ratio = np.array(differences) / np.array(modes)
    witness = {"series": len(modes), "srcc": round(srcc(np.array(modes), np.array(differences)), 3), "ratio": round(float(np.median(ratio)), 3)}
    return _shares({"thickness_neighbours": (np.array(calmer), "the mean of neighbouring slices is calmer than one of them, as received")}), witness


def received(physics: np.ndarray) -> np.ndarray:
    """(N,) CT noise as it stands in the picture, HU, of (N,3) physics, whose noise is stated at the reference width."""
    return physics[:, NOISE] / reference_factor(torch.from_numpy(physics[:, WIDTH]), "CT").numpy()


def dose_ladders(model: Model, patients: int) -> dict[str, dict[str, Any]]:
    """Simulated patients that training never saw, at four doses: noise rises and Q falls from each to the next."""
    found = {}
    for modality in ("CT", "MR"):
        series = simulated_series(modality, patients, DOSES, UNSEEN_SEED)
        answers = [_answer(model, one) for one in series]
        noise, fall = [], []
        for k in range(len(series)):
            if k % len(DOSES):
                noise += (answers[k].physics[:, NOISE] > answers[k - 1].physics[:, NOISE]).tolist()
                fall += (answers[k].q < answers[k - 1].q).tolist()
        name = f"simulated_{modality.lower()}_dose"
        found[name] = (np.array(noise), "noise rises from dose to dose")
        found[f"{name}_q"] = (np.array(fall), "Q falls from dose to dose")
    return _shares(found)


def phantom_series(data: Path) -> list[TrainingSeries]:
    """Phantoms of the data folder, CT and MR."""
    found = []
    if (data / "train" / "index.csv").is_file():
        found += [s for role in ("phantom_qa", "phantom_anthropomorphic") for s in load_training_series(data, "CT", ship_only=False, role=role)]
    if (data / "phantoms" / "index-phantoms-mr.csv").is_file():
        found += load_training_series(data, "MR", ship_only=False, role="phantom_qa")
    return found


def phantom_order(model: Model, phantoms: list[TrainingSeries]) -> dict[str, dict[str, Any]]:
    """Phantoms, below the gate: white noise of two steps and larger pixels put each phantom's middle slice in order on the right axis."""
    noise, width = [], []
    for one in phantoms:
        middle = one.pixels[len(one.pixels) // 2]
        if min(middle.shape) < 64:
            continue
        versions = {(kind, step): image for kind, step, image in foreign_versions(middle, one.modality) if kind in ("", "white noise", "larger pixels")}
        purpose = purpose_of(one.modality, one.kernel)
        answer = answer_slices(model, list(versions.values()), one.spacing_mm, one.modality, purpose, Prompts("3d", one.modality.lower()))
        of = dict(zip(versions, answer.physics, strict=True))
        noise += [of["white noise", 1][NOISE] > of["", 0][NOISE], of["white noise", 2][NOISE] > of["white noise", 1][NOISE]]
        width += [of["larger pixels", 1][WIDTH] > of["", 0][WIDTH], of["larger pixels", 2][WIDTH] > of["larger pixels", 1][WIDTH]]
    return _shares({"phantoms_noise": (np.array(noise), "added noise is noisier"), "phantoms_width": (np.array(width), "larger pixels are less sharp")})


def readings(data: Path) -> Iterator[tuple[str, Reading]]:
    """Real series of data/series that are expected to be assessed."""
    table = data / "series" / "expected.csv"
    if not table.is_file():
        return
    with table.open(encoding="utf-8") as file:
        names = [row["series"] for row in csv.DictReader(file) if row["end"] == "assessed"]
    with Decoder() as decoder:
        for name in names:
            grouped, _ = group_files([data / "series" / name])
            if grouped and (one := read_series(grouped[0], decoder)).volume is not None:
                yield name, one


def _with(reading: Reading, pixels: np.ndarray) -> Reading:
    return replace(reading, volume=replace(reading.volume, pixels=pixels))


def slabs(model: Model, data: Path, most: int, tell: Tell) -> dict[str, Any]:
    """Three damaged slices in the middle between two salient ones: whether one of them is scored and named as the worst slice."""
    scored = worst = total = 0
    for name, reading in readings(data):
        volume = reading.volume
        chosen = salient_slices(volume)
        gaps = [(a, b) for a, b in pairwise(chosen) if b - a >= LEAST_GAP]
        for number, (a, b) in enumerate(gaps[:: max(1, len(gaps) // most)][:most]):
            first = (a + b - SLAB) // 2 + 1
            slab = range(first, first + SLAB)
            kind = ("white noise", "larger pixels", "stripes")[number % 3]
            pixels = volume.pixels.copy()
            for k in slab:
                pixels[k] = next(image for what, step, image in foreign_versions(volume.pixels[k], volume.modality) if (what, step) == (kind, 2))
            found = judge(_with(reading, pixels), Policy(device="cpu"), model)
            if found.end is not End.ASSESSED:
                continue
            total += 1
            scored += any(s.ordinal - 1 in slab for s in found.slices)
            worst += min(found.slices, key=lambda s: s.score).ordinal - 1 in slab
            tell(f"slab {name}: {kind}")
    return {"total": total, "scored": scored, "worst_slice": worst}


def _thinned(reading: Reading, most: int) -> Reading:
    """The series with at most `most` of its slices, evenly chosen."""
    volume = reading.volume
    pick = np.unique(np.linspace(0, len(volume.frames) - 1, min(most, len(volume.frames))).round().astype(int))
    return replace(reading, volume=replace(volume, pixels=volume.pixels[pick], frames=tuple(volume.frames[k] for k in pick),
                                           positions_mm=None if volume.positions_mm is None else volume.positions_mm[pick],
                                           valid=None if volume.valid is None else volume.valid[pick]))


def slice_counts(model: Model, data: Path, most: int = 40) -> dict[str, Any]:
    """Score of a series (thinned to `most` slices) by its salient slices against all of them and against the middle one: mean distance in points."""
    to_all, one_to_all, names = [], [], []
    for name, reading in readings(data):
        reading = _thinned(reading, most)
        few = judge(reading, Policy(device="cpu"), model)
        every = judge(reading, Policy(device="cpu", slices="full"), model)
        if few.score is None or every.score is None:
            continue
        names.append(name)
        to_all.append(abs(few.score - every.score))
        one_to_all.append(abs(every.slices[len(every.slices) // 2].score - every.score))
    if not names:
        return {"series": 0}
    return {"series": len(names), "salient_to_all": round(float(np.mean(to_all)), 2), "one_to_all": round(float(np.mean(one_to_all)), 2)}


def as_reading(one: TrainingSeries) -> Reading | None:
    """A phantom's slices as if they had been read from files; None for slices of several sizes."""
    if len({p.shape for p in one.pixels}) != 1:
        return None
    frames = tuple(FrameRef(Path(one.name), "", f"2.25.{k + 1}", None, k + 1) for k in range(len(one.pixels)))
    volume = Volume(one.modality, np.stack(one.pixels), "HU" if one.modality == "CT" else "", one.spacing_mm,
                    5.0 * np.arange(len(one.pixels)), None, None, frames)
    return Reading("2.25.1", one.modality, len(frames), volume, None, SeriesFacts())


UNSCORED = {"US": "ultrasound", "MG": "mammography", "XA": "angiography", "CR": "radiography", "DX": "radiography", "OT": "screenshots and others",
            "SC": "screenshots and others", "XC": "photographs", "ES": "photographs", "GM": "photographs", "SM": "photographs"}


def abstention(model: Model, data: Path, phantoms: list[TrainingSeries], every: int, tell: Tell) -> dict[str, dict[str, int]]:
    """Of what the node must not score: how many there were and how many got a number (none may)."""
    found: dict[str, dict[str, int]] = {}

    def count(kind: str, numbered: bool) -> None:
        row = found.setdefault(kind, {"total": 0, "numbered": 0})
        row["total"] += 1
        row["numbered"] += numbered

    table = data / "devtest" / "manifest.csv"
    if table.is_file():
        with table.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if _unscored(row) is not None]
        with Decoder() as decoder:
            for row in rows[::every]:
                result = assess([data / "devtest" / row["file"]], Policy(device="cpu"), model, decoder)
                count(_unscored(row) or "", result.score is not None)
    tell("devtest done")
    for one in phantoms:
        reading = as_reading(one)
        if reading is not None:
            count(f"phantoms, {one.modality}", judge(reading, Policy(device="cpu"), model).score is not None)
    return found


def _unscored(row: dict[str, str]) -> str | None:
    if "Secondary Capture" in row["sop_name"]:
        return "screenshots and others"
    if row["photometric"] and not row["photometric"].startswith("MONOCHROME"):
        return "colour"
    return UNSCORED.get(row["modality"])
