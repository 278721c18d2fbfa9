"""The physics of each degradation: what the severity says is what the image shows (references are in the modules)."""

from __future__ import annotations

import math
import time

import pytest
import torch

from qa_engine.measures.acquired import acquired_limits, band, on_acquired_matrix
from qa_engine.measures.noise import acquired_noise, calm_noise
from qa_engine.measures.tissue import rms, smooth, tissue_mask
from qa_engine.simulation.degradations import KINDS, degrade
from qa_engine.training.ladder import zero_filled

SPACING = torch.tensor([[0.8, 0.8]])
AMOUNTS = {"CT": {"noise": 20.0, "blur": 2.0, "streak": 20.0, "dose": 0.3, "ring": 20.0, "motion": 20.0, "metal": 20.0, "cupping": 20.0,
                  "kernel": 1.6},
           "PT": {"counts": 5.0},
           "MR": {"noise": 0.05, "blur": 2.0, "motion": 0.05, "coils": 0.05, "lowfield": 0.3, "ghost": 0.1, "undersampling": 0.05, "wrap": 0.2,
                  "spike": 0.3, "gibbs": 0.5, "bias": 2.0}}


def body(modality: str, size: int = 192, seed: int = 0) -> torch.Tensor:
    """(1,size,size): an oval of soft tissue with organs, smooth inside, a little noise; HU or signal."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    inside = ((x / 0.8) ** 2 + (y / 0.65) ** 2 < 1).float()
    organ = ((x - 0.25) ** 2 + (y / 0.9) ** 2 < 0.09).float() - 0.5 * ((x + 0.4) ** 2 + y ** 2 < 0.04).float()
    grain = torch.randn(1, size, size, generator=torch.Generator().manual_seed(seed))
    if modality == "CT":
        return (smooth((-1000 + inside * (1040 + 60 * organ))[None], 3) + 3 * grain).round()
    return (smooth((inside * (600 + 250 * organ))[None], 3) + 4 * grain * inside).clamp(min=0).round() + 1


@pytest.mark.parametrize(("modality", "kind"), KINDS)
def test_a_batch_of_oblong_slices_each_with_its_own_severity(modality: str, kind: str) -> None:
    """Nothing of one slice depends on its neighbours in the batch but the random draws."""
    images = body(modality, 192).repeat(2, 1, 1)[:, 20:170]
    low, high = AMOUNTS[modality][kind], AMOUNTS[modality][kind] * (0.7 if kind in ("dose", "lowfield", "gibbs") else 1.5)
    changed, damage = degrade(kind, images, SPACING.repeat(2, 1), torch.tensor([low, high]), generator(), modality)
    assert changed.shape == images.shape and bool(changed.isfinite().all())
    for name in ("noise_sd", "width_mm", "artefact", "bias"):
        one, two = getattr(damage, name)
        assert (one.shape, one.dtype) == ((), torch.float32)
        assert kind in ("ghost", "wrap", "spike") or two >= one


@pytest.mark.parametrize(("modality", "kind"), KINDS)
def test_a_slice_of_512_pixels_takes_less_than_four_tenths_of_a_second_of_one_core(modality: str, kind: str) -> None:
    image, severity = body(modality, 512), torch.tensor([AMOUNTS[modality][kind]])
    degrade(kind, image, SPACING, severity, generator(), modality)  # geometry is kept from the first time on
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for seed in range(3):
            before = time.process_time()
            degrade(kind, image, SPACING, severity, generator(seed), modality)
            seconds.append(time.process_time() - before)
    finally:
        torch.set_num_threads(threads)
    assert min(seconds) < 0.4, seconds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("modality", "kind"), KINDS)
def test_on_the_graphics_card_the_same_damage_is_told(modality: str, kind: str) -> None:
    """Random numbers differ between devices: amounts agree, pixels do not; the same seed gives the same picture to rounding."""
    image, severity = body(modality).repeat(4, 1, 1), torch.full((4,), AMOUNTS[modality][kind])
    _, here = degrade(kind, image, SPACING.repeat(4, 1), severity, generator(), modality)
    found = [degrade(kind, image.cuda(), SPACING.repeat(4, 1).cuda(), severity.cuda(), torch.Generator("cuda").manual_seed(3), modality) for _ in range(2)]
    (one, damage), (two, _) = found
    assert one.is_cuda and damage.artefact.is_cuda and float((one - two).abs().mean()) < 1e-2
    for name in ("noise_sd", "width_mm", "artefact", "bias"):
        assert float(getattr(damage, name).mean()) == pytest.approx(float(getattr(here, name).mean()), rel=0.6 if name == "artefact" else 0.1, abs=1e-6)


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("modality", "kind"), KINDS)
def test_every_kind_is_seeded_reports_what_it_did_and_stays_finite(modality: str, kind: str) -> None:
    image = body(modality)
    severity = torch.tensor([AMOUNTS[modality][kind]])
    one, damage = degrade(kind, image, SPACING, severity, generator(), modality)
    two, _ = degrade(kind, image, SPACING, severity, generator(), modality)
    other, _ = degrade(kind, image, SPACING, severity, generator(8), modality)
    assert torch.equal(one, two) and bool(one.isfinite().all()) and not torch.equal(one, image)
    assert kind in ("blur", "cupping", "gibbs", "kernel") or not torch.equal(one, other)
    told = [name for name, values in damage.numpy().items() if name != "signal" and values[0] != (1.0 if name == "bias" else 0.0)]
    assert told == {"bias": ["bias"], "gibbs": ["width_mm", "artefact"], "blur": ["width_mm"]}.get(
        kind, ["noise_sd"] if kind in ("noise", "dose", "coils", "lowfield", "kernel", "counts") else ["artefact"])
    with pytest.raises(ValueError, match="there are"):
        degrade("wrap" if modality == "CT" else "streak", image, SPACING, severity, generator(), modality)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_identity_changes_nothing(modality: str) -> None:
    image = body(modality)
    assert torch.equal(degrade("identity", image, SPACING, torch.zeros(1), generator(), modality)[0], image)


@pytest.mark.parametrize("hu", [8.0, 25.0, 70.0])
def test_ct_noise_has_the_stated_deviation_inside_tissue(hu: float) -> None:
    image = body("CT")
    noisy, _ = degrade("noise", image, SPACING, torch.tensor([hu]), generator(), "CT")
    assert float(rms(noisy - image, tissue_mask(image, "CT"))) == pytest.approx(hu, rel=0.03)


def test_ct_noise_is_stronger_where_rays_are_attenuated_more() -> None:
    image = body("CT")
    added = degrade("noise", image, SPACING, torch.tensor([30.0]), generator(), "CT")[0] - image
    centre, edge = added[0, 80:112, 80:112].std(), added[0, 90:102, 28:40].std()
    assert centre > 1.1 * edge


@pytest.mark.parametrize("share", [0.03, 0.08])
def test_mr_noise_is_rician(share: float) -> None:
    """Air becomes Rayleigh with mean 1.2533 sigma, tissue keeps a normal deviation and gains sigma^2 / (2 signal) (Gudbjartsson 1995)."""
    image = torch.zeros(1, 192, 192) + 1e-3
    image[0, 40:150, 40:150] = 500.0
    noisy, damage = degrade("noise", image + torch.rand(image.shape, generator=generator(1)) * 1e-3, SPACING, torch.tensor([share]), generator(), "MR")
    sigma = float(damage.noise_sd)
    assert sigma == pytest.approx(share * 500.0, rel=0.02)
    air, tissue = noisy[0, :30], noisy[0, 50:140, 50:140]
    assert float(air.mean()) == pytest.approx(1.2533 * sigma, rel=0.03)
    assert float(tissue.std()) == pytest.approx(sigma, rel=0.04)
    assert float(tissue.mean()) - 500.0 == pytest.approx(sigma ** 2 / 1000.0, abs=3 * sigma / math.sqrt(tissue.numel()))


@pytest.mark.parametrize("fwhm", [1.5, 3.0, 5.0])
def test_blur_spreads_a_point_by_its_width_and_keeps_the_energy(fwhm: float) -> None:
    image = torch.zeros(1, 129, 129) + torch.rand(1, 129, 129, generator=generator(1)) * 1e-3
    image[0, 64, 64] = 1000.0
    soft, _ = degrade("blur", image, torch.tensor([[0.5, 0.5]]), torch.tensor([fwhm]), generator(), "MR")
    assert float(soft.sum()) == pytest.approx(float(image.sum()), rel=0.01)
    near, place = soft[0, 44:85, 44:85], (torch.arange(41) - 20) * 0.5
    spread = ((near.sum(0) * place.square()).sum() / near.sum()).sqrt()
    assert float(spread) * 2.3548 == pytest.approx(fwhm, rel=0.06)


@pytest.mark.parametrize("hu", [10.0, 40.0])
def test_streaks_have_the_stated_amount_and_direction(hu: float) -> None:
    image = body("CT")
    changed, damage = degrade("streak", image, SPACING, torch.tensor([hu]), generator(), "CT")
    assert float(rms(changed - image, tissue_mask(image, "CT"))) == pytest.approx(hu, rel=0.05) and float(damage.artefact) == pytest.approx(hu)


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_motion_error_is_met_and_lies_along_the_phase_direction(share: float) -> None:
    image = body("MR")
    moved, damage = degrade("motion", image, SPACING, torch.tensor([share]), generator(), "MR")
    mask = tissue_mask(image, "MR")
    assert float(rms(moved - image, mask) / damage.signal) == pytest.approx(share, rel=0.2)
    error = torch.fft.fft2(moved - image).abs().square()[0]
    # k-space lines of rows are replaced: the unmoved centre stays nearly untouched, whatever the column frequency
    rows = error.sum(1)
    assert float(rows[0]) < float(rows[6:40].max())


def test_zero_filled_images_are_recognised_and_noise_stays_in_the_acquired_band() -> None:
    image = body("MR", 160) * 1.0
    filled = zero_filled(image)
    assert acquired_limits(image).tolist() == [[1.0, 1.0]]
    limits = acquired_limits(filled)
    assert torch.allclose(limits, torch.full((1, 2), 0.5), atol=0.06)
    noisy, _ = degrade("noise", filled, SPACING / 2, torch.tensor([0.05]), generator(), "MR")
    outside = 1 - band(limits + 0.05, (320, 320))
    added = torch.fft.fft2(noisy - filled).abs().square()
    assert float((added * outside).sum() / added.sum()) < 0.1
    back = on_acquired_matrix(filled[0], torch.tensor([0.5, 0.5]))
    assert back.shape == (160, 160) and float((back - image[0]).abs().mean()) < 2.0


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_calm_noise_reads_added_noise_also_on_a_filled_matrix(share: float) -> None:
    image = body("MR", 256)
    noisy, damage = degrade("noise", image, SPACING, torch.tensor([share]), generator(), "MR")
    mask = tissue_mask(noisy, "MR")
    wanted = math.hypot(float(damage.noise_sd), 4.0)
    assert float(calm_noise(noisy, mask)) == pytest.approx(wanted, rel=0.12)
    filled = zero_filled(noisy)
    assert float(acquired_noise(filled, tissue_mask(filled, "MR"))[0]) == pytest.approx(wanted, rel=0.2)
    assert float(calm_noise(filled, tissue_mask(filled, "MR"))) < 0.6 * wanted  # the finest band is empty there


def test_damage_of_two_steps_adds_in_quadrature() -> None:
    image = body("CT")
    _, one = degrade("noise", image, SPACING, torch.tensor([30.0]), generator(), "CT")
    _, two = degrade("noise", image, SPACING, torch.tensor([40.0]), generator(), "CT")
    assert float(one.then(two).noise_sd) == pytest.approx(50.0)
    _, soft = degrade("blur", image, SPACING, torch.tensor([3.0]), generator(), "CT")
    assert float(one.then(soft).noise_sd) == pytest.approx(30.0)  # a blur hides noise, but it still counts
