"""The published network under deterministic weights, and the images that go with them (a filling rule, no trained values)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def _uniform(k: int, count: int) -> np.ndarray:
    """`count` values in [0,1) of stream k, by integer hashing modulo 2^32."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32((k * 2246822519 + 374761393) & 0xFFFFFFFF)
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    return x / 4294967296.0


def fill(network: nn.Module) -> None:
    """Every parameter by its place in the sorted list of names; buffers keep their values."""
    with torch.no_grad():
        for k, (name, parameter) in enumerate(sorted(network.named_parameters())):
            v = 2 * _uniform(k, parameter.numel()) - 1
            if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
                v = 1 + 0.1 * v
            elif name == "fc_score.3.bias":
                v = np.full(1, 0.5)
            elif name.endswith(".weight"):
                v = v * 0.7 * math.sqrt(3 / math.prod(parameter.shape[1:]))
            else:
                v = 0.1 * v
            parameter.copy_(torch.from_numpy(v).reshape(parameter.shape))


def waves(count: int = 7) -> Tensor:
    """Images (count,3,224,224) of two plane waves each."""
    y, x = np.meshgrid(np.arange(224), np.arange(224), indexing="ij")
    w = 2 * np.pi / 224
    images = [0.5 + 0.3 * np.sin(w * (s + 1) * x) * np.cos(3 * w * y) + 0.2 * np.cos(w * (5 * x + 2 * (s + 1) * y)) for s in range(count)]
    return torch.from_numpy(np.stack(images)).float()[:, None].expand(-1, 3, -1, -1)


def one_hot(*codes: int) -> Tensor:
    """Prompts (len(codes),64)."""
    return nn.functional.one_hot(torch.tensor(codes), 64).float()
