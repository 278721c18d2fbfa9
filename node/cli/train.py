"""`mediqa train simulate|fit|evaluate|region|envelope`: how the shipped weights are made (docs/model-card.md has the figures)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import WRONG_USE, JsonOption, QuietOption, fail, print_json, print_table
from node.cli.train_datasets import evaluate_dataset
from node.cli.train_picture import KindOption, PictureOption, SeverityOption, draw
from node.cli.train_ratings import finetune
from qa_engine.training.fold_names import FOLDS

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make weights: simulate, pretrain, fit, evaluate, finetune, region, envelope.")
app.command()(finetune)

DataOption = Annotated[Path, typer.Option("--data", help="Folder that holds train/index.csv and train/index-mr.csv.")]
OptionalDataOption = Annotated[Path | None, typer.Option("--data", help="Folder that holds train/index.csv and train/index-mr.csv.")]
CachesArgument = Annotated[list[Path], typer.Argument(help="Files that `mediqa train simulate` wrote.")]
MODALITIES = ("CT", "MR")
HEADS = ("dual", "film")
"""As in qa_engine.network.heads, which is not imported before it is needed."""


def _said(quiet: bool) -> Any:
    return (lambda line: None) if quiet else (lambda line: print(f"train: {line}", file=sys.stderr, flush=True))


def _existing(data: Path) -> None:
    if not (data / "train" / "index.csv").is_file():
        fail(f"no train/index.csv in {data}; give the folder of training data with --data", WRONG_USE)


def _caches(files: list[Path]) -> Any:
    missing = [str(f) for f in files if not f.is_file()]
    if missing:
        fail(f"no such file: {missing[0]}; mediqa train simulate writes it", WRONG_USE)
    from qa_engine.training.cache import load_caches

    try:
        return load_caches(files)
    except (ValueError, KeyError, OSError) as error:
        fail(f"not a cache of mediqa train simulate ({type(error).__name__})", WRONG_USE)


@app.command()
def simulate(out: Annotated[Path | None, typer.Argument(help="Folder for the caches; they hold pixels of the scans: keep them where they are.")] = None,
             data: OptionalDataOption = None, modality: Annotated[str, typer.Option(help="CT, MR or both.")] = "both",
             slices: Annotated[int, typer.Option(min=1, max=5, help="Slices of each series.")] = 2,
             part: Annotated[str, typer.Option(help="K/N: the K-th of N shares, so that N processes can work at once.")] = "1/1",
             draws: Annotated[int, typer.Option(min=1, max=20, help="How often each slice goes through the ladder.")] = 1,
             patients: Annotated[int, typer.Option(min=0, help="Simulated patients per modality (in the first share).")] = 5,
             picture: PictureOption = None, shown: KindOption = None, severity: SeverityOption = None, quiet: QuietOption = False) -> None:
    """Degrade each slice along the ladder and keep views, measures and known physics; or draw what degradations look like."""
    if picture is not None:
        return draw(picture, data, modality, shown, severity)
    if out is None or data is None:
        fail("give the folder OUT for the caches and --data, or --picture FILE.png", WRONG_USE)
    _existing(data)
    which, _, of = part.partition("/")
    if not (which.isdigit() and of.isdigit() and 1 <= int(which) <= int(of)):
        fail("--part is K/N with K from 1 to N", WRONG_USE)
    if modality not in (*MODALITIES, "both"):
        fail("--modality is CT, MR or both", WRONG_USE)
    from qa_engine.training import ladder
    from qa_engine.training.dataset import load_training_series, simulated_series

    say = _said(quiet)
    out.mkdir(parents=True, exist_ok=True)
    for kind in MODALITIES if modality == "both" else (modality,):
        series = load_training_series(data, kind)[int(which) - 1::int(of)]
        if which == "1":
            series += simulated_series(kind, patients)
        path = out / f"{kind.lower()}-{which}-of-{of}.npz"
        found = list(ladder.versions(series, slices, draws=draws, progress=lambda k, n, kind=kind: say(f"{kind} series {k + 1} of {n}")))
        if not found:
            fail(f"no {kind} series in share {part}")
        ladder.save(found, path, kind)
        say(f"{path}: {len(found)} versions of {len(series)} series")


def _encoder(file: Path) -> Any:
    from qa_engine.training.pretrain import load_pretrained

    try:
        return load_pretrained(file)
    except ValueError as error:
        fail(f"{error}; mediqa train pretrain writes it", WRONG_USE)


@app.command()
def pretrain(caches: CachesArgument, out: Annotated[Path, typer.Option(help="File for the encoder (.safetensors); log and picture beside it.")],
             fold: Annotated[str, typer.Option(help="Its subjects are kept out and make the table: subject-0 to subject-3, source-0 ...")] = "subject-0",
             minutes: Annotated[float, typer.Option(min=0.01, help="Time for the run.")] = 5.0,
             steps: Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of a time.")] = None,
             seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
             device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
             as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Stage one: the encoder learns to tell mAs, kV, kernel, field strength, TE, TR ... from pixels. A run that was cut off goes on."""
    if out.suffix != ".safetensors":
        fail("--out is a file that ends in .safetensors", WRONG_USE)
    if fold not in FOLDS:
        fail(f"--fold is one of {', '.join(FOLDS)}", WRONG_USE)
    from qa_engine.training.cache import leave_out
    from qa_engine.training.pretrain import NoParameters, PretrainSettings
    from qa_engine.training.pretrain import pretrain as run

    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        _, found = run(leave_out(_caches(caches), fold), PretrainSettings(minutes=minutes, steps=steps, seed=seed, device=device), out, _said(quiet))
    except NoParameters as error:
        fail(str(error))
    if as_json:
        print_json({"encoder": str(out), **found})
    elif not quiet:
        print_table("Subjects kept out", ["parameter", "subjects", "SRCC"], [[k, v["subjects"], v["srcc"]] for k, v in found["parameters"].items()])


