"""How long one CT series of 300 slices takes from files on disk to its Assessment, and the network against the published one.

    python benchmarks/inference.py [--json] [--quick] [--files DIR] [--device auto|cpu|cuda:0]

Warm process and page cache, uncompressed files of a simulated patient, `slices: salient`. Seconds are of the wall, the best and the median of
the runs; on a machine that does other work the CPU seconds and the ratios say more. Goals: 2 s in all, 0.4 s for the network, twenty times
faster than `mediqa-base` (random weights, the same seven slices, same run).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in the node: threads sleep while they wait
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pydicom
import torch
from pydicom.uid import generate_uid

from benchmarks.inference_card import on_card
from qa_engine.assess import assess
from qa_engine.decode import Decoder
from qa_engine.measures import measure
from qa_engine.model import Model, load_model
from qa_engine.network.published import CODES, SIDE, PublishedMedIQA
from qa_engine.network.views import channels, slice_views
from qa_engine.outcome import End
from qa_engine.policy import Policy
from qa_engine.salience import salient_slices
from qa_engine.series import read_series
from qa_engine.simulation.dicom_series import write_sample
from qa_engine.volume import Volume

SLICES, SIZE = 300, 512
GOAL_SECONDS, GOAL_NETWORK, GOAL_RATIO = 2.0, 0.4, 20.0


def make_series(folder: Path, sections: int) -> list[Path]:
    """SLICES files: `sections` simulated sections of a chest, and what lies between two of them mixed from both."""
    with tempfile.TemporaryDirectory() as simulated:
        write_sample("ct", Path(simulated), slices=sections, size=SIZE)
        known = [pydicom.dcmread(file) for file in sorted(Path(simulated).iterdir())]
        pixels = [ds.pixel_array.astype(np.float32) for ds in known]
    series, top = generate_uid(), float(known[-1].ImagePositionPatient[2])
    files = []
    for k in range(SLICES):
        below, part = divmod(k * (sections - 1) / (SLICES - 1), 1.0)
        n = min(int(below), sections - 2)
        part += below - n
        ds = known[n]
        ds.PixelData = np.round((1 - part) * pixels[n] + part * pixels[n + 1]).astype(np.uint16).tobytes()
        ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.InstanceNumber = series, generate_uid(), k + 1
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SliceLocation = round(top * k / (SLICES - 1), 4)
        ds.ImagePositionPatient, ds.SliceThickness = [*ds.ImagePositionPatient[:2], ds.SliceLocation], 1
        files.append(folder / f"{k:04}.dcm")
        ds.save_as(files[-1])
    return files


class Clock:
    """Wall and CPU seconds (of all threads) of what was run, one entry per run."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def run(self, function: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return result

    def told(self) -> dict[str, float]:
        return figures(self.wall) | {"cpu": round(min(self.cpu), 4)}


def figures(seconds: list[float]) -> dict[str, float]:
    """Best and median."""
    return {"best": round(min(seconds), 4), "median": round(median(seconds), 4)}


def whole_way(files: list[Path], model: Model, decoder: Decoder, device: str, runs: int) -> tuple[dict[str, Any], float]:
    """Seconds per stage of files -> Assessment, and its score. The forward passes of the network are timed inside."""
    spent = 0.0
    began = 0.0

    def before(*_: Any) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(*_: Any) -> None:
        nonlocal spent
        if device != "cpu":
            torch.cuda.synchronize()
        spent += time.perf_counter() - began

    hooks = [model.network.register_forward_pre_hook(before), model.network.register_forward_hook(after)]
    clock = Clock()
    stages: dict[str, list[float]] = {name: [] for name in ("read_decode", "measures_views", "network", "rest")}
    for run in range(runs + 1):
        spent = 0.0
        found = clock.run(lambda: assess(files, Policy(device=device), model, decoder))
        if found.end is not End.ASSESSED:
            raise SystemExit(f"inference: the series ends as {found.end}/{found.reason}")
        if run == 0:  # warms up
            clock = Clock()
            continue
        read, scored, total = (float(found.seconds[name]) for name in ("read", "network", "total"))
        for name, value in zip(stages, (read, scored - spent, spent, total - read - scored), strict=True):
            stages[name].append(value)
    for hook in hooks:
        hook.remove()
    return {"seconds": clock.told(), "slices_scored": len(found.slices)} | {name: figures(values) for name, values in stages.items()}, float(found.score)


def seven(volume: Volume) -> list[torch.Tensor]:
    """The salient slices as images (H,W)."""
    return [torch.from_numpy(volume.pixels[k].copy()) for k in salient_slices(volume)]


