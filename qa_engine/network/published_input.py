"""What the published network is shown: slices as the released code prepares them, and a preparation of our own for training.

As released: stored values, no Rescale Slope, no window, no minimum and maximum; whole numbers are divided by what their type can hold; brought to
224 x 224 with quadratic splines after a Gaussian against aliasing, both mirrored at the edges (what skimage.transform.resize does with order 2,
which agrees within 1e-9); the same in three channels. Along each axis that is linear, so one matrix per size does it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from qa_engine.network.published_vit import SIDE

SLICES = 7
CT_WINDOWS = ((-160.0, 240.0), (-1350.0, 150.0), (-1024.0, 1024.0))
"""HU; one channel each: soft tissue, lung, everything."""
MR_QUANTILES = (0.005, 0.995)
_TRUNCATE = 4.0
"""Standard deviations of the Gaussian."""


def released_slices(count: int) -> list[int]:
    """The seven of `count` files, in the order of their names, that the released code takes: the first and the last among them."""
    if count < SLICES:
        return (list(range(count)) * SLICES)[:SLICES]
    middle, step = count // 2, count // 6
    return [0, middle - 2 * step, middle - step, middle, middle + step, middle + 2 * step, count - 1]


def _mirrored(place: np.ndarray, size: int) -> np.ndarray:
    """Indices beyond the ends, reflected about the centres of the first and last pixel."""
    period = max(1, 2 * (size - 1))
    place = np.abs(place) % period
    return np.minimum(place, period - place)


def _sampling(places: np.ndarray, size: int, offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(len(places), size) matrix that sums `weights` at `places + offsets`."""
    matrix = np.zeros((len(places), size))
    np.add.at(matrix, (np.arange(len(places))[:, None], _mirrored(places[:, None] + offsets[None], size)), weights)
    return matrix


@lru_cache(maxsize=32)
def resize_matrix(size: int, target: int = SIDE) -> Tensor:
    """(target, size) float64: Gaussian against aliasing, then a quadratic spline through the pixels, sampled at the new ones."""
    factor = size / target
    everywhere = np.arange(size)
    calm = np.eye(size)
    sigma = max(0.0, (factor - 1) / 2)
    if sigma > 0:
        reach = int(_TRUNCATE * sigma + 0.5)
        offsets = np.arange(-reach, reach + 1)
        bell = np.exp(-0.5 * (offsets / sigma) ** 2)
        calm = _sampling(everywhere, size, offsets, bell / bell.sum())
    coefficients = np.linalg.inv(_sampling(everywhere, size, np.array([-1, 0, 1]), np.array([0.125, 0.75, 0.125])))
    new = (np.arange(target) + 0.5) * factor - 0.5
    nearest = np.floor(new + 0.5).astype(int)
    t = new - nearest
    spline = _sampling(nearest, size, np.array([-1, 0, 1]), np.stack([0.5 * (0.5 - t) ** 2, 0.75 - t ** 2, 0.5 * (0.5 + t) ** 2], 1))
    return torch.from_numpy(spline @ coefficients @ calm)


def resized(image: Tensor) -> Tensor:
    """(H,W) -> (224,224) float64, within the range of the image."""
    image = image.double()
    small = resize_matrix(image.shape[0]) @ image @ resize_matrix(image.shape[1]).T
    return small.clamp(image.min(), image.max())


def as_released(stored: np.ndarray) -> Tensor:
    """Stored values (H,W) in the type that they are stored in -> (3,224,224) float32 as the released weights know them."""
    full = 1.0 if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).max)
    values = stored.astype(np.float64) / full
    return resized(torch.from_numpy(np.maximum(values, -1.0) if stored.dtype.kind == "i" else values)).float().expand(3, -1, -1)


def windowed(image: Tensor, modality: str) -> Tensor:
    """(H,W) in HU or stored MR signal -> (3,224,224) float32 in -1..1, for a training of our own: CT in three windows, MR between quantiles."""
    if modality == "CT":
        ends = CT_WINDOWS
    else:
        low, high = np.quantile(image[::2, ::2].numpy(), MR_QUANTILES)
        ends = ((low, max(high, low + 1e-6)),) * 3
    small = resized(image)
    return torch.stack([((small - low) / (high - low) * 2 - 1).clamp(-1, 1) for low, high in ends]).float()
