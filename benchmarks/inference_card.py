"""What a CUDA card makes of the network: preprocessing on the card, series per second, share of its matrix rate in bf16."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from qa_engine.measures import measure
from qa_engine.model import Model
from qa_engine.network.views import channels, slice_views
from qa_engine.volume import Volume

SERIES = 64
"""In a batch of the throughput."""
SECONDS = 1.0
"""Least time of a measurement."""
MATRIX = 8192


def per_second(function: Callable[[], Any], device: str) -> float:
    """Calls per second, warmed up."""
    for _ in range(3):
        function()
    torch.cuda.synchronize(device)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        function()
        calls += 1
        if calls % 4 == 0:
            torch.cuda.synchronize(device)
    torch.cuda.synchronize(device)
    return calls / (time.perf_counter() - began)


def prepared(images: Tensor, spacing: Tensor, modality: str) -> tuple[Tensor, Tensor, Tensor]:
    """Slices (N,H,W) on a device -> what the network takes, on the same device."""
    views = torch.stack([slice_views(image, modality) for image in images])
    is_mr = torch.full((len(images),), modality == "MR", device=images.device)
    return (channels(views, is_mr), measure(images, spacing.expand(len(images), -1), modality).vector,
            torch.zeros(len(images), 4, dtype=torch.long, device=images.device))


def on_card(model: Model, volume: Volume, slices: list[Tensor], device: str) -> dict[str, Any]:
    """Figures of one card."""
    network = model.network.to(device)
    images, spacing = torch.stack(slices).to(device), torch.tensor([volume.spacing_mm], device=device)
    with torch.inference_mode():
        preparing = per_second(lambda: prepared(images, spacing, volume.modality), device)
        whole = per_second(lambda: network(*prepared(images, spacing, volume.modality)), device)
        one = prepared(images, spacing, volume.modality)
        many = tuple(part.repeat(SERIES, *[1] * (part.dim() - 1)) for part in one)
        with FlopCounterMode(display=False) as counter:
            network(*one)
        with torch.autocast("cuda", torch.bfloat16):
            batches = per_second(lambda: network(*many), device)
        factor = torch.randn(MATRIX, MATRIX, device=device, dtype=torch.bfloat16)
        peak = per_second(lambda: factor @ factor, device) * 2 * MATRIX ** 3
    rate = counter.get_total_flops() * SERIES * batches
    model.network.cpu()
    return {"name": torch.cuda.get_device_name(device), "preprocessing_seconds": round(1 / preparing, 5), "series_per_second": round(whole, 1),
            "batch": SERIES * len(slices), "network_series_per_second": round(SERIES * batches, 1), "tflops": round(rate / 1e12, 3),
            "peak_tflops": round(peak / 1e12, 1), "peak_is": f"bf16 product of {MATRIX} x {MATRIX} matrices on this card",
            "share_of_peak": round(rate / peak, 5), "gflop_per_series": round(counter.get_total_flops() / 1e9, 2)}