@app.command()
def fit(caches: CachesArgument, out: Annotated[Path, typer.Option(help="Folder for weights and card.")],
        fold: Annotated[str | None, typer.Option(help="Fit one fold only: subject-0 to subject-3, source-0 to source-2.")] = None,
        steps: Annotated[int, typer.Option(min=1, help="Steps with views.")] = 60,
        measure_steps: Annotated[int, typer.Option(min=1, help="Steps with measures alone, before them.")] = 800,
        minutes: Annotated[float | None, typer.Option(min=0.01, help="Time for the steps with views, instead of their number.")] = None,
        seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
        device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
        pretrained: Annotated[Path | None, typer.Option(help="Encoder that mediqa train pretrain wrote, to start from.")] = None,
        head: Annotated[str, typer.Option(help="dual (MANIQA) or film (arXiv 2511.12256).")] = "dual",
        profile: Annotated[str, typer.Option(help="Name of the profile.")] = "mediqa-compact",
        version: Annotated[str, typer.Option(help="Version that reports will name.")] = "local",
        as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Fit the folds, then the network on all subjects, calibrated by what the folds said of subjects that they never saw.

    With --fold one fold alone is fitted, so that several machines or processes can share the work; folds that lie in the folder are not
    fitted again.
    """
    if head not in HEADS:
        fail("--head is dual or film", WRONG_USE)
    if fold is not None and fold not in FOLDS:
        fail(f"--fold is one of {', '.join(FOLDS)}", WRONG_USE)
    cache = _caches(caches)
    encoder = None if pretrained is None else _encoder(pretrained)
    from qa_engine.training.boost import NoBooster
    from qa_engine.training.cross import NotEnough, fit_fold, fit_shipped
    from qa_engine.training.fit import FitSettings

    settings = FitSettings(steps=None if minutes else steps, minutes=minutes or 0.0, classical_steps=measure_steps, seed=seed, device=device, head=head)
    out.mkdir(parents=True, exist_ok=True)
    say = _said(quiet)
    try:
        for name in FOLDS if fold is None else [fold]:
            if not (out / f"{name}.npz").is_file() or fold is not None:
                fit_fold(cache, name, out, settings, encoder, say)
        if fold is not None:
            return
        path, found = fit_shipped(cache, out, settings, profile, version, encoder, say)
    except (NoBooster, NotEnough) as error:
        fail(str(error))
    _show({"weights": str(path), "calibration": found}, found, as_json)


@app.command()
def evaluate(caches: Annotated[list[Path], typer.Argument(help="Folder of the folds that mediqa train fit wrote, or with --dataset that of the data set.")],
             profile: Annotated[str, typer.Option(help="Name of the profile.")] = "mediqa-compact",
             weights: Annotated[Path | None, typer.Option(help="Folder of the weights; default: the installed ones.")] = None,
             dataset: Annotated[str | None, typer.Option(help="ldctiqac2023 or mr-art: the argument is the folder of this data set.")] = None,
             as_json: JsonOption = False) -> None:
    """Figures of the folds, each on the subjects that it never saw: interval, correlations, order of versions of one slice."""
    if dataset is not None:
        evaluate_dataset(dataset, caches, profile, weights, as_json)
        return
    from qa_engine.training.cross import NotEnough, evaluated

    try:
        found = evaluated(caches[0])
    except NotEnough as error:
        fail(str(error), WRONG_USE)
    _show({"calibration": found}, found, as_json)


@app.command()
def region(data: DataOption, out: Annotated[Path, typer.Option(help="File for the coefficients (.safetensors).")],
           as_json: JsonOption = False) -> None:
    """Fit the region of a slice; prints the share of slices right with subjects left out."""
    _existing(data)
    from qa_engine.training.fit_region import fit_region

    found = fit_region(data, out)
    print_json({"accuracy": found}) if as_json else print_table("", ["modality", "accuracy"], [[k, v] for k, v in found.items()])


@app.command()
def envelope(data: DataOption, out: Annotated[Path | None, typer.Option(help="File for the table (JSON).")] = None,
             as_json: JsonOption = False) -> None:
    """Count the real, uncropped subjects of each cell and measure their smallest field of view (docs/decisions/0002)."""
    _existing(data)
    from qa_engine.envelope import count_cells

    found = count_cells(data)
    if out is not None:
        out.write_text(json.dumps({k: found[k] for k in ("cells", "field_mm")}, indent=1) + "\n", encoding="utf-8")
    print_json(found) if as_json else print_table(
        "", ["cell", "subjects", "field of view from mm"], [[k, v, found["field_mm"][k]] for k, v in found["cells"].items()])


def _show(whole: dict[str, Any], found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(whole)
        return
    print_table("Subjects that the fold never saw", ["modality", "subjects", "coverage", "width", "SRCC slice", "SRCC series", "pairs", "source out"],
                [[m, c["subjects"], c["interval_left_out"]["coverage"], c["interval_left_out"]["median_width"], c["srcc_slice"], c["srcc_series"], c["pairs"],
                  c.get("source_left_out", {}).get("srcc_slice", "-")] for m, c in found.items()])
