"""The physics of MR artefacts: ghosts, folds, stripes and ringing where k-space says that they are, and as strong."""

from __future__ import annotations

import math

import pytest
import torch

from qa_engine.measures.tissue import rms, smooth, tissue_mask
from qa_engine.simulation.degradations import degrade
from qa_engine.simulation.degradations.mr_ghosts import modulation
from qa_engine.simulation.degradations.mr_kspace import Lines, complex_object
from qa_engine.simulation.degradations.mr_wrap import extent
from tests.simulation.test_degradations import SPACING, body, generator

GRAIN = 1e-3


def block(size: int = 192, half: int = 20) -> torch.Tensor:
    """A bright square in the middle of air; a grain keeps the air from being taken for padding."""
    image = GRAIN * torch.rand(1, size, size, generator=generator(1))
    image[:, size // 2 - half:size // 2 + half, size // 2 - half:size // 2 + half] += 1000.0
    return image


@pytest.mark.parametrize("phase_degrees", [5.0, 20.0, 40.0])
def test_a_phase_between_odd_and_even_lines_ghosts_by_the_tangent_of_half_of_it(phase_degrees: float) -> None:
    ratio = math.tan(math.radians(phase_degrees) / 2)
    number = (torch.fft.fftfreq(192) * 192).round()[None, :, None]
    factor = modulation(number, torch.tensor(ratio), torch.tensor(2.0), torch.tensor(0.7))
    assert float((factor[0, 0, 0] / factor[0, 1, 0]).angle().abs()) == pytest.approx(math.radians(phase_degrees), rel=1e-4)
    image = torch.zeros(1, 192, 192)
    image[0, 30:50, 80:100] = 1.0
    ghosted = torch.fft.ifft2(torch.fft.fft2(image) * factor).abs()[0]
    assert float(ghosted[126:146, 80:100].mean()) == pytest.approx(ratio, rel=1e-3)
    assert float(ghosted[30:50, 80:100].mean()) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(("period", "ratio"), [(4.0, 0.05), (8.0, 0.15), (6.0, 0.3)])
def test_periodic_motion_ghosts_at_the_field_of_view_over_the_period(period: float, ratio: float) -> None:
    number = (torch.fft.fftfreq(192) * 192).round()[None, :, None]
    factor = modulation(number, torch.tensor(ratio), torch.tensor(period), torch.tensor(0.4))
    image = torch.zeros(1, 192, 192)
    image[0, 90:100, 80:100] = 1.0
    ghosted = torch.fft.ifft2(torch.fft.fft2(image) * factor).abs()[0]
    away = round(192 / period)
    assert float(ghosted[90 + away:100 + away, 80:100].mean()) == pytest.approx(ratio, rel=0.03)
    assert float(ghosted[90:100, 80:100].mean()) == pytest.approx(1.0, rel=1e-2)


def test_ghosts_lie_along_one_axis_only_and_outside_the_object() -> None:
    image = block()
    error = torch.stack([degrade("ghost", image, SPACING, torch.tensor([0.2]), generator(s), "MR")[0][0] for s in range(12)]) - image
    for one in error:
        down, across = one[:70, 80:112].abs().mean() + one[122:, 80:112].abs().mean(), one[80:112, :70].abs().mean() + one[80:112, 122:].abs().mean()
        assert max(down, across) > 20.0 > 0.2 > min(down, across)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.15])
def test_undersampling_error_is_met_and_lies_along_one_axis(share: float) -> None:
    image = body("MR")
    mask = tissue_mask(image, "MR")
    for seed in range(4):
        changed, damage = degrade("undersampling", image, SPACING, torch.tensor([share]), generator(seed), "MR")
        assert float(rms(changed - image, mask) / damage.signal) == pytest.approx(share, rel=0.15)
        assert float(damage.artefact / damage.signal) == pytest.approx(share, rel=1e-3)


def test_undersampling_keeps_the_centre_and_the_lines_it_keeps() -> None:
    from qa_engine.simulation.degradations.mr_undersampling import kept_lines

    image = body("MR")
    lines = Lines.drawn(image, generator(2))
    random = torch.rand(1, 192, 1, generator=generator(3)).expand(1, 192, 192)
    random = torch.where(lines.rows, random, random.transpose(1, 2))
    for share in (0.2, 0.5, 0.8):
        for regular in (True, False):
            kept = kept_lines(lines, torch.full((1, 1, 1), share), random, torch.tensor([[[regular]]]), torch.full((1, 1, 1), 0.3))
            per_line = kept.float().mean(2 if bool(lines.rows) else 1)[0]
            assert set(per_line.tolist()) <= {0.0, 1.0}
            assert float(per_line.mean()) == pytest.approx(share + 0.08 * (1 - share), abs=0.08)
            assert bool(kept[lines.number.abs() < 7].all())


