"""Boosted regression trees as tensors: made by a library at training time, evaluated here without it, on CPU, GPU and in ONNX.

A node holds the number of a measure, a threshold and two children; a leaf is its own child, so that a fixed number of steps reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Trees(nn.Module):
    """`outputs` sums of trees over (N,M) measures. feature, left, right (O,T,K) int64, threshold, value (O,T,K) float32; depth: steps to the
    deepest leaf."""

    def __init__(self, outputs: int, trees: int, nodes: int) -> None:
        super().__init__()
        self.register_buffer("feature", torch.zeros(outputs, trees, nodes, dtype=torch.int16))
        self.register_buffer("below", torch.zeros(outputs, trees, nodes, 2, dtype=torch.int16))
        self.register_buffer("threshold", torch.zeros(outputs, trees, nodes))
        self.register_buffer("value", torch.zeros(outputs, trees, nodes))
        self.register_buffer("depth", torch.zeros((), dtype=torch.int16))
        self.steps = 0  # the same as a number, which an exporter can unroll
        self.register_load_state_dict_post_hook(lambda module, _: module.settle())

    def settle(self) -> None:
        """To be called when `depth` was changed."""
        self.steps = int(self.depth)

    def forward(self, measures: Tensor) -> Tensor:
        """(N,M) -> (N,outputs)."""
        outputs, trees, nodes = self.value.shape
        flat = outputs * trees
        base = (torch.arange(flat, device=measures.device) * nodes)[None]
        feature, threshold = self.feature.reshape(-1).long(), self.threshold.reshape(-1)
        below = self.below.reshape(-1).long()
        place = torch.zeros(measures.shape[0], flat, dtype=torch.long, device=measures.device)
        for _ in range(self.steps):
            node = base + place
            right = (measures.gather(1, feature[node]) > threshold[node]).long()
            place = below[2 * node + right]
        return self.value.reshape(-1)[base + place].reshape(measures.shape[0], outputs, trees).sum(2)


    def padded(self, trees: int, nodes: int) -> Trees:
        """The same with room for more trees and nodes, which add nothing."""
        result = Trees(self.value.shape[0], trees, nodes)
        for name, values in self.state_dict().items():
            target = getattr(result, name)
            if values.ndim:
                target[:, : values.shape[1], : values.shape[2]] = values
            else:
                target.copy_(values)
        result.settle()
        return result


def trees_of(models: Sequence[Mapping[str, Any]]) -> Trees:
    """From the dictionaries that lightgbm's `Booster.dump_model` gives, one per output; `x <= threshold` goes left."""
    found = [[_flat(one["tree_structure"]) for one in model["tree_info"]] for model in models]
    count, nodes = max(len(t) for t in found), max(len(rows) for t in found for rows, _ in t)
    result = Trees(len(models), count, nodes)
    for k, trees in enumerate(found):
        for n, (rows, _) in enumerate(trees):
            for place, (feature, threshold, left, right, value) in enumerate(rows):
                result.feature[k, n, place], result.threshold[k, n, place], result.value[k, n, place] = feature, threshold, value
                result.below[k, n, place, 0], result.below[k, n, place, 1] = left, right
    result.depth.fill_(max(depth for t in found for _, depth in t))
    result.settle()
    return result


Row = tuple[int, float, int, int, float]


def _flat(root: Mapping[str, Any]) -> tuple[list[Row], int]:
    """Nodes of one tree, root first, and its depth."""
    rows: list[Row] = []

    def visit(node: Mapping[str, Any]) -> tuple[int, int]:
        place = len(rows)
        if "leaf_value" in node:
            rows.append((0, 0.0, place, place, float(node["leaf_value"])))
            return place, 0
        rows.append((0, 0.0, place, place, 0.0))
        left, one = visit(node["left_child"])
        right, two = visit(node["right_child"])
        # the library compares in double precision: the nearest single below keeps `<=` as it was
        threshold = torch.tensor(float(node["threshold"]), dtype=torch.float64)
        single = threshold.float()
        if single.double() > threshold:
            single = torch.nextafter(single, torch.tensor(-torch.inf))
        rows[place] = (int(node["split_feature"]), float(single), left, right, 0.0)
        return place, 1 + max(one, two)

    return rows, visit(root)[1]
