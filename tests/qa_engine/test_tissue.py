"""Sliding windows on the CPU give what pooling gives, to the last bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qa_engine.measures.tissue import highest, smooth


@pytest.mark.parametrize("size", [1, 3, 5, 9, 11, 17])
@pytest.mark.parametrize("shape", [(1, 64, 80), (3, 37, 20), (2, 9, 18)], ids=str)
def test_windows_are_those_of_pooling(shape: tuple[int, int, int], size: int) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(size)) * 300 - 200
    reach = size // 2
    mean = F.avg_pool2d(image[:, None], (size, 1), stride=1, padding=(reach, 0), count_include_pad=False)
    mean = F.avg_pool2d(mean, (1, size), stride=1, padding=(0, reach), count_include_pad=False)[:, 0]
    assert torch.equal(smooth(image, size), mean)
    assert torch.equal(highest(image, size), F.max_pool2d(image[:, None], size, stride=1, padding=reach)[:, 0])


def test_windows_change_nothing_that_they_are_given() -> None:
    image = torch.randn(1, 20, 20, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    smooth(image, 5), highest(image, 5)
    assert torch.equal(image, before)