def test_wrap_puts_the_far_end_of_the_object_over_the_near_one() -> None:
    image = block(half=60)
    image[:, :, 100:140] *= 0.5
    changed, damage = degrade("wrap", image, SPACING, torch.tensor([0.25]), generator(5), "MR")
    rows = bool(Lines.drawn(image, generator(5)).rows)
    middle, length = extent(image, torch.tensor([1000.0]), Lines.drawn(image, generator(5)))
    assert float(length) == pytest.approx(120, abs=4) and float(middle) == pytest.approx(95.5, abs=1)
    field = round(float(length) * 0.75)
    first = round(float(middle) - field / 2)
    seen, source = (changed[0], image[0]) if rows else (changed[0].T, image[0].T)
    assert float(seen[:first - 2].max()) == float(seen[first + field + 3:].max()) == pytest.approx(float(image.min()), abs=1e-6)  # padding
    alone = slice(first + 20, first + field - 20)
    assert torch.allclose(seen[alone, 60:132], source[alone, 60:132], atol=15.0)
    folded = slice(first + 2, first + 10)
    there = source[first + 2 + field:first + 10 + field]
    low, high = (source[folded] - there).abs(), source[folded] + there  # two signals of unknown phase
    assert bool((seen[folded] >= low - 20).all() and (seen[folded] <= high + 20).all())
    assert float((seen[folded] - source[folded])[:, 70:120].abs().mean()) > 50.0 and float(damage.artefact) > 50.0


def test_a_spike_is_one_frequency_all_over_the_picture() -> None:
    image = block(half=60)
    largest = float(torch.fft.fft2(image).abs().max())
    for seed in range(5):
        seen = complex_object(image, generator(seed))
        changed, damage = degrade("spike", image, SPACING, torch.tensor([0.2]), generator(seed), "MR")
        # the magnitude shows the real part along the object's phase: stripes of the same size wherever there is signal
        amplitude = 0.2 * float(torch.fft.fft2(seen).abs().max()) / image[0].numel()
        assert largest / image[0].numel() < 500 and 0.2 < float(damage.artefact) / amplitude < 1.1
        air = changed[0, :20, :20]
        assert float(air.mean()) > 0.15 * amplitude


@pytest.mark.parametrize("kept", [0.4, 0.6, 0.8])
def test_gibbs_overshoots_an_edge_by_nine_percent_and_leaves_a_smooth_body_alone(kept: float) -> None:
    image = block(256, 60)
    changed, damage = degrade("gibbs", image, SPACING, torch.tensor([kept]), generator(), "MR")
    profile = changed[0, 128, 60:196]
    assert 1.04 < float(profile.max()) / 1000.0 < 1.12
    spectrum = torch.fft.fft2(changed - 0.0).abs()[0]
    line = torch.fft.fftfreq(256).abs()
    assert float(spectrum[0, line > 0.5 * kept + 0.06].max()) < 0.02 * float(spectrum[0, 1:10].max())
    assert float(damage.width_mm) == pytest.approx(1.207 * 0.8 * math.sqrt(1 / kept ** 2 - 1), rel=0.01)


@pytest.mark.parametrize("ratio", [1.3, 2.0, 4.0])
def test_bias_has_the_stated_ratio_inside_tissue_and_is_smooth(ratio: float) -> None:
    image = body("MR")
    changed, damage = degrade("bias", image, SPACING, torch.tensor([ratio]), generator(), "MR")
    mask = tissue_mask(image, "MR")
    gain = smooth(changed / image.clamp(min=1), 3)[mask]
    assert float(gain.max() / gain.min()) == pytest.approx(ratio, rel=0.05) and float(damage.bias) == pytest.approx(ratio)
    fine = (changed / image.clamp(min=1) - smooth(changed / image.clamp(min=1), 5))[mask]
    assert float(fine.std()) < 0.02 * ratio
    assert float(damage.then(damage).bias) == pytest.approx(ratio ** math.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_low_field_lowers_the_signal_to_noise_ratio_by_its_power(share: float) -> None:
    image = 500.0 + 10.0 * torch.randn(1, 256, 256, generator=generator(1))
    changed, _ = degrade("lowfield", image, SPACING, torch.tensor([share]), generator(), "MR")
    assert float(changed.std()) / float(image.std()) == pytest.approx(share ** -0.97, rel=0.08)


@pytest.mark.parametrize("seed", range(4))
def test_coils_noise_is_non_central_chi(seed: int) -> None:
    """In the air the mean square is 2 L sigma^2 (Constantinides 1997), in tissue the deviation per channel is the stated one."""
    image = block(192, 40)
    changed, damage = degrade("coils", image, SPACING, torch.tensor([0.05]), generator(seed), "MR")
    sigma = float(damage.noise_sd)
    assert float((changed - image)[0, 60:132, 60:132].std()) == pytest.approx(sigma, rel=0.06) and sigma == pytest.approx(50.0, rel=0.02)
    air = changed[0, 2:30, 2:30]
    count = float(air.square().mean()) / 2 / float((changed - image)[0, 60:70, 60:70].var())  # the corner of the g-factor is calmer
    assert 1.0 < count < 9.0
    assert float(air.mean()) > 1.5 * sigma * 0.6  # a floor that Rician noise of one coil does not reach
