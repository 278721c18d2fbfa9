"""Rigid motion between shots: lines of k-space from the moved object, the centre of k-space from the unmoved one.

Severity is what the image shows, the root mean square error over the tissue signal, not millimetres: the same displacement does much or
nothing depending on when it happens. The displacement is scaled until the wanted error is met. The patient moves and comes back, so that most
lines are those of the unmoved object: otherwise the error would be a displacement of the picture, which nobody sees.
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
SHOTS = (4, 12)
"""Fewest and most shots of an interleaved acquisition."""
SEGMENT, LATEST = (0.03, 0.10), 0.25
"""Length of a stretch of lines, and latest start from the centre, cycles per pixel: the outermost lines show nothing of a movement."""


def _moved(image: Tensor, shift_px: Tensor, turn: Tensor) -> Tensor:
    """(B,H,W) shifted by (B,2) pixels (rows, columns) and turned by (B,) radians about the centre."""
    height, width = image.shape[1:]
    cos, sin = torch.cos(turn), torch.sin(turn)
    ratio = height / width
    theta = torch.stack([torch.stack([cos, -sin * ratio, 2.0 * shift_px[:, 1] / width], 1),
                         torch.stack([sin / ratio, cos, 2.0 * shift_px[:, 0] / height], 1)], 1)
    grid = F.affine_grid(theta, [image.shape[0], 1, height, width], align_corners=False)
    return F.grid_sample(image[:, None], grid, mode="bicubic", padding_mode="border", align_corners=False)[:, 0]


def moved_lines(height: int, events: int, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(events,B,H) bool, in the order of fft: lines taken while the object was away. Half of the slices were taken in interleaved shots, one of
    which each movement spoils, half line by line, of which it spoils a stretch."""
    order = torch.fft.fftfreq(height, device=device)
    number = torch.fft.fftshift(torch.arange(height, device=device))

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    shots = (SHOTS[0] + drawn(batch) * (SHOTS[1] + 1 - SHOTS[0])).long()
    shot = (drawn(batch) * shots).long()[None] + torch.arange(events, device=device)[:, None]
    # at most a third of the shots
    counted = torch.arange(events, device=device)[:, None] < (shots[None] / 3).clamp(min=1)
    interleaved = ((number[None, None] % shots[None, :, None]) == (shot % shots[None])[..., None]) & counted[..., None]
    start = CENTRE / 2 + drawn(events, batch) * (LATEST - CENTRE / 2)
    length = SEGMENT[0] + drawn(events, batch) * (SEGMENT[1] - SEGMENT[0])
    side = torch.where(drawn(events, batch) < 0.5, -1.0, 1.0)
    along = order[None, None] * side[..., None]
    stretch = (along >= start[..., None]) & (along < (start + length)[..., None])
    chosen = torch.where((drawn(batch) < 0.5)[None, :, None], interleaved, stretch)
    return chosen & (order.abs() >= CENTRE / 2)


def motion(image: Tensor, spacing_mm: Tensor, relative: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Two to four sudden movements and returns; the error inside tissue of (B,H,W) is `relative` (B,) of the tissue signal, within 15 %."""
    batch, height, _ = image.shape
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    wanted = relative.to(image.dtype) * signal
    events = int(torch.randint(2, 5, (1,), generator=generator, device=image.device).item())
    shift = torch.randn((events, batch, 2), generator=generator, device=image.device, dtype=image.dtype)
    turn = torch.randn((events, batch), generator=generator, device=image.device, dtype=image.dtype) * math.radians(1.0)
    lines = moved_lines(height, events, batch, generator, image.device)[..., None]
    size = torch.ones(batch, device=image.device, dtype=image.dtype)
    original = torch.fft.fft2(image)
    result, error = image, torch.zeros_like(signal)
    for _ in range(TRIES):
        spectrum = original.clone()
        for k in range(events):
            pose = torch.fft.fft2(_moved(image, shift[k] * size[:, None], turn[k] * size))
            spectrum = torch.where(lines[k], pose, spectrum)
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
