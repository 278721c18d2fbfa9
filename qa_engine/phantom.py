"""Test objects are known by their pixels, never by header words: round outline and uniform inside, or an inside that no tissue has.

Limits were placed between real patients and test objects; docs/model-card.md says how many of each are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qa_engine.body import Body, Uniformity, find_body, uniformity

MR_GRADIENT = 0.065
"""Median gradient inside: patients of the training set 0.093 and more, MR test objects 0.051 and less."""
MR_SHADED = 0.09
"""The same inside a round outline, where the coil shades it: bottles 0.071 to 0.082; of 388 slices of patients none is round."""
ROUND = (0.985, 0.97)
"""Overlap with an ellipse and ratio of its axes."""
CT_HOLLOW = 0.4
"""Overlap with an ellipse below which a body is a shell that nothing fills: 417 slices of patients 0.69 and more, shells of plastic 0.15."""
CT_UNIFORM_SHARE = 0.75
CT_TISSUE_HU = (10.0, 65.0)
"""Commonest value of brain, muscle or blood without contrast; uniform plastic and water lie outside."""


def phantom_slice(body: Body, inside: Uniformity | None, modality: str) -> bool | None:
    """Whether one slice shows a test object; None when it does not tell."""
    if modality == "CT" and body.ellipse_overlap < CT_HOLLOW:
        return True
    if inside is None:
        return None
    round_outline = body.ellipse_overlap >= ROUND[0] and body.axis_ratio >= ROUND[1]
    if modality == "MR":
        return inside.gradient < (MR_SHADED if round_outline else MR_GRADIENT)
    if round_outline and inside.gradient <= 0.02 and inside.share >= 0.7:
        return True
    return inside.share >= CT_UNIFORM_SHARE and not CT_TISSUE_HU[0] <= inside.value <= CT_TISSUE_HU[1]


def is_phantom(slices: Sequence[np.ndarray], spacing_mm: tuple[float, float], modality: str) -> bool:
    """Whether at least half of the salient slices that show something show a test object."""
    return shows_phantom([find_body(image, spacing_mm, modality) for image in slices], modality)


def shows_phantom(bodies: Sequence[Body | None], modality: str) -> bool:
    """The same, from the bodies in the slices."""
    votes = []
    for body in bodies:
        vote = None if body is None else phantom_slice(body, uniformity(body, modality), modality)
        if vote is not None:
            votes.append(vote)
    return bool(votes) and 2 * sum(votes) >= len(votes)
