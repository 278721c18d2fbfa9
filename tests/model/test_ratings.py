"""A profile out of ratings: as a command on simulated patients, as the node then answers, and what it refuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from node.cli import app
from qa_engine import model as model_module
from qa_engine.assess import assess
from qa_engine.model import Model, load_model
from qa_engine.ratings import tuned_network
from qa_engine.simulation.dicom_series import write_sample
from qa_engine.training.rating_labels import RatingsRefused, Scale, read_labels, scale_of
from qa_engine.training.rating_map import Rated
from qa_engine.training.rating_tune import Seen, last_layers, rescored
from qa_engine.training.ratings import LEAST_TUNE, Collected, collect, fit_ratings, write_profile
from tests.support.contract import check_entry
from tests.support.series import axial, write_all

pytestmark = [pytest.mark.model]

PATIENTS = 21


def finetune(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "node", "train", "finetune", *map(str, words)], capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated heads of many signals, graded 1 to 5 by two readers after the signal; two more series that cannot be used."""
    folder, random, rows = tmp_path_factory.mktemp("site"), np.random.default_rng(0), []
    for k in range(PATIENTS):
        dose = round(float(0.1 * 40 ** (k / (PATIENTS - 1))), 3)
        info = write_sample("mr", folder / "data" / f"p{k}", dose, slices=2, size=96, seed=k)
        grades = np.clip(np.round(3.2 + np.log(dose) + random.normal(0, 0.3, 2)), 1, 5)
        rows += [(info.series_uid if k % 2 else f"p{k}", int(grade), reader) for grade, reader in zip(grades, "AB", strict=True)]
    write_all(axial(3), folder / "data" / "strange")
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("series", "score", "rater"), *rows, ("strange", 2, "A"), ("9.9.9", 3, "B")])
    return folder


@pytest.fixture(scope="module")
def made(site: Path) -> dict:
    done = finetune("--labels", site / "ratings.csv", "--data", site / "data", "--scale", 1, 5, "--out", site / "out", "--profile", "site-a", "--json")
    assert done.returncode == 0, done.stderr
    assert "SIM-MR" not in done.stdout + done.stderr and "SIMULATED" not in done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_few_dozen_ratings_make_a_profile(site: Path, made: dict) -> None:
    row = made["modalities"]["MR"]
    assert (row["patients"], row["series"], row["raters"]) == (PATIENTS, PATIENTS, 2)
    assert row["alpha"] > 0.7 and row["srcc_of_raters"] > 0.7 and row["srcc"] > 0.75 and row["error"] < row["error_before"]
    assert list(made["unreadable"]) == ["9.9.9"] and sum(made["left_out"].values()) == 1
    assert (site / "out" / "site-a.safetensors").read_bytes() == (model_module.WEIGHTS / "mediqa-compact.safetensors").read_bytes()
    card = json.loads((site / "out" / "site-a.json").read_text())
    assert card["rating"].keys() == {"MR"} and card["calibration"]["MR"]["subjects"] == PATIENTS
    assert card["calibration"]["CT"] == load_model().card["calibration"]["CT"], "no CT was rated"
    knots = np.array(card["rating"]["MR"]["knots"])
    assert (np.diff(knots[:, 0]) > 0).all() and (np.diff(knots[:, 1]) >= 0).all() and knots.min() >= 0 and knots.max() <= 100
    for file in (site / "out").iterdir():
        assert b"SIM-MR" not in file.read_bytes(), file
    table = list(csv.DictReader((site / "out" / "site-a-ratings.csv").open()))
    assert len(table) == PATIENTS == len({r["patient_digest"] for r in table})


