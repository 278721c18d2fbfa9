"""Fits the region of a slice: multinomial logistic regression on features of the body, evaluated by leaving subjects out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from qa_engine.body import find_body, region_features
from qa_engine.prompts import REGIONS
from qa_engine.training.dataset import load_training_series

PENALTY = 0.03
STEPS = 400
NEVER = -12.0
FOLDS = 5


def collect(data: Path, modality: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N,F), region index (N,), subject (N,) of uncropped, shippable patients."""
    features, labels, subjects = [], [], []
    for one in load_training_series(data, modality):
        if one.cropped or one.region not in REGIONS:
            continue
        for image in one.pixels:
            body = find_body(image, one.spacing_mm, modality)
            if body is not None:
                features.append(region_features(body, modality))
                labels.append(REGIONS.index(one.region))
                subjects.append(one.subject)
    return np.stack(features), np.array(labels), np.array(subjects)


def fit_one(features: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Weights, bias and standardisation; each subject counts the same."""
    mean, std = features.mean(0), features.std(0) + 1e-3
    x = torch.from_numpy(((features - mean) / std).clip(-5, 5)).float()
    y = torch.from_numpy(labels)
    count = np.array([(subjects == s).sum() for s in subjects])
    weight = torch.from_numpy(1.0 / count).float()
    linear = torch.nn.Linear(x.shape[1], len(REGIONS))
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=STEPS)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = (torch.nn.functional.cross_entropy(linear(x), y, reduction="none") * weight).sum() / weight.sum()
        loss = loss + PENALTY * linear.weight.square().sum() / 2
        loss.backward()
        return loss

    optimiser.step(closure)
    bias = linear.bias.detach().numpy().copy()
    bias[~np.isin(np.arange(len(REGIONS)), labels)] = NEVER
    return {"mean": mean.astype(np.float32), "std": std.astype(np.float32), "weight": linear.weight.detach().numpy(), "bias": bias}


def accuracy(features: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> float:
    """Share of slices right, subjects left out fold by fold."""
    names = sorted(set(subjects))
    fold = {s: k % FOLDS for k, s in enumerate(names)}
    of = np.array([fold[s] for s in subjects])
    right = 0
    for k in range(FOLDS):
        w = fit_one(features[of != k], labels[of != k], subjects[of != k])
        scores = ((features[of == k] - w["mean"]) / w["std"]).clip(-5, 5) @ w["weight"].T + w["bias"]
        right += int((scores.argmax(1) == labels[of == k]).sum())
    return right / len(labels)


def fit_region(data: Path, out: Path) -> dict[str, float]:
    """Fit both modalities, write the coefficients; accuracy on subjects left out."""
    tensors, found = {}, {}
    for modality in ("CT", "MR"):
        features, labels, subjects = collect(data, modality)
        found[modality] = round(accuracy(features, labels, subjects), 3)
        tensors |= {f"{modality.lower()}.{k}": np.ascontiguousarray(v) for k, v in fit_one(features, labels, subjects).items()}
    save_file(tensors, out)
    return found
