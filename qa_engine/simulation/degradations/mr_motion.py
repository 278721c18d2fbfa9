"""Rigid motion between shots: lines of k-space from the moved object, the centre of k-space from the unmoved one.

Severity is what the image shows, the root mean square error over the tissue signal, not millimetres: the same displacement does much or
nothing depending on when it happens. The displacement is scaled until the wanted error is met.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage

CENTRE = 0.06
"""Share of the phase-encode lines around the centre that stay unmoved, so that nothing shifts as a whole."""
TRIES = 4
LARGEST_SCALE = 10.0
LATEST = 0.4
"""Share of the way to the last line by which a movement happens: the outermost lines show nothing of it."""


def _moved(image: Tensor, shift_px: Tensor, turn: Tensor) -> Tensor:
    """(B,H,W) shifted by (B,2) pixels (rows, columns) and turned by (B,) radians about the centre."""
    height, width = image.shape[1:]
    cos, sin = torch.cos(turn), torch.sin(turn)
    ratio = height / width
    theta = torch.stack([torch.stack([cos, -sin * ratio, 2.0 * shift_px[:, 1] / width], 1),
                         torch.stack([sin / ratio, cos, 2.0 * shift_px[:, 0] / height], 1)], 1)
    grid = F.affine_grid(theta, [image.shape[0], 1, height, width], align_corners=False)
    return F.grid_sample(image[:, None], grid, mode="bicubic", padding_mode="border", align_corners=False)[:, 0]


def motion(image: Tensor, spacing_mm: Tensor, relative: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Two to four sudden movements; the error inside tissue of (B,H,W) is `relative` (B,) of the tissue signal, within 15 %."""
    batch, height, _ = image.shape
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    wanted = relative.to(image.dtype) * signal
    events = int(torch.randint(2, 5, (1,), generator=generator, device=image.device).item())
    shift = torch.randn((events, batch, 2), generator=generator, device=image.device, dtype=image.dtype)
    turn = torch.randn((events, batch), generator=generator, device=image.device, dtype=image.dtype) * math.radians(1.0)
    start = LATEST * torch.rand((events, batch), generator=generator, device=image.device)
    order = torch.fft.fftfreq(height, device=image.device)
    centre = order.abs() < CENTRE / 2
    size = torch.ones(batch, device=image.device, dtype=image.dtype)
    original = torch.fft.fft2(image)
    result, error = image, torch.zeros_like(signal)
    for _ in range(TRIES):
        spectrum = original.clone()
        for k in range(events):
            pose = torch.fft.fft2(_moved(image, shift[k] * size[:, None], turn[k] * size))
            # each movement holds from its line to the end of its side of k-space
            after = (order[None] > 0.5 * start[k][:, None]) if k % 2 == 0 else (order[None] < -0.5 * start[k][:, None])
            lines = (after & ~centre[None])[:, :, None]
            spectrum = torch.where(lines, pose, spectrum)
        result = torch.fft.ifft2(spectrum).abs() if float(image.min()) >= 0 else torch.fft.ifft2(spectrum).real
        error = rms(result - image, mask)
        ratio = wanted / error.clamp(min=1e-9)
        if bool(((ratio - 1).abs() < 0.15).all()):
            break
        size = (size * ratio.clamp(0.2, 5.0)).clamp(0.02, 60.0)
    # what the movements could not reach or overshot is met by scaling the error image itself
    result = image + (result - image) * (wanted / error.clamp(min=1e-9)).clamp(max=LARGEST_SCALE)[:, None, None]
    if float(image.min()) >= 0:
        result = result.clamp(min=0)
    return finish(image, result, modality), replace(AddedDamage.none(signal), artefact=rms(result - image, mask))