def network_against_published(model: Model, volume: Volume, runs: int, heavy_runs: int) -> dict[str, Any]:
    """Forward passes of both networks on the seven slices, on the CPU, one after the other."""
    images, spacing = seven(volume), torch.tensor([volume.spacing_mm])
    is_mr = torch.full((len(images),), volume.modality == "MR")
    given = (channels(torch.stack([slice_views(i, volume.modality) for i in images]), is_mr),
             torch.cat([measure(i[None], spacing, volume.modality).vector for i in images]), torch.zeros(len(images), 4, dtype=torch.long))
    ours, theirs = Clock(), Clock()
    network, published = model.network.cpu(), PublishedMedIQA().eval()
    pictures, prompt = torch.rand(len(images), 3, SIDE, SIDE), torch.zeros(1, CODES)
    with torch.inference_mode():
        network(*given)
        for _ in range(heavy_runs):
            theirs.run(lambda: published(pictures, prompt))
            for _ in range(runs):
                ours.run(lambda: network(*given))
    return {"network": ours.told(), "mediqa_base": theirs.told(), "ratio": round(min(theirs.wall) / min(ours.wall), 1),
            "ratio_cpu": round(min(theirs.cpu) / min(ours.cpu), 1)}


def measured(args: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """Everything that is printed."""
    model = load_model(args.profile)
    if not isinstance(model, Model):
        raise SystemExit(f"inference: {args.profile} gives no series a number")
    runs = 3 if args.quick else 15
    with Decoder() as decoder:
        way, score = whole_way(files, model, decoder, "cpu", runs)
        volume = read_series(files, decoder).volume
        assert volume is not None
        against = network_against_published(model, volume, 5, 1 if args.quick else 3)
        card = None
        if args.device != "cpu" and torch.cuda.is_available():
            device = "cuda:0" if args.device == "auto" else args.device
            card_way, card_score = whole_way(files, model, decoder, device, runs)
            card = on_card(model, volume, seven(volume), device) | {"way": card_way, "difference_from_cpu": round(abs(card_score - score), 5)}
    best = way["seconds"]["best"]
    return {"profile": args.profile, "sha256": model.identity.sha256, "threads": torch.get_num_threads(), "cores": len(os.sched_getaffinity(0)),
            "load": round(os.getloadavg()[0], 2), "runs": runs, "slices": len(files), "matrix": SIZE, "score": round(score, 3), "cpu": way,
            "seven_slices": against, "cuda": card,
            "goals": {"seconds": {"goal": GOAL_SECONDS, "found": best, "met": best <= GOAL_SECONDS},
                      "network": {"goal": GOAL_NETWORK, "found": way["network"]["best"], "met": way["network"]["best"] <= GOAL_NETWORK},
                      "ratio": {"goal": GOAL_RATIO, "found": against["ratio"], "met": against["ratio"] >= GOAL_RATIO}}}


def print_table(found: dict[str, Any]) -> None:
    """The same for people."""
    way, against = found["cpu"], found["seven_slices"]
    print(f"{found['slices']} slices {found['matrix']} x {found['matrix']}, {found['profile']}, {found['threads']} threads on {found['cores']} cores, "
          f"load {found['load']}, {found['runs']} runs\n")
    print(f"{'seconds':34}{'best':>9}{'median':>9}{'CPU':>9}")
    for name, row in (("files to Assessment", way["seconds"]), ("  read and decode", way["read_decode"]), ("  measures and views", way["measures_views"]),
                      (f"  network ({way['slices_scored']} slices)", way["network"]), ("  rest", way["rest"]),
                      ("network, 7 slices", against["network"]), ("mediqa-base, 7 slices", against["mediqa_base"])):
        print(f"{name:34}{row['best']:9.3f}{row['median']:9.3f}" + (f"{row['cpu']:9.3f}" if "cpu" in row else ""))
    print(f"\nmediqa-base takes {against['ratio']:g} times as long (CPU time: {against['ratio_cpu']:g} times)")
    if found["cuda"]:
        card = found["cuda"]
        print(f"\n{card['name']}: files to Assessment {card['way']['seconds']['best']:.3f} s, network {card['way']['network']['best'] * 1000:.1f} ms; "
              f"differs from the CPU by {card['difference_from_cpu']:g} points")
        print(f"preprocessing of seven slices on the card {card['preprocessing_seconds'] * 1000:.1f} ms; from pixels on the card "
              f"{card['series_per_second']:.0f} series/s; network alone, batches of {card['batch']} slices in bf16,\n"
              f"{card['network_series_per_second']:.0f} series/s, {card['tflops']:.1f} TFLOP/s = {100 * card['share_of_peak']:.1f} % of "
              f"{card['peak_tflops']:.0f} ({card['peak_is']})")
    for name, goal in found["goals"].items():
        print(f"goal {name}: {goal['found']:g} {'<=' if name != 'ratio' else '>='} {goal['goal']:g}: {'met' if goal['met'] else 'NOT MET'}")


def main() -> None:
    """Make the series, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer simulated sections and runs")
    parser.add_argument("--files", type=Path, help="a folder that holds the series, or gets it")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--profile", default="mediqa-compact", help="a profile that mediqa model list shows")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.files or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(folder.glob("*.dcm"))
        if not files:
            print("inference: simulating the series", file=sys.stderr)
            files = make_series(folder, 6 if args.quick else 20)
        found = measured(args, files)
    if args.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
