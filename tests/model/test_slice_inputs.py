"""Views and measures of slices side by side are those of each alone, and the number of torch's threads is what it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from qa_engine.measures import measure
from qa_engine.network.views import slice_views
from qa_engine.slice_inputs import slice_inputs
from qa_engine.volume import Volume

pytestmark = pytest.mark.model


@pytest.fixture
def volume() -> Volume:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :200]
    body = np.where((y - 80) ** 2 + (x - 100) ** 2 < 70 ** 2, 40.0, -1000.0)
    pixels = np.stack([body + rng.normal(0, 5 + 5 * k, body.shape) for k in range(5)]).astype(np.float32)
    return Volume("CT", pixels, "[hnsf'U]", (0.8, 0.8), None, None, None, ())


def test_same_as_each_alone(volume: Volume) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [(slice_views(torch.from_numpy(image), "CT"), measure(torch.from_numpy(image)[None], torch.tensor([[0.8, 0.8]]), "CT").vector)
                 for image in volume.pixels]
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            together = slice_inputs(volume, range(5))
            assert torch.get_num_threads() == threads
            for (views, vector), (seen, measured) in zip(alone, together, strict=True):
                assert torch.equal(views, seen) and torch.equal(vector, measured.vector)
    finally:
        torch.set_num_threads(before)


def test_two_callers_leave_the_threads_as_they_were(volume: Volume) -> None:
    before = torch.get_num_threads()
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda k: slice_inputs(volume, [k, 4]), [0, 1])
    assert torch.equal(one[1][1].vector, two[1][1].vector) and not torch.equal(one[0][1].vector, two[0][1].vector)
    assert torch.get_num_threads() == before
