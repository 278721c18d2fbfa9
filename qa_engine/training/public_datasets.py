"""Public protocols for whoever has downloaded the data: LDCTIQAC 2023 (abdominal low-dose CT) and MR-ART (OpenNeuro ds004173, head motion).

The images have no DICOM header, so the network is asked below the gates of the Assessor: the score as it is, and the score after a map to
the readers' scale that is fitted without the images that it is judged on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from PIL import Image

from qa_engine.measures.tissue import smooth
from qa_engine.model import Model
from qa_engine.prompts import Prompts
from qa_engine.salience import salient_slices
from qa_engine.training.calibrate import ranks, srcc
from qa_engine.training.rating_map import Rated, candidates, choose, fit_map, out_of_fold
from qa_engine.volume import FrameRef, Volume

Say = Callable[[str], None]
WINDOW_HU = (-135.0, 215.0)
"""What 0 and 1 of an LDCTIQAC image are: level 40, width 350 HU, the window of the readers."""
ASSUMED_SPACING_MM = 0.75
"""The images carry no pixel size; that of a 384 mm field."""
AIR_HU, AREA, MOSTLY = -1000.0, 9, 0.7
"""Cut pixels are air where they are most of the AREA x AREA pixels around; others are noise in fat."""
PUBLISHED = (
    ("FiLM on, clinical prompt", 0.9575, 0.9561, 0.8301, 2.7436), ("FiLM off", 0.9517, 0.9507, 0.8167, 2.7192),
    ("FiLM on, irrelevant prompt", 0.9487, 0.9485, 0.8137, 2.7109), ("MSE loss instead of ranking", 0.9411, 0.9425, 0.8044, 2.6880),
)
"""PLCC, SROCC, KROCC and their sum on the 300 test images as arXiv 2511.12256 reports them; all were trained on the 1000 training images."""
SCALES = {"ldctiqac2023": (0.0, 4.0), "mr-art": (3.0, 1.0)}
"""Worst and best score of the readers."""
STILL = "standard"
"""The run without motion; the others are headmotion1 and headmotion2."""


class NotThisDataset(Exception):
    """The folder does not hold what the protocol needs; one line."""


@dataclass(frozen=True, eq=False)
class Item:
    """One rated image or volume; `group` is the subject, or the image itself where subjects are unknown."""

    path: Path
    group: str
    score: float
    acquisition: str = ""


def plcc(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation."""
    return float(np.corrcoef(a, b)[0, 1])


