"""What the network is given of each slice. Several slices at a time, each by one thread: the steps of one slice are too short to be shared."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from qa_engine.measures import Measured, measure
from qa_engine.network.views import slice_views
from qa_engine.volume import Volume

_THREADS_OF_TORCH = threading.Lock()
"""Held while their number, which is one for the whole process, is another than usual."""


def slice_inputs(volume: Volume, indices: Sequence[int]) -> list[tuple[Tensor, Measured]]:
    """Views (VIEWS,SIDE,SIDE) and measures of each slice; the same numbers whatever the number of cores."""
    spacing = torch.tensor([volume.spacing_mm], dtype=torch.float32)

    def one(k: int) -> tuple[Tensor, Measured]:
        image = torch.from_numpy(np.ascontiguousarray(volume.pixels[k], dtype=np.float32))
        return slice_views(image, volume.modality), measure(image[None], spacing, volume.modality)

    with _THREADS_OF_TORCH:
        usual = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(min(len(indices), len(os.sched_getaffinity(0)))) as pool:
                return list(pool.map(one, indices))
        finally:
            torch.set_num_threads(usual)
