"""The physics of CT artefacts: where each of them lies, what it follows, and how much there is of it."""

from __future__ import annotations

import pytest
import torch

from qa_engine.measures.tissue import rms, smooth, tissue_mask
from qa_engine.simulation.ct_projection import back_project, filter_projections, project
from qa_engine.simulation.degradations import degrade
from qa_engine.simulation.degradations.ct_dose import ELECTRONIC, WATER_PER_MM, less_dose
from qa_engine.simulation.degradations.ct_hardening import corrected, seen
from qa_engine.simulation.degradations.ct_rings import radial_profile
from tests.simulation.test_degradations import SPACING, body, generator


def added(kind: str, severity: float, image: torch.Tensor, seed: int = 7, spacing: torch.Tensor = SPACING) -> torch.Tensor:
    return degrade(kind, image, spacing, torch.tensor([severity]), generator(seed), "CT")[0] - image


def water(size: int = 256, radius: float = 100.0, noise: float = 6.0) -> torch.Tensor:
    """A water disc in air with a little white noise, HU."""
    y, x = torch.meshgrid(torch.arange(size) - (size - 1) / 2, torch.arange(size) - (size - 1) / 2, indexing="ij")
    disc = smooth((torch.hypot(x, y) < radius).float()[None], 3) * 1000.0 - 1000.0
    return disc + noise * torch.randn(disc.shape, generator=generator(1))


@pytest.mark.parametrize("kind", ["ring", "motion", "cupping", "metal"])
@pytest.mark.parametrize("hu", [8.0, 30.0])
def test_the_error_inside_tissue_is_the_stated_one(kind: str, hu: float) -> None:
    image = body("CT")
    changed, damage = degrade(kind, image, SPACING, torch.tensor([hu]), generator(), "CT")
    mask = tissue_mask(image, "CT") & (changed < 1500) & (smooth((changed > 1500).float(), 9) == 0)
    assert float(rms(changed - image, mask)) == pytest.approx(hu, rel=0.15) and float(damage.artefact) == pytest.approx(hu)


def test_rings_depend_on_the_distance_from_the_rotation_centre_alone() -> None:
    error = added("ring", 30.0, water(noise=0.1))[0]
    y, x = torch.meshgrid(torch.arange(256) - 127.5, torch.arange(256) - 127.5, indexing="ij")
    best = 0.0
    # the centre lies within 5 mm of the middle: somewhere there the mean over each circle explains nearly everything
    for dy in torch.arange(-7, 7.1, 0.5):
        for dx in torch.arange(-7, 7.1, 0.5):
            radius = torch.hypot(y - dy, x - dx)
            inside = (radius > 8) & (radius < 80)
            place, value = (radius[inside] * 2).long(), error[inside]
            mean = torch.zeros(200).index_add_(0, place, value) / torch.bincount(place, minlength=200).clamp(min=1)
            best = max(best, 1 - float((value - mean[place]).square().mean() / value.var()))
    assert best > 0.9


def test_one_faulty_channel_reconstructs_to_the_ring_of_filtered_back_projection() -> None:
    """The profile method against the exact projector: a channel's error, alike in all views, back-projected."""
    channel = 40
    sinogram = torch.zeros(1, 1440, 257)
    sinogram[:, :, 128 + channel] = 1.0
    exact = back_project(filter_projections(sinogram, "hann"), 257)[0]
    gain = torch.zeros(1, 1024)
    gain[0, channel] = 1.0
    profile = radial_profile(gain, torch.zeros(1), 100)[0, ::2]
    # half a turn of the exact projector sees the channel on one side only: both sides are averaged
    assert torch.allclose(profile[4:80], 0.5 * (exact[128, 132:208] + exact[128].flip(0)[132:208]), atol=0.02 * float(exact.abs().max()))
    assert int(profile[5:].argmax()) + 5 in (39, 40, 41)


def test_motion_makes_views_that_do_not_fit_and_leaves_the_mean() -> None:
    image = body("CT")
    error = added("motion", 30.0, image)
    mask = tissue_mask(image, "CT")
    assert abs(float(error[mask].mean())) < 6.0
    edge = smooth((smooth(image, 3) - smooth(image, 9)).abs(), 5)
    strong = mask & (edge > edge[mask].median())
    assert float(rms(error, strong)) > float(rms(error, mask & ~strong))  # what moves is seen at edges
    assert float(rms(error, image < -900)) > 3.0  # and streaks leave the body


def test_cupping_is_dark_in_the_middle() -> None:
    """The published water correction leaves nothing of water; a scanner that corrects in part leaves a cup."""
    lengths = torch.tensor([10.0, 100.0, 300.0, 500.0])
    assert torch.allclose(corrected(seen(lengths, torch.zeros(4))), lengths, rtol=0.01)
    error = smooth(added("cupping", 20.0, water(), spacing=torch.tensor([[1.2, 1.2]])), 9)[0]
    middle, border = float(error[120:136, 120:136].mean()), float(error[120:136, 40:52].mean())
    assert middle < -10 and border > 5
    profile = error[128, 128:215].unfold(0, 12, 12).mean(1)
    assert bool((profile[1:] > profile[:-1] - 1.0).all())