def krocc(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b."""
    upper = np.triu_indices(len(a), 1)
    one, two = (np.sign(v[:, None] - v[None])[upper] for v in (a, b))
    return float((one * two).sum() / np.sqrt((one != 0).sum() * (two != 0).sum()))


def auc(scores: np.ndarray, good: np.ndarray) -> float:
    """Probability that a good one scores higher than another, ties half."""
    place, count = ranks(scores) + 1.0, int(good.sum())
    return float((place[good].sum() - count * (count + 1) / 2) / (count * (len(good) - count)))


def correlations(scores: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """The challenge's figures; None where a constant leaves them undefined."""
    if scores.std() == 0.0 or truth.std() == 0.0:
        return {"plcc": None, "srocc": None, "krocc": None, "sum": None}
    found = {"plcc": plcc(scores, truth), "srocc": srcc(scores, truth), "krocc": krocc(scores, truth)}
    return {k: round(v, 4) for k, v in found.items()} | {"sum": round(sum(found.values()), 4)}


def ldct_items(folder: Path) -> dict[str, list[Item]]:
    """Part (`train`, `test`) -> its images: a list of scores (JSON name -> score, or CSV image_id,score) and, below its folder, the TIFFs."""
    lists = sorted(f for depth in ("*", "*/*", "*/*/*") for f in folder.glob(depth) if f.suffix in (".json", ".csv") and f.is_file())
    found: dict[str, dict[str, Item]] = {}
    for file in lists:
        scores = _scores(file)
        if not scores:
            continue
        images = {f.name: f for f in sorted(file.parent.rglob("*.tif*"))}
        part = "test" if "test" in file.name.lower() else "train"
        for name, score in scores.items():
            path = images.get(name) or images.get(f"{name}.tif")
            if path is not None:
                found.setdefault(part, {})[path.name] = Item(path, f"{part}/{path.name}", score)
    if not found:
        raise NotThisDataset(f"no list of scores (train.json, test.json) with its TIFF images in {folder}")
    return {part: [items[name] for name in sorted(items)] for part, items in found.items()}


def _scores(file: Path) -> dict[str, float]:
    """name -> score; empty when the file is something else."""
    try:
        content = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            pairs = json.loads(content).items()
        else:
            pairs = [(row["image_id"], row["score"]) for row in csv.DictReader(content.splitlines())]
        return {str(name): float(score) for name, score in pairs}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def mr_art_items(folder: Path) -> list[Item]:
    """The rated T1-weighted volumes of a BIDS folder that are there."""
    table = next((f for f in (folder / "derivatives" / "scores.tsv", folder / "scores.tsv") if f.is_file()), None)
    if table is None:
        raise NotThisDataset(f"no derivatives/scores.tsv in {folder}")
    found = []
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines(), delimiter="\t"):
        try:
            name, score = row["bids_name"].strip(), float(row["score"])
        except (KeyError, TypeError, ValueError):
            raise NotThisDataset(f"{table} needs the columns bids_name and score") from None
        subject = name.partition("_")[0]
        parts = dict(part.split("-", 1) for part in name.split("_") if "-" in part)
        path = next((f for suffix in (".nii.gz", ".nii") if (f := folder / subject / "anat" / f"{name}{suffix}").is_file()), None)
        if path is not None:
            found.append(Item(path, subject, score, parts.get("acq", "")))
    if not found:
        raise NotThisDataset(f"none of the volumes of {table} lies in {folder}")
    return found


def read_ldct(path: Path) -> Volume:
    """One image in HU; whole areas that the window has cut off below are air again, without which noise has no tissue to be measured in."""
    pixels = np.asarray(Image.open(path), np.float32)
    if pixels.ndim != 2 or not np.isfinite(pixels).all() or pixels.min() < -0.01 or pixels.max() > 1.01:
        raise NotThisDataset(f"{path.name} is no single-channel image of 0 to 1")
    low, high = WINDOW_HU
    cut = torch.from_numpy(pixels <= 0.0)
    air = cut & (smooth(cut[None].float(), AREA)[0] > MOSTLY)
    return _volume("CT", np.where(air.numpy(), AIR_HU, low + (high - low) * pixels).astype(np.float32)[None], (ASSUMED_SPACING_MM,) * 2, None, path)


def read_nifti(path: Path) -> Volume:
    """A volume with the slices of its third axis, which is how the scanner made them; pixels are not resampled."""
    image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    if image.GetDimension() != 3:
        raise NotThisDataset(f"{path.name} is no volume of three axes")
    across, down, along = image.GetSpacing()
    pixels = np.maximum(SimpleITK.GetArrayFromImage(image), 0.0)
    return _volume("MR", pixels, (down, across), along * np.arange(len(pixels)), path)


def _volume(modality: str, pixels: np.ndarray, spacing: tuple[float, float], positions: np.ndarray | None, path: Path) -> Volume:
    frames = tuple(FrameRef(path, "", f"{k}", None, k + 1) for k in range(len(pixels)))
    return Volume(modality, np.ascontiguousarray(pixels), "", spacing, positions, None, None, frames)


def score_items(items: Sequence[Item], dataset: str, model: Model, device: str, say: Say) -> list[Rated]:
    """What the network says of each item, with the readers' score as 0..100."""
    read, prompts, purpose = (read_ldct, Prompts("2d", "ct", "abdomen", "soft tissue"), "soft tissue") if dataset == "ldctiqac2023" else (
        read_nifti, Prompts("3d", "mr", "head", "t1"), "")
    worst, best = SCALES[dataset]
    found = []
    for number, item in enumerate(items):
        if number % 10 == 0:
            say(f"{number} of {len(items)}")
        volume = read(item.path)
        answer = model.score(volume, salient_slices(volume), prompts, purpose, device)
        found.append(Rated(item.group, answer.q, answer.axes, answer.weight, 100.0 * (item.score - worst) / (best - worst)))
    return found


