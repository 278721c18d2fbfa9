"""The network of a profile as ONNX, for programs that have no torch; with what they need to know as metadata of the file.

Inputs: `views` (slices,7,3,96,96) as `network.views.channels` makes them, `measures` (slices,M) raw, in the order of the metadata, `prompts`
(slices,4) int64. Outputs: `axes` (slices,3), standardised natural logarithms of noise, width and artefact, and `weight_logit` (slices,); a
softmax of it over the slices of a series is their weight. The number of slices is free.
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qa_engine.measures import MEASURE_NAMES
from qa_engine.network.mediqa import MedIQA
from qa_engine.network.views import CHANNELS, SIDE, VIEWS
from qa_engine.prompts import SIZES

if TYPE_CHECKING:
    from qa_engine.model import Model
    from qa_engine.published import PublishedModel

INPUTS, OUTPUTS = ("views", "measures", "prompts"), ("axes", "weight_logit")
NEEDED = ("onnx", "onnxscript")


class ExportError(Exception):
    """What cannot be exported; one line that says what to do."""


class _Outputs(nn.Module):
    """The network with the outputs that are exported."""

    def __init__(self, network: MedIQA) -> None:
        super().__init__()
        self.network = network

    def forward(self, views: Tensor, measures: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        out = self.network(views, measures, prompts)
        return out.axes, out.weight_logit


def example(slices: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the right shapes, of no meaning; every second slice counts as MR."""
    measures = torch.randn(slices, len(MEASURE_NAMES), generator=generator)
    measures[:, MEASURE_NAMES.index("is_mr")] = (torch.arange(slices) % 2).float()
    prompts = torch.stack([torch.randint(0, n, (slices,), generator=generator) for n in SIZES], 1)
    return torch.randn(slices, VIEWS, CHANNELS, SIDE, SIDE, generator=generator), measures, prompts


def export_onnx(model: Model | PublishedModel, file: Path) -> None:
    """Write `file`. ExportError, OSError."""
    if not isinstance(model.network, MedIQA):
        raise ExportError(f"{model.identity.profile} has the published architecture; profiles of mediqa-compact can be exported")
    if model.card.get("rating"):
        raise ExportError(f"{model.identity.profile} answers in people's ratings, which the network alone does not; export the profile that it was made from")
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ExportError(f"the packages for ONNX are not installed ({', '.join(absent)}): pip install 'mediqa-node[export]'")
    slices = torch.export.Dim("slices", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(_Outputs(model.network).cpu().eval(), example(3, torch.Generator().manual_seed(0)), dynamo=True, verbose=False,
                                    input_names=INPUTS, output_names=OUTPUTS, dynamic_shapes=({0: slices},) * len(INPUTS))
    if program is None:
        raise ExportError("the network could not be translated to ONNX")
    program.model.metadata_props.update(_metadata(model))
    part = file.with_name(f"{file.name}.part")
    program.save(part, external_data=False)
    os.replace(part, file)


def _metadata(model: Model | PublishedModel) -> dict[str, str]:
    mean, std = (t.tolist() for t in (model.network.axis_mean, model.network.axis_std))  # type: ignore[union-attr]
    return {"profile": model.identity.profile, "version": model.identity.version, "sha256": model.identity.sha256,
            "measures": json.dumps(MEASURE_NAMES), "axes": json.dumps(["noise", "width", "artefact"]),
            "axis_mean": json.dumps({"CT": mean[0], "MR": mean[1]}), "axis_std": json.dumps({"CT": std[0], "MR": std[1]})}
