"""The noise texture of a slice: which member of a family of noise spectra looks most like it.

Noise of filtered back-projection has the power spectrum f * A(f)^2 with A the apodisation of the kernel (and of the
interpolation); the family varies cut-off and roll-off. A slice is matched by the correlations of its fine residual at
short distances inside calm tissue, which the same high-pass on each member predicts exactly.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from qa_engine.measures.tissue import masked_quantile, smooth

_LAGS = ((0, 1), (0, 2), (0, 3), (1, 1))
_HIGH_PASS = 7
# (cut-off as a share of the Nyquist frequency, exponent of the cosine roll-off); exponent 0 is a bare ramp.
FAMILY: tuple[tuple[float, float], ...] = tuple(
    (cutoff, rolloff) for cutoff in (0.35, 0.45, 0.55, 0.65, 0.8, 1.0, 1.25, 1.6) for rolloff in (0.5, 1.0, 2.0))


def spectrum_frequencies(shape: tuple[int, int], spacing_mm: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column frequencies in 1/mm, (B,H,1) and (B,1,W//2+1), of the half spectrum of rfft2."""
    height, width = shape
    fy = torch.fft.fftfreq(height, device=spacing_mm.device, dtype=torch.float32)[None, :, None]
    fx = torch.fft.rfftfreq(width, device=spacing_mm.device, dtype=torch.float32)[None, None, :]
    return fy / spacing_mm[:, 0].float()[:, None, None], fx / spacing_mm[:, 1].float()[:, None, None]


def amplitude(relative: Tensor, cutoff: Tensor, rolloff: Tensor) -> Tensor:
    """Square root of a member's noise power at `relative` frequency (1 = Nyquist)."""
    inside = (relative / cutoff).clamp(max=1.0)
    return relative.sqrt() * torch.cos(0.5 * math.pi * inside).clamp(min=0.0).pow(rolloff) * (relative < cutoff)


@functools.lru_cache(maxsize=4)
def _family_correlations(device: str) -> Tensor:
    """Correlations (members, lags) that the high-passed noise of each member has on a 128 x 128 grid."""
    size = 128
    fy = torch.fft.fftfreq(size)[:, None]
    fx = torch.fft.fftfreq(size)[None, :]
    relative = torch.hypot(fy, fx) / 0.5
    box = torch.zeros(size, size)
    box[:_HIGH_PASS, :_HIGH_PASS] = 1.0 / _HIGH_PASS ** 2
    high_pass = 1.0 - torch.fft.fft2(torch.roll(box, (-(_HIGH_PASS // 2),) * 2, (0, 1))).real
    rows = []
    for cutoff, rolloff in FAMILY:
        power = (amplitude(relative, torch.tensor(cutoff), torch.tensor(rolloff)) * high_pass).square()
        covariance = torch.fft.ifft2(power).real
        rows.append(torch.stack([covariance[lag] / covariance[0, 0] for lag in _LAGS]))
    return torch.stack(rows).to(device)


def _own_correlations(image: Tensor, mask: Tensor) -> Tensor:
    """Correlations (B, lags) of the fine residual in the calmest half of `mask`, mean of both directions."""
    residual = image - smooth(image, _HIGH_PASS)
    energy = smooth(residual.square(), _HIGH_PASS)
    inner = mask & (energy > 0)
    calm = inner & (energy <= masked_quantile(energy, inner, 0.4)[:, None, None])
    residual = residual * calm
    weight = calm.to(image.dtype)

    def product(a: Tensor, dy: int, dx: int) -> Tensor:
        height, width = a.shape[1:]
        return (a[:, :height - dy, :width - dx] * a[:, dy:, dx:]).sum((1, 2))

    variance = residual.square().sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    found = []
    for dy, dx in _LAGS:
        both = product(residual, dy, dx) + product(residual, dx, dy)
        count = product(weight, dy, dx) + product(weight, dx, dy)
        found.append(both / count.clamp(min=1) / variance.clamp(min=1e-12))
    return torch.stack(found, 1)


def own_member(image: Tensor, mask: Tensor) -> Tensor:
    """Index (B,) into FAMILY of the spectrum nearest to each slice's own texture inside `mask` (B,H,W bool)."""
    wanted = _own_correlations(image, mask)
    table = _family_correlations(str(image.device))
    return (wanted[:, None, :] - table[None]).square().sum(2).argmin(1)


def own_texture(image: Tensor, mask: Tensor, spacing_mm: Tensor) -> Tensor:
    """Amplitude spectrum (B,H,W//2+1) of each slice's own noise texture, scaled so that white noise keeps its variance."""
    return member_texture(own_member(image, mask), (image.shape[1], image.shape[2]), spacing_mm)


def member_texture(member: Tensor, shape: tuple[int, int], spacing_mm: Tensor) -> Tensor:
    """Amplitude spectrum (B,H,W//2+1) of members (B,) of FAMILY, mean power 1 over the full spectrum."""
    fy, fx = spectrum_frequencies(shape, spacing_mm)
    nyquist = 0.5 / spacing_mm.float().amin(1)[:, None, None]
    relative = torch.hypot(fy, fx) / nyquist
    family = torch.tensor(FAMILY, device=spacing_mm.device)[member]
    shaped = amplitude(relative, family[:, 0, None, None], family[:, 1, None, None])
    return shaped / full_mean(shaped.square(), shape[1]).sqrt()[:, None, None]


def full_mean(half: Tensor, width: int) -> Tensor:
    """Mean over the full spectrum of a half spectrum (B,H,W//2+1) of rfft2 for images of `width` columns -> (B,)."""
    twice = torch.full((half.shape[-1],), 2.0, device=half.device)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    return (half * twice).sum((1, 2)) / (half.shape[1] * width)