def raw_scores(rated: Sequence[Rated]) -> np.ndarray:
    """Q of each."""
    return np.array([float((r.weight * r.q).sum()) for r in rated])


def evaluate_ldct(folder: Path, model: Model, device: str = "cpu", say: Say = lambda line: None) -> dict[str, Any]:
    """PLCC, SROCC, KROCC and their sum on the test images where they are there, else on those for training (map across folds of images)."""
    parts = {part: score_items(items, "ldctiqac2023", model, device, say) for part, items in ldct_items(folder).items()}
    judged = parts.get("test") or parts["train"]
    truth = np.array([r.rating for r in judged])
    found: dict[str, Any] = {"dataset": "ldctiqac2023", "images": len(judged), "part": "test" if "test" in parts else "train",
                             "raw": correlations(raw_scores(judged), truth)}
    if {"train", "test"} <= set(parts):
        fitted = fit_map(choose(parts["train"], candidates()), parts["train"])
        found |= {"recalibrated": correlations(fitted.predict(judged), truth), "map": "fitted to the training images"}
    else:
        found |= {"recalibrated": correlations(out_of_fold(judged, candidates())[0], truth),
                  "map": "fitted across folds of images; their patients are not known"}
    return found | {"published": {name: dict(zip(("plcc", "srocc", "krocc", "sum"), figures, strict=True)) for name, *figures in PUBLISHED}}


def evaluate_mr_art(folder: Path, model: Model, device: str = "cpu", say: Say = lambda line: None) -> dict[str, Any]:
    """SRCC with the readers, AUC of still against moving and of good against the rest, and the order of the runs of one subject."""
    items = mr_art_items(folder)
    rated = score_items(items, "mr-art", model, device, say)
    truth, subject = np.array([r.rating for r in rated]), np.array([i.group for i in items])
    acquisition = np.array([i.acquisition for i in items])
    if len(set(subject)) < 2 or truth.std() == 0.0:
        raise NotThisDataset("two subjects and two different scores are the least to compare")
    found: dict[str, Any] = {"dataset": "mr-art", "volumes": len(items), "subjects": len(set(subject))}
    for name, scores in (("raw", raw_scores(rated)), ("recalibrated", out_of_fold(rated, candidates())[0])):
        found[name] = {"srcc": None if scores.std() == 0.0 else round(srcc(scores, truth), 4),
                       "auc_still_against_moving": _auc(scores, acquisition == STILL),
                       "auc_good_against_rest": _auc(scores, truth == truth.max()), "auc_bad_against_rest": _auc(-scores, truth == truth.min())}
    found["within_subject"] = _order(raw_scores(rated), truth, subject, acquisition)
    return found


def _auc(scores: np.ndarray, good: np.ndarray) -> float | None:
    return round(auc(scores, good), 4) if 0 < good.sum() < len(good) else None


def _order(scores: np.ndarray, truth: np.ndarray, subject: np.ndarray, acquisition: np.ndarray) -> dict[str, float | int | None]:
    """Share of pairs of runs of one subject in the right order: pairs with different readers' scores, and still against moving."""
    right = {"readers": [], "still": []}
    for name in np.unique(subject):
        for a, b in combinations(np.flatnonzero(subject == name), 2):
            if truth[a] != truth[b]:
                right["readers"].append((scores[a] > scores[b]) == (truth[a] > truth[b]) and scores[a] != scores[b])
            if (acquisition[a] == STILL) != (acquisition[b] == STILL):
                right["still"].append((scores[a] > scores[b]) == (acquisition[a] == STILL) and scores[a] != scores[b])
    share = {k: round(float(np.mean(v)), 4) if v else None for k, v in right.items()}
    return {"pairs": len(right["readers"]), "right": share["readers"], "pairs_still_moving": len(right["still"]), "right_still_moving": share["still"]}


EVALUATE = {"ldctiqac2023": evaluate_ldct, "mr-art": evaluate_mr_art}
