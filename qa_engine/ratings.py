"""A profile made from people's ratings: the map in its card that turns points into their ratings, on the scale 0..100.

`rating` in the card holds per modality: `knots`, ascending pairs [points, rating] of a piecewise linear, rising map, and `exponents` of
noise, sharpness and artefact when the points are not Q but the weighted geometric mean of the three axes. The map acts on slices; the score
of the series stays the weighted sum of its slices. Last layers that were fine-tuned on ratings of one modality stand beside the common ones
in the weights file, under `rated.<modality>.`, so that the other modality is answered as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from qa_engine.assessment import Finding

if TYPE_CHECKING:
    from qa_engine.model import NetworkResult
    from qa_engine.network.mediqa import MedIQA

PREFIX = "rated."
"""Of the tensors of fine-tuned layers, before modality and parameter name."""

LEAST_POINTS = 1.0
"""An axis counts as at least this in the geometric mean, so that one bad axis does not hide the others."""


def points_of(q: np.ndarray, axes: np.ndarray, exponents: np.ndarray | None) -> np.ndarray:
    """What is mapped, 0..100: Q (N,), or the geometric mean of the axes (N,3) with exponents (3,) that sum to 1."""
    if exponents is None:
        return q
    return np.exp((np.log(np.clip(axes, LEAST_POINTS, 100.0)) * exponents).sum(-1))


def rated(result: NetworkResult, card: Mapping[str, Any], modality: str) -> NetworkResult:
    """The result in the ratings of the card; unchanged when the card has none for the modality."""
    row = card.get("rating", {}).get(modality)
    if row is None:
        return result
    exponents = None if row.get("exponents") is None else np.array(row["exponents"], float)
    points = points_of(result.q, result.axes, exponents)
    knots = np.array(row["knots"], float)
    q = np.interp(points, knots[:, 0], knots[:, 1])
    low, high = row["range"]
    mean = float((result.weight * points).sum())
    beyond = () if low <= mean <= high else (
        Finding("beyond-ratings", f"The images are {'worse' if mean < low else 'better'} than all that were rated for this profile."),)
    return replace(result, q=q, score=float((result.weight * q).sum()), findings=(*result.findings, *beyond))


def take_tuned(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Takes the fine-tuned tensors out of `state`: modality -> parameter name -> values."""
    found: dict[str, dict[str, Tensor]] = {}
    for name in [n for n in state if n.startswith(PREFIX)]:
        modality, _, parameter = name.removeprefix(PREFIX).partition(".")
        found.setdefault(modality, {})[parameter] = state.pop(name)
    return found


def tuned_network(network: MedIQA, tuned: Mapping[str, Tensor]) -> MedIQA:
    """A copy with other last layers; RuntimeError when a tensor has no place in this network."""
    copy = deepcopy(network)
    copy.load_state_dict(dict(copy.state_dict()) | {name: tuned[name] for name in tuned}, strict=True)
    return copy
