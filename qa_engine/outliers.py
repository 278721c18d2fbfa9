"""Outlier slices: those between the seven salient ones that look worse than their neighbours, by measures cheap enough for every slice.

Bands of three rows are read, about a quarter of the pixels. Six logarithms per slice (noise, structure along rows and columns, contrast of edges,
structure in air, level of the darkest part) are compared with those of the slices around, in units of the stack's own robust spread. The
measures only choose what is scored besides the seven; how good a slice is, the network says (docs/decisions/0007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qa_engine.assessment import Finding
from qa_engine.description_words import DIFFERENCES
from qa_engine.volume import Volume

MOST = 3
"""Outliers that are scored besides the seven."""
REGIONS = 7
BANDS, BLOCKS = 48, 80
"""Bands of three rows and blocks along them that a slice is looked at in."""
WORSE_BY = 8.0
"""Points below the salient slices beside it from which on an outlier is a finding."""
LEAST_BLOCKS = 40
LEAST_Z, LEAST_CHANGE = 4.0, 0.15
"""An outlier differs by so many robust standard deviations and by so much in its logarithm (16 %)."""
SMALLEST_SPREAD = 0.05
"""Of a logarithm over the slices of a stack: steadier stacks are taken as that steady."""
DARKEST = 0.3
_SIGNS = (("noise", 0, 1.0), ("structure", 1, 1.0), ("structure", 2, 1.0), ("structure", 4, 1.0), ("structure", 5, 1.0), ("blur", 0, -1.0), ("blur", 3, -1.0))
"""What it is called, column of `slice_measures`, and the sign that is worse."""
_IN_TISSUE = np.array([column < 4 for _, column, _ in _SIGNS])


@dataclass(frozen=True)
class Outlier:
    """index in the volume; kind: noise, structure (streaks or ghosts) or blur; first and last index of the run of outliers that it stands
    for, and the share of the relevant slices that this run takes up."""

    index: int
    kind: str
    first: int
    last: int
    share: float


def slice_measures(pixels: np.ndarray, modality: str) -> np.ndarray:
    """(N,H,W) HU or stored signal -> (N,6) logarithms; NaN where a slice has too little of what is measured."""
    count, height, width = pixels.shape
    step, size = max(3, height // BANDS), max(2, width // BLOCKS)
    rows = np.arange(1, height - 1, step)
    blocks = (width - 2) // size
    used = blocks * size
    upper, middle, lower = (torch.from_numpy(np.ascontiguousarray(pixels[:, rows + k, :used + 2], dtype=np.float32)) for k in (-1, 0, 1))
    mean = ((upper + middle + lower) / 3.0)[:, :, 1:used + 1].reshape(count, len(rows), blocks, size).mean(3)
    at = slice(1 + size // 2, None, size)
    centre = middle[:, :, at][:, :, :blocks]
    fine = (upper[:, :, at][:, :, :blocks] + lower[:, :, at][:, :, :blocks] + middle[:, :, size // 2::size][:, :, :blocks]
            + middle[:, :, 2 + size // 2::size][:, :, :blocks] - 4.0 * centre).abs()
    ordered = mean.flatten(1).sort(1).values
    if modality == "CT":
        level = torch.full((count, 1, 1), 1000.0)
        tissue, air = (mean > -150) & (mean < 250), mean < -700
        darkest = torch.ones(count)
    else:
        level = ordered[:, int(0.97 * ordered.shape[1]), None, None].clamp(min=1e-6)
        tissue, air = mean > 0.2 * level, mean < 0.1 * level
        darkest = ordered[:, : int(DARKEST * ordered.shape[1])].abs().mean(1) / level[:, 0, 0] * 1000.0
    inside = torch.nn.functional.pad(mean, (1, 1, 1, 1))
    along, across = _second(inside[:, 1:-1]), _second(inside[:, :, 1:-1].transpose(1, 2)).transpose(1, 2)
    slope = (inside[:, 1:-1, 2:] - inside[:, 1:-1, :-2]).abs()
    border = torch.zeros_like(tissue)
    border[:, 1:-1, 1:-1] = True
    unit = level / 1000.0
    floor = 1.0 if modality == "CT" else 2.0
    found = [_mean_log(fine / unit, tissue & border, floor), _mean_log(along / unit, tissue & border, floor),
             _mean_log(across / unit, tissue & border, floor),
             _mean_log(slope / unit, tissue & border, floor), _mean_log(along / unit, air & border, 5 * floor),
             (darkest + 5 * floor).log()]
    return torch.stack(found, 1).double().numpy()


def _second(padded: Tensor) -> Tensor:
    """Absolute second difference along the last axis, which is two longer than the result."""
    return (padded[..., :-2] - 2.0 * padded[..., 1:-1] + padded[..., 2:]).abs()


def _mean_log(values: Tensor, mask: Tensor, floor: float) -> Tensor:
    """(N,) mean logarithm of `values` over the mask; NaN where the mask is small."""
    weight = mask.float()
    total = weight.sum((1, 2))
    mean = ((values + floor).log() * weight).sum((1, 2)) / total.clamp(min=1)
    return torch.where(total >= LEAST_BLOCKS, mean, torch.nan)


def departures(measures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,6) -> how far each logarithm lies from what the slices around suggest, and the same in robust standard deviations.

    The window spans two of the seven regions, so that a slab that fits between two salient slices is in the minority; where the stack ends the
    window stays inside and a robust line through it is what is expected, since anatomy changes most there.
    """
    count = len(measures)
    half = max(2, -(-count // REGIONS))
    away = np.zeros_like(measures)
    for column, values in enumerate(measures.T):
        known = ~np.isnan(values)
        if 2 * known.sum() < count:
            continue
        filled = np.where(known, values, np.median(values[known]))
        expected = np.empty(count)
        if count > 2 * half:
            expected[half:count - half] = np.median(np.lib.stride_tricks.sliding_window_view(filled, 2 * half + 1), axis=1)
        low, high = filled[:2 * half + 1], filled[-(2 * half + 1):]
        expected[:half] = _line(low)[:half]
        expected[count - half:] = _line(high)[-half:]
        away[known, column] = (filled - expected)[known]
    spread = np.maximum(1.4826 * np.median(np.abs(away), axis=0), SMALLEST_SPREAD)
    return away, away / spread


def _line(values: np.ndarray) -> np.ndarray:
    """The line through `values` by the median of the slopes of all pairs (Theil 1950, Sen 1968)."""
    place = np.arange(len(values))
    i, j = np.triu_indices(len(values), 1)
    slope = np.median((values[j] - values[i]) / (j - i))
    return np.median(values - slope * place) + slope * place


def find_outliers(volume: Volume, relevant: np.ndarray, salient: Sequence[int]) -> list[Outlier]:
    """Up to MOST outliers among the `relevant` indices, worst first; what a salient slice shows as well is no outlier."""
    if len(relevant) <= len(salient):
        return []
    away, z = departures(slice_measures(volume.pixels[relevant[0]:relevant[-1] + 1], volume.modality)[relevant - relevant[0]])
    worse = np.stack([np.where(sign * away[:, c] >= LEAST_CHANGE, sign * z[:, c], 0.0) for _, c, sign in _SIGNS], 1)
    worst = worse.max(1)
    flagged = np.flatnonzero(worst >= LEAST_Z)
    seen = {int(np.searchsorted(relevant, k)) for k in salient}
    found = []
    for run in np.split(flagged, np.flatnonzero(np.diff(flagged) > 2) + 1) if len(flagged) else []:
        peak = int(run[worst[run].argmax()])
        if peak in seen or any(n in seen and 2 * worst[n] >= worst[peak] for n in run):
            continue
        tissue = np.where(_IN_TISSUE, worse[peak], 0.0)  # what shows in air too is named by what it does to tissue, where it does anything
        kind = _SIGNS[int((tissue if tissue.max() >= LEAST_Z else worse[peak]).argmax())][0]
        found.append((worst[peak], Outlier(int(relevant[peak]), kind, int(relevant[run[0]]), int(relevant[run[-1]]), len(run) / len(relevant))))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])[:MOST]]


