"""The physics of another kernel, thicker slices and fewer counts."""

from __future__ import annotations

import math

import pytest
import torch

from qa_engine.measures.noise import local_std, noise_mode
from qa_engine.measures.tissue import rms, tissue_mask
from qa_engine.simulation.degradations import degrade
from qa_engine.simulation.degradations.ct_kernel import roll_off
from qa_engine.simulation.degradations.texture import FAMILY, full_mean, member_texture, spectrum_frequencies
from qa_engine.simulation.degradations.thickness import thicker
from qa_engine.simulation.patient_pet import activity
from tests.simulation.test_degradations import body, generator

SPACING = torch.tensor([[0.7, 0.7]])


def textured(member: int, noise: float = 10.0, size: int = 256, seed: int = 2) -> torch.Tensor:
    """A water square in air as the kernel of one member of the texture family shows it, noise and edges, HU."""
    white = torch.randn(1, size, size, generator=generator(seed))
    grain = torch.fft.irfft2(torch.fft.rfft2(white) * member_texture(torch.tensor([member]), (size, size), SPACING), s=(size, size))
    image = torch.full((1, size, size), -1000.0)
    image[:, 40:216, 40:216] = 0.0
    fy, fx = spectrum_frequencies((size, size), SPACING)
    seen = roll_off(torch.hypot(fy, fx) * 2 * 0.7, torch.tensor([FAMILY[member]]))
    return torch.fft.irfft2(torch.fft.rfft2(image) * seen, s=(size, size)) + noise * grain


def edge_width(image: torch.Tensor) -> float:
    """Distance in mm between 25 % and 75 % of the mean edge of the square over that of a Gaussian of 1 mm."""
    profile = image[0, 70:186, 20:60].mean(0) / 1000.0 + 1.0
    places = []
    for level in (0.25, 0.75):
        k = int((profile > level).float().argmax())
        places.append(k - float((profile[k] - level) / (profile[k] - profile[k - 1])))
    return (places[1] - places[0]) * 0.7 / 0.5728


@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.85])
def test_a_softer_kernel_widens_edges_by_what_it_says_and_keeps_the_mean(ratio: float) -> None:
    image = textured(13, noise=2.0)
    soft, damage = degrade("kernel", image, SPACING, torch.tensor([ratio]), generator(), "CT")
    assert float(damage.noise_sd) == 0.0
    assert math.sqrt(edge_width(soft) ** 2 - edge_width(image) ** 2) == pytest.approx(float(damage.width_mm), rel=0.2)
    assert float(soft[0, 90:160, 90:160].mean()) == pytest.approx(float(image[0, 90:160, 90:160].mean()), abs=0.5)
    assert float(noise_mode(soft, tissue_mask(soft, "CT"))) < float(noise_mode(image, tissue_mask(image, "CT")))


@pytest.mark.parametrize("ratio", [1.2, 1.6, 2.5])
def test_a_sharper_kernel_narrows_edges_and_amplifies_noise_as_it_says(ratio: float) -> None:
    image = textured(4)
    sharp, damage = degrade("kernel", image, SPACING, torch.tensor([ratio]), generator(), "CT")
    inner = (slice(None), slice(80, 176), slice(80, 176))
    before, after = float(image[inner].std()), float(sharp[inner].std())
    assert after > 1.1 * before and edge_width(sharp) < edge_width(image) and float(damage.width_mm) == 0.0
    assert math.hypot(before, float(damage.noise_sd)) == pytest.approx(after, rel=0.15)


def test_there_and_back_is_nearly_the_same_kernel() -> None:
    image = textured(13, noise=2.0)
    soft, _ = degrade("kernel", image, SPACING, torch.tensor([0.7]), generator(), "CT")
    again, _ = degrade("kernel", soft, SPACING, torch.tensor([1 / 0.7]), generator(), "CT")
    assert edge_width(again) < 0.85 * edge_width(soft)


def test_thicker_slices_are_calmer_and_smear_what_lies_across() -> None:
    stack = torch.cat([body("CT", seed=k) for k in range(7)]) + 10 * torch.randn(7, 192, 192, generator=generator())
    thick, damage = thicker(stack, 4, "CT")
    assert thick.shape == (4, 192, 192)
    mask = tissue_mask(thick, "CT")
    assert float(noise_mode(thick, mask).mean()) == pytest.approx(float(noise_mode(stack[:4], mask).mean()) / 2, rel=0.08)  # root of 4
    assert float(damage.artefact.max()) < 3.0  # the same anatomy in all slices: noise alone is no partial volume
    for k in range(7):
        stack[k, 60:130, 40 + 12 * k:60 + 12 * k] += 80.0  # a vessel that runs across
    _, crossed = thicker(stack, 4, "CT")
    assert bool((crossed.artefact > 10.0).all())
    with pytest.raises(ValueError, match="cannot be one"):
        thicker(stack, 8, "CT")


def pet() -> tuple[torch.Tensor, torch.Tensor]:
    image, pixel = activity(0)
    return image[None], torch.tensor([[pixel, pixel]])


@pytest.mark.parametrize("factor", [2.0, 4.0, 16.0])
def test_fewer_counts_add_noise_by_the_root_of_what_is_lost(factor: float) -> None:
    image, spacing = pet()
    mask = tissue_mask(image, "PT")
    own = min(max(float(local_std(image, 7)[mask].quantile(0.2)) / float(image[mask].median()), 0.03), 0.15) * float(image[mask].median())
    found = [degrade("counts", image, spacing, torch.tensor([factor]), generator(s), "PT") for s in range(4)]
    added = sum(float(d.noise_sd) for _, d in found) / 4
    assert added == pytest.approx(own * math.sqrt(factor - 1), rel=0.15)
    changed, damage = found[0]
    assert float(rms(changed - image, mask)) == pytest.approx(float(damage.noise_sd), rel=0.05 if factor < 10 else 0.1) and float(changed.min()) >= 0


def test_all_counts_change_nothing_and_noise_is_smooth_and_follows_the_activity() -> None:
    image, spacing = pet()
    same, damage = degrade("counts", image, spacing, torch.tensor([1.0]), generator(), "PT")
    assert torch.allclose(same, image, atol=1e-2) and float(damage.noise_sd) < 1e-3
    noise = degrade("counts", image, spacing, torch.tensor([10.0]), generator(), "PT")[0] - image
    hot, cold = (image > image.quantile(0.95))[0], ((image > 200) & (image < image.quantile(0.7)))[0]
    assert float(noise[0][hot].std()) > 1.5 * float(noise[0][cold].std())
    power = torch.fft.rfft2(noise).abs().square()
    f = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.rfftfreq(128)[None]) / float(spacing[0, 0])
    fine = full_mean(power * (f > 0.12), 128) / full_mean(power, 128)
    assert float(fine) < 0.05  # the post filter of 6 mm lets nothing finer through