def test_the_node_answers_in_ratings(site: Path, made: dict) -> None:
    rated, plain = load_model("site-a", site / "out"), load_model()
    assert rated.identity.version.startswith(plain.identity.version) and made["data"][:8] in rated.identity.version
    scores = {}
    for k in (0, PATIENTS // 2, PATIENTS - 1):
        files = sorted((site / "data" / f"p{k}").glob("*.dcm"))
        found, before = assess(files, model=rated), assess(files, model=plain)
        check_entry(found.to_json())
        half = made["modalities"]["MR"]["half_width"]
        assert found.score == pytest.approx(sum(s.weight * s.score for s in found.slices)) and found.noise == before.noise
        assert found.interval == pytest.approx((max(0, found.score - half), min(100, found.score + half)), abs=0.01)
        scores[k] = found.score
    table = {r["series_uid"]: r for r in csv.DictReader((site / "out" / "site-a-ratings.csv").open())}
    assert sorted(scores.values()) == list(scores.values()) and scores[0] < 30 < 60 < scores[PATIENTS - 1]
    assert abs(scores[0] - float(table[found.series_uid]["rating"])) > abs(scores[PATIENTS - 1] - float(table[found.series_uid]["rating"]))


def test_beyond_what_was_rated_is_said(site: Path, made: dict, tmp_path: Path) -> None:
    write_sample("mr", tmp_path, 10.0, slices=2, size=96, seed=99)
    found = assess(sorted(tmp_path.glob("*.dcm")), model=load_model("site-a", site / "out"))
    assert "beyond-ratings" in {f.code for f in found.findings} and "better" in next(f.text for f in found.findings if f.code == "beyond-ratings")


def test_the_profile_is_imported_and_is_no_start_for_another(site: Path, made: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "WEIGHTS", tmp_path)
    done = CliRunner().invoke(app, ["model", "import", made["weights"]])
    assert done.exit_code == 0 and load_model("site-a", tmp_path).identity.profile == "site-a"
    done = CliRunner().invoke(app, ["train", "finetune", "--labels", str(site / "ratings.csv"), "--out", str(tmp_path), "--from", "site-a"])
    assert done.exit_code == 1 and "made of ratings itself" in done.output


def test_too_few_patients_are_refused_in_one_line(site: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((site / "ratings.csv").open()))
    same = [rows[0], *([row[0], 3, row[2]] for row in rows[1:9])]
    for name, kept, said in (("few", rows[:17], "8 rated patients: below 9 no interval"), ("same", same, "the same"),
                             ("lost", [rows[0], ["5.5", 1, "A"], ["6.6", 2, "A"]], "2 unreadable")):
        file = tmp_path / f"{name}.csv"
        with file.open("w", newline="") as out:
            csv.writer(out).writerows(kept)
        done = finetune("--labels", file, "--data", site / "data", "--out", tmp_path / "out", "--quiet")
        assert done.returncode == 1 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()
    done = finetune("--labels", tmp_path / "none.csv", "--out", tmp_path)
    assert done.returncode == 2 and "no such file" in done.stderr


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model()


def seen(model: Model, patients: int, rule: str, seed: int = 0) -> list[Seen]:
    """Features that follow eight causes; the reader goes by Q alone (`quality`), or by one of the causes as well (`more`)."""
    network, random, found = model.network, torch.Generator().manual_seed(seed), []
    loading = 0.3 * torch.randn(8, last_width(model), generator=random)
    for k in range(patients):
        causes = torch.randn(1, 8, generator=random) + 0.3 * torch.randn(2, 8, generator=random)
        features = causes @ loading + 0.1 * torch.randn(2, loading.shape[1], generator=random)
        measures = network.measure_mean.repeat(2, 1) + 0.5 * network.measure_std * torch.randn(2, len(network.measure_mean), generator=random)
        measures[:, model_module.MEASURE_NAMES.index("is_mr")] = 1.0
        blank = Seen(Rated(f"p{k:04}", np.zeros(2), np.zeros((2, 3)), np.zeros(2), 0.0), features, measures, "MR", "", np.ones(2))
        (one,) = rescored(network, [blank])
        value = float((one.weight * one.q).sum()) + (12.0 * float(causes[:, 0].mean()) if rule == "more" else 0.0)
        rating = float(np.clip(value + 3.0 * float(torch.randn(1, generator=random)), 0, 100))
        found.append(Seen(Rated(one.patient, one.q, one.axes, one.weight, rating), features, measures, "MR", "", np.ones(2)))
    return found


def last_width(model: Model) -> int:
    """Features of the network, by asking it."""
    network = model.network
    with torch.inference_mode():
        return network(torch.zeros(1, 7, 3, 96, 96), network.measure_mean[None].round(), torch.zeros(1, 4, dtype=torch.long)).features.shape[1]


def test_the_last_layers_are_those_behind_the_features(model: Model) -> None:
    names = last_layers(model.network, seen(model, 1, "quality")[0])
    parts = {n.split(".")[0] for n in names}
    assert parts and parts.isdisjoint({"stem", "layers", "mix1", "mix2", "tables", "place", "classical"}), parts
    count = sum(p.numel() for n, p in model.network.named_parameters() if n in names)
    assert count < 0.3 * sum(p.numel() for p in model.network.parameters())


def test_what_was_seen_gives_the_score_again(site: Path, model: Model) -> None:
    """Also of a series with an outlier slice, whose weight the Assessor limits."""
    folder = site / "outlier"
    write_sample("ct", folder, slices=24, size=128, views=120)
    damaged = pydicom.dcmread(folder / "0012.dcm")
    pixels = damaged.pixel_array + np.random.default_rng(0).normal(0, 150, damaged.pixel_array.shape)
    damaged.PixelData = np.clip(pixels, 0, 2 ** damaged.BitsStored - 1).astype(damaged.pixel_array.dtype).tobytes()
    damaged.save_as(folder / "0012.dcm")
    (site / "two.csv").write_text("series,score\noutlier,1\ndata/p3,2\n")
    labels = read_labels(site / "two.csv")
    collected = collect(labels, scale_of(labels, (1, 5), False), site / "two.csv", None, model, "cpu", lambda line: None)
    parts = {}
    for modality, seen_series in collected.seen.items():
        (again,) = rescored(model.network, seen_series)
        (one,) = seen_series
        assert np.allclose(again.q, one.rated.q, atol=1e-3) and np.allclose(again.weight, one.rated.weight, atol=1e-5)
        parts[modality] = one.part
    assert np.allclose(parts["MR"], 1.0, atol=1e-5) and parts["CT"].min() < 0.9 and len(parts["CT"]) > 7


def test_between_nine_and_twenty_patients_only_the_interval_is_theirs(model: Model) -> None:
    found = fit_ratings(model, seen(model, 12, "quality"))
    assert found.row is None and np.isfinite(found.half_width) and found.patients == 12 and "fewer than 20" in found.words["why"]
    with pytest.raises(RatingsRefused, match="no interval"):
        fit_ratings(model, seen(model, 8, "quality"))


def test_ratings_that_say_nothing_are_refused(model: Model) -> None:
    random, mixed = np.random.default_rng(3), []
    for one in seen(model, 40, "quality"):
        mixed.append(Seen(Rated(one.rated.patient, one.rated.q, one.rated.axes, one.rated.weight, float(random.uniform(0, 100))),
                          one.features, one.measures, "MR", "", one.part))
    with pytest.raises(RatingsRefused, match="do not rise"):
        fit_ratings(model, mixed)


def test_hundreds_of_ratings_move_the_last_layers_of_their_modality_alone(model: Model, tmp_path: Path) -> None:
    everybody = seen(model, LEAST_TUNE + 60, "more")
    few = fit_ratings(model, everybody[:LEAST_TUNE - 1])
    assert not few.layers and few.row is not None
    found = fit_ratings(model, everybody)
    assert found.layers and found.words["error_fine_tuned"] < 0.8 * found.words["error_recalibrated"] and found.half_width < few.half_width
    again = rescored(tuned_network(model.network, dict(found.layers)), everybody)
    moved = np.median([np.abs(a.axes - b.rated.axes).max() for a, b in zip(again, everybody, strict=True)])
    assert 0 < moved < 60, "noise, width and artefact stay physics"
    collected = Collected({"MR": everybody}, {"MR": [str(k) for k in range(len(everybody))]}, {"MR": {}}, digest="ab" * 32)
    write_profile(model, model_module.WEIGHTS / "mediqa-compact.safetensors", {"MR": found}, collected, Scale(0, 100), tmp_path / "out", "tuned")
    tuned = load_model("tuned", tmp_path / "out")
    assert tuned.identity.sha256 != model.identity.sha256
    for kind, same in (("ct", True), ("mr", False)):
        write_sample(kind, tmp_path / kind, slices=1, size=128, views=120)
        files = sorted((tmp_path / kind).glob("*.dcm"))
        assert (assess(files, model=tuned).noise == assess(files, model=model).noise) == same


def test_fine_tuning_that_does_not_help_is_not_kept(model: Model) -> None:
    found = fit_ratings(model, seen(model, LEAST_TUNE, "quality"))
    assert not found.layers and found.words["error_recalibrated"] < 5
