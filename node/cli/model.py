"""`mediqa model list|show|import|export`: the profiles, their cards and weights."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import WRONG_USE, JsonOption, QuietOption, fail, print_json, print_table, printable

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Profiles, model card and sha256 of the weights: list, show, import, export.")


@app.command("list")
def list_profiles(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Name, version and sha256 of every profile."""
    from qa_engine.model import ModelMissing, load_model, profiles

    rows = []
    for name in profiles():
        try:
            model = load_model(name)
            rows.append({"profile": name, "version": model.identity.version, "sha256": model.identity.sha256, "usable": True,
                         "calibrated": _calibrated(model.card)})
        except ModelMissing:
            rows.append({"profile": name, "version": "", "sha256": "", "usable": False, "calibrated": []})
    if as_json:
        print_json({"profiles": rows})
    elif not quiet:
        print_table("", ["profile", "version", "sha256", "usable", "calibrated"],
                    [[*list(r.values())[:-1], ", ".join(r["calibrated"])] for r in rows])


def _calibrated(card: dict[str, Any]) -> list[str]:
    """Modalities for which the profile gives a number."""
    return sorted(m for m, row in card["calibration"].items() if row.get("interval") is not None)


@app.command()
def show(profile: Annotated[str, typer.Argument(help="Name of a profile.")] = "mediqa-compact",
         as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """The model card: calibration and evaluation on subjects kept out of training; cells of the envelope with their counts."""
    from qa_engine.envelope import LEAST_SUBJECTS, subjects
    from qa_engine.model import ModelMissing, load_model

    try:
        model = load_model(profile)
    except ModelMissing as error:
        fail(str(error))
    if as_json:
        print_json({"profile": profile, "sha256": model.identity.sha256, "card": model.card, "cells": subjects()})
        return
    if quiet:
        return
    print(f"{profile} {model.identity.version}\nsha256 {model.identity.sha256}")
    if not model.card["calibration"]:
        print("The published architecture with weights from elsewhere: its scale is not known and nothing is calibrated, so the benchmark may ask it,\n"
              "and every series that the node assesses with it ends as abstained/no-model.")
        return
    print("Trained on simulated degradations; not a medical device.")
    print_table("Subjects that the fold never saw", ["modality", "subjects", "coverage", "median width", "SRCC slice", "SRCC series", "pairs"],
                [[m, c["subjects"], c["interval_left_out"]["coverage"], c["interval_left_out"]["median_width"], c["srcc_slice"], c["srcc_series"],
                  c["pairs"]] for m, c in model.card["calibration"].items() if "srcc_slice" in c])
    print_table("Cells of the envelope", ["cell", "subjects", "number given"],
                [[cell, int(n), "yes" if n >= LEAST_SUBJECTS else "no, too few"] for cell, n in subjects().items()])


@app.command("import")
def import_profile(weights: Annotated[Path, typer.Argument(help="Weights of a profile (.safetensors) with their card (.json) beside them, or a "
                                                                "checkpoint of the published network (.pt, weights alone).")],
                   as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Install weights and card as a profile of the file's name, or a published checkpoint as mediqa-base, after a trial load."""
    if not weights.is_file():
        fail(f"there is no file {printable(str(weights))}", WRONG_USE)
    card = weights.with_suffix(".json")
    from qa_engine.model import WEIGHTS, ModelMissing, load_model
    from qa_engine.published import CheckpointError, convert_checkpoint

    try:
        with tempfile.TemporaryDirectory() as trial:
            if weights.suffix == ".safetensors" and card.is_file():
                name = weights.stem
                for file in (card, weights):
                    shutil.copy(file, trial)
            else:
                name = convert_checkpoint(weights, Path(trial))
            if (WEIGHTS / f"{name}.safetensors").exists():
                fail(f"there is a profile {name} already in {WEIGHTS}; remove its two files first, or import under another name")
            load_model(name, Path(trial))
            for suffix in (".safetensors", ".json"):  # without its card a profile is not there
                shutil.copy(Path(trial, name + suffix), WEIGHTS)
    except (ModelMissing, CheckpointError) as error:
        alone = weights.suffix == ".safetensors" and not card.is_file()
        fail(printable(str(error)) + ("; weights of another profile need their card (.json) beside them" if alone else ""))
    except OSError as error:
        fail(f"cannot install: {error.strerror}")
    if as_json:
        print_json({"installed": name})
    elif not quiet:
        print(f"{name} is installed")


@app.command()
def export(file: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
           profile: Annotated[str, typer.Option(help="Name of a profile.")] = "mediqa-compact",
           as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Write the network of a profile as ONNX."""
    if file.suffix != ".onnx":
        fail(f"{printable(str(file))} is not the name of an .onnx file", WRONG_USE)
    from qa_engine.model import ModelMissing, load_model
    from qa_engine.onnx_export import ExportError, export_onnx

    try:
        model = load_model(profile)
        export_onnx(model, file)
    except (ModelMissing, ExportError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write {printable(str(file))}: {error.strerror}")
    if as_json:
        print_json({"file": str(file), "profile": profile, "sha256": model.identity.sha256})
    elif not quiet:
        print(f"{file}: {profile} {model.identity.version}")