def limited_weights(weight: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Weights (N,) of the network (sum 1) when slices stand for unequal parts of the stack: `share` (N,) of an outlier, 0 for a salient one.

    The salient slices share what the outliers leave over. Each weight is the network's times the part that the slice stands for; an outlier
    gets its part at the most. Sum 1.
    """
    outlier = share > 0
    if not outlier.any():
        return weight
    part = np.where(outlier, share, (1.0 - share.sum()) / max(1, int((~outlier).sum())))
    limited = weight * part / (weight * part).sum()
    limited[outlier] = np.minimum(limited[outlier], share[outlier])
    rest = limited[~outlier]
    limited[~outlier] = rest / rest.sum() * (1.0 - limited[outlier].sum())
    return limited


def outlier_findings(outliers: Mapping[int, Outlier], scores: Mapping[int, float]) -> tuple[Finding, ...]:
    """One finding for each outlier that scores clearly lower than the salient slices on both sides of it, worst first; `scores` by index of all
    that were scored."""
    found = []
    salient = [k for k in scores if k not in outliers]
    for k, one in sorted(outliers.items(), key=lambda item: scores[item[0]]):
        beside = [max((n for n in salient if n < k), default=None), min((n for n in salient if n > k), default=None)]
        around = [scores[n] for n in beside if n is not None]
        if scores[k] > min(around) - WORSE_BY:
            continue
        first, last = one.first + 1, one.last + 1
        which, what = (f"Slice {first} differs", "it") if first == last else (f"Slices {first} to {last} differ", f"slice {k + 1}")
        found.append(Finding("outlier-slices", f"{which} from those around ({DIFFERENCES[one.kind]}): {what} scores {scores[k]:.0f}, the evenly spaced "
                                               f"{'ones beside it' if len(around) > 1 else 'one beside it'} {' and '.join(f'{s:.0f}' for s in around)}."))
    return tuple(found)
