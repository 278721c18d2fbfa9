"""The public protocols on folders of the form of LDCTIQAC 2023 and MR-ART, made of simulated patients."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from qa_engine.simulation.degradations import degrade
from qa_engine.simulation.dicom_series import simulate_arrays
from qa_engine.training.public_datasets import WINDOW_HU, NotThisDataset, auc, correlations, krocc, ldct_items, mr_art_items, plcc, read_ldct, read_nifti
from tests.support.data import data_folder

pytestmark = [pytest.mark.model]


def evaluate(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "node", "train", "evaluate", *map(str, words)], capture_output=True, text=True, timeout=200)


def write_images(folder: Path, name: str, seeds: range) -> None:
    """Three doses of each simulated patient, graded after the dose; `image/0000.tif` and the list of scores beside it."""
    doses, scores, low_high = (0.02, 0.08, 0.8), {}, WINDOW_HU
    (folder / "image").mkdir(parents=True)
    for seed in seeds:
        for number, array in enumerate(simulate_arrays("ct", doses, slices=1, size=192, views=150, seed=seed)):
            file = f"{3 * seed + number:04}.tif"
            scaled = ((array[0] - low_high[0]) / (low_high[1] - low_high[0])).clip(0, 1).astype(np.float32)
            Image.fromarray(scaled).save(folder / "image" / file)
            scores[file] = 0.4 + 1.6 * number
    (folder / name).write_text(json.dumps(scores))


@pytest.fixture(scope="module")
def low_dose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ldct")
    write_images(folder / "LDCTIQAG2023_train", "train.json", range(3))
    return folder


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects, three runs each, moved more and more; one run of the table is absent, as in the real set."""
    folder, rows = tmp_path_factory.mktemp("art"), []
    for k in range(3):
        clean = torch.from_numpy(np.asarray(simulate_arrays("mr", (3.0,), slices=3, size=128, seed=k)[0], np.float32))
        for number, run in enumerate(("standard", "headmotion1", "headmotion2")):
            name = f"sub-{k:06}_acq-{run}_T1w"
            rows.append((name, number + 1))
            if (k, number) == (2, 1):
                continue
            moved = clean if not number else degrade("motion", clean, torch.full((3, 2), 2.0), torch.full((3,), 0.1 * number ** 2),
                                                     torch.Generator().manual_seed(k), "MR")[0]
            image = SimpleITK.GetImageFromArray(moved.numpy())
            image.SetSpacing((2.0, 2.0, 30.0))
            (folder / f"sub-{k:06}" / "anat").mkdir(parents=True, exist_ok=True)
            SimpleITK.WriteImage(image, str(folder / f"sub-{k:06}" / "anat" / f"{name}.nii.gz"))
    (folder / "derivatives").mkdir()
    with (folder / "derivatives" / "scores.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("bids_name", "score"), *rows])
    return folder


def test_correlations_of_known_ranks() -> None:
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
    assert krocc(a, b) == pytest.approx(0.6) and plcc(a, b) == pytest.approx(0.8)
    # ties: 5 concordant pairs of 6, one tie in b; tau-b = 5 / sqrt(6 * 5)
    assert krocc(np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 2, 3])) == pytest.approx(5 / np.sqrt(30))
    assert auc(np.array([1.0, 2, 3, 3]), np.array([False, False, True, False])) == pytest.approx(2.5 / 3)
    assert correlations(np.ones(3), a[:3])["sum"] is None


def test_low_dose_challenge(low_dose: Path, tmp_path: Path) -> None:
    done = evaluate("--dataset", "ldctiqac2023", low_dose, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["part"]) == (9, "train") and found["published"]["FiLM on, clinical prompt"]["sum"] == 2.7436
    for figures in (found["raw"], found["recalibrated"]):
        assert 0.5 < figures["srocc"] <= 1 and figures["sum"] == pytest.approx(figures["plcc"] + figures["srocc"] + figures["krocc"], abs=2e-4)
    write_images(tmp_path / "LDCTIQAC2023_test", "test.json", range(3, 5))
    (tmp_path / "LDCTIQAG2023_train").symlink_to(low_dose / "LDCTIQAG2023_train")
    done = evaluate("--dataset", "ldctiqac2023", tmp_path)
    assert done.returncode == 0 and "6 images (test)" in done.stdout and "fitted to the training images" in done.stdout and "2.7436" in done.stdout


def test_values_of_a_low_dose_image_are_those_of_the_readers_window(low_dose: Path, tmp_path: Path) -> None:
    item = ldct_items(low_dose)["train"][0]
    volume = read_ldct(item.path)
    assert volume.pixels.shape == (1, 192, 192) and volume.pixels[0, :3].max() == -1000.0 and item.score == 0.4
    inside = volume.pixels[volume.pixels > -1000.0]
    assert inside.min() >= WINDOW_HU[0] and inside.max() <= WINDOW_HU[1] and 0.1 < len(inside) / 192 ** 2 < 0.9
    Image.fromarray(np.full((64, 64), 300, np.uint16)).save(tmp_path / "x.tif")
    with pytest.raises(NotThisDataset, match="0 to 1"):
        read_ldct(tmp_path / "x.tif")


@pytest.mark.data
def test_the_real_list_of_scores_is_read(tmp_path: Path) -> None:
    source = data_folder() / "labels" / "ldctiqa2023_fold1_val.csv"
    (tmp_path / "train.csv").write_text(source.read_text())
    for name in ("0877.tif", "0957.tif"):
        Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / name)
    assert {i.path.name: i.score for i in ldct_items(tmp_path)["train"]} == {"0877.tif": 0.6, "0957.tif": 3.8}


def test_head_motion(motion: Path) -> None:
    done = evaluate("--dataset", "mr-art", motion, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["volumes"], found["subjects"]) == (8, 3)
    assert found["raw"]["srcc"] > 0.4 and found["raw"]["auc_still_against_moving"] > 0.8
    order = found["within_subject"]
    assert (order["pairs"], order["pairs_still_moving"]) == (7, 5) and order["right"] > 0.6 and order["right_still_moving"] > 0.7
    done = evaluate("--dataset", "mr-art", motion)
    assert done.returncode == 0 and "8 volumes of 3 subjects" in done.stdout


def test_slices_of_a_volume_are_those_of_the_scanner(motion: Path) -> None:
    volume = read_nifti(mr_art_items(motion)[0].path)
    assert volume.pixels.shape == (3, 128, 128) and volume.spacing_mm == (2.0, 2.0) and volume.positions_mm.tolist() == [0, 30, 60]


@pytest.mark.data
def test_the_real_table_of_scores_names_the_runs(tmp_path: Path) -> None:
    (tmp_path / "scores.tsv").write_text((data_folder() / "labels" / "mrart_ds004173_scores.tsv").read_text())
    with pytest.raises(NotThisDataset, match="none of the volumes"):
        mr_art_items(tmp_path)
    file = tmp_path / "sub-000103" / "anat" / "sub-000103_acq-headmotion2_T1w.nii.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    (item,) = mr_art_items(tmp_path)
    assert (item.group, item.acquisition, item.score) == ("sub-000103", "headmotion2", 3.0)


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--dataset", "other", "."), 2, "ldctiqac2023 or mr-art"), (("--dataset", "mr-art", "nowhere"), 2, "takes one folder"),
    (("--dataset", "mr-art", "tests"), 1, "scores.tsv"), (("--dataset", "ldctiqac2023", "tests/model"), 1, "list of scores")])
def test_wrong_folders_are_one_line(words: tuple[str, ...], code: int, said: str) -> None:
    done = evaluate(*words)
    assert done.returncode == code and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