def test_bone_leaves_a_dark_band_between_dense_bones() -> None:
    image = water()
    y, x = torch.meshgrid(torch.arange(256) - 127.5, torch.arange(256) - 127.5, indexing="ij")
    for side in (-50, 50):
        image[0][torch.hypot(x - side, y) < 18] = 1200.0
    error = sum(added("cupping", 20.0, image, seed)[0] for seed in range(3)) / 3
    assert float(error[124:132, 115:141].mean()) < float(error[60:76, 115:141].mean()) - 10.0


def test_metal_streaks_run_between_the_discs_and_the_discs_are_at_the_top_of_the_scale() -> None:
    image = water()
    changed = degrade("metal", image, SPACING, torch.tensor([30.0]), generator(3), "CT")[0]
    assert float(changed.max()) == pytest.approx(3071.0, abs=1)
    error = (changed - image)[0]
    discs = (changed[0] > 2000).nonzero().float()
    near = torch.cdist(torch.stack(torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij"), 2).reshape(-1, 2), discs).amin(1).reshape(256, 256)
    inside = torch.hypot(*(torch.meshgrid(torch.arange(256) - 127.5, torch.arange(256) - 127.5, indexing="ij"))) < 90
    close, far = error[inside & (near > 6) & (near < 25)], error[inside & (near > 60)]
    assert float(close.std()) > 1.5 * float(far.std()) and float(far.std()) > 1.0  # rays from the metal, weaker with distance, but through the body


@pytest.mark.parametrize("fraction", [0.75, 0.5, 0.25, 0.1])
def test_inserted_noise_has_the_published_variance_and_makes_a_fresh_scan(fraction: float) -> None:
    full = torch.full((1, 400, 400), 5000.0)
    added = less_dose(full, torch.tensor(fraction), generator())
    wanted = (1 - fraction) / fraction / 5000.0 * (1 + (1 + fraction) / fraction * ELECTRONIC ** 2 / 5000.0)  # Yu 2012, Zabic 2013
    assert float(added.var()) == pytest.approx(wanted, rel=0.03)
    assert float(less_dose(full, torch.tensor(1.0), generator()).abs().max()) == 0.0
    few = less_dose(full * 1e-4, torch.tensor(fraction), generator())
    assert float(few.mean()) < -0.5  # starved rays look brighter than they are: the logarithm of at least one count


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
def test_low_dose_adds_what_a_scan_at_that_dose_has_more(fraction: float) -> None:
    """Against fresh scans of the same water disc with the exact projector, Poisson and electronic noise: total noise at a share of the dose."""
    size, photons, spacing = 256, 3.0e4, torch.tensor([[1.0, 1.0]])
    y, x = torch.meshgrid(torch.arange(size) - 127.5, torch.arange(size) - 127.5, indexing="ij")
    disc = smooth((torch.hypot(x, y) < 100).float()[None], 3)
    path = project(disc, 360) * WATER_PER_MM

    def scan(share: float, seed: int) -> torch.Tensor:
        counts = torch.poisson(photons * share * torch.exp(-path), generator=generator(seed)) + 10.0 * torch.randn(path.shape, generator=generator(seed + 50))
        value = -torch.log(counts.clamp(min=1.0) / (photons * share)) / WATER_PER_MM
        return (back_project(filter_projections(value, "cosine"), size) - 1.0) * 1000.0

    middle = torch.hypot(x, y) < 60
    fresh = float((scan(fraction, 1) - scan(fraction, 2))[0][middle].std()) / 2 ** 0.5
    full = scan(1.0, 3)
    low, damage = degrade("dose", full, spacing, torch.tensor([fraction]), generator(), "CT")
    clean = (back_project(filter_projections(path / WATER_PER_MM, "cosine"), size) - 1.0) * 1000.0
    assert float((low - clean)[0][middle].std()) == pytest.approx(fresh, rel=0.08)
    assert float(damage.noise_sd) == pytest.approx(float(rms(low - full, tissue_mask(full, "CT"))), rel=0.02)


def test_low_dose_noise_runs_along_the_rays_that_are_attenuated_most() -> None:
    """Shoulders: in a wide flat body the noise is striped along the wide direction (short correlation across, long along)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")
    flat = smooth((((x / 0.9) ** 2 + (y / 0.35) ** 2) < 1).float()[None], 3) * 1000.0 - 1000.0
    image = flat + 8 * torch.randn(flat.shape, generator=generator(2))
    noise = added("dose", 0.1, image, spacing=torch.tensor([[1.8, 1.8]]))[0, 110:146, 60:196]
    along, across = (noise[:, 3:] * noise[:, :-3]).mean() / noise.var(), (noise[3:] * noise[:-3]).mean() / noise.var()
    assert float(along) > float(across) + 0.1
