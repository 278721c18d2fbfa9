"""Salient slices: irrelevant ones removed, the rest cut into seven equal regions along the normal, the middle one of each (arXiv 2507.19004)."""

from __future__ import annotations

import numpy as np

from qa_engine.volume import Volume

REGIONS = 7
AIR_HU = -500.0
LEAST_SHARE = 0.04
"""Of the pixels that must not be air."""
LEAST_OF_LARGEST = 0.3
"""A slice that shows less than this of what the fullest slice shows is the edge of the body or a table."""


def foreground_share(volume: Volume) -> np.ndarray:
    """(N,) share of pixels that are not air: above -500 HU, or above a tenth of the bright level of the whole MR volume."""
    step = max(1, volume.pixels.shape[1] // 128)
    coarse = volume.pixels[:, ::step, ::step]
    level = AIR_HU if volume.modality == "CT" else 0.1 * float(np.quantile(coarse, 0.98))
    return (coarse > level).mean(axis=(1, 2))


def _fullest(share: np.ndarray) -> float:
    """The largest share that the stack keeps up over more than a region: in a few noisy slices all of the air seems to be body."""
    half = -(-len(share) // REGIONS)
    if len(share) < 2 * half + 1:
        return float(share.max())
    return float(np.median(np.lib.stride_tricks.sliding_window_view(share, 2 * half + 1), axis=1).max())


def relevant_slices(volume: Volume) -> np.ndarray:
    """Indices of the slices that show something; all of them when that would leave none."""
    share = foreground_share(volume)
    keep = np.flatnonzero((share >= LEAST_SHARE) & (share >= LEAST_OF_LARGEST * _fullest(share)))
    return keep if len(keep) else np.arange(len(share))


def hollow_slices(volume: Volume, relevant: np.ndarray) -> list[int]:
    """Indices between relevant slices that show hardly more than air: lost images, not the end of the body."""
    inside = np.setdiff1d(np.arange(relevant[0], relevant[-1] + 1), relevant)
    return [int(k) for k in inside[foreground_share(volume)[inside] < LEAST_SHARE]] if len(inside) else []


def salient_slices(volume: Volume, relevant: np.ndarray | None = None) -> list[int]:
    """Up to seven indices in z order, by position where positions are known; one for a 2D image. `relevant`: those of `relevant_slices`."""
    keep = relevant_slices(volume) if relevant is None else relevant
    if len(keep) <= REGIONS:
        return [int(k) for k in keep]
    places = volume.positions_mm[keep] if volume.positions_mm is not None else keep.astype(float)
    middles = places[0] + (places[-1] - places[0]) * (np.arange(REGIONS) + 0.5) / REGIONS
    chosen = {int(keep[np.abs(places - m).argmin()]) for m in middles}
    for k in keep:  # uneven spacing may name a slice twice; others fill the place
        if len(chosen) >= REGIONS:
            break
        chosen.add(int(k))
    return sorted(chosen)


def regions_hit(volume: Volume, missing: tuple[float, ...]) -> int:
    """How many of the seven regions of the stack hold a missing slice."""
    if not missing or volume.positions_mm is None or len(volume.positions_mm) < 2:
        return 0
    low, high = float(volume.positions_mm[0]), float(volume.positions_mm[-1])
    return len({min(REGIONS - 1, max(0, int((m - low) / (high - low) * REGIONS))) for m in missing})
