"""`mediqa model list|show|import`: the profiles, their cards and weights."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import WRONG_USE, JsonOption, QuietOption, fail, print_json, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Profiles, model card and sha256 of the weights: list, show, import.")


@app.command("list")
def list_profiles(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Name, version and sha256 of every profile."""
    from qa_engine.model import ModelMissing, load_model, profiles

    rows = []
    for name in profiles():
        try:
            identity = load_model(name).identity
            rows.append({"profile": name, "version": identity.version, "sha256": identity.sha256, "usable": True})
        except ModelMissing:
            rows.append({"profile": name, "version": "", "sha256": "", "usable": False})
    if as_json:
        print_json({"profiles": rows})
    elif not quiet:
        print_table("", ["profile", "version", "sha256", "usable"], [list(r.values()) for r in rows])


@app.command()
def show(profile: Annotated[str, typer.Argument(help="Name of a profile.")] = "mediqa-compact",
         as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """The model card: calibration and evaluation on subjects kept out of training."""
    from qa_engine.model import ModelMissing, load_model

    try:
        model = load_model(profile)
    except ModelMissing as error:
        fail(str(error))
    if as_json:
        print_json({"profile": profile, "sha256": model.identity.sha256, "card": model.card})
        return
    if quiet:
        return
    print(f"{profile} {model.identity.version}\nsha256 {model.identity.sha256}\nTrained on simulated degradations; not a medical device.")
    print_table("Subjects kept out of training", ["modality", "subjects", "half width", "SRCC slice", "SRCC series", "pairs"],
                [[m, c["subjects"], c["half_width"], c["srcc_slice"], c["srcc_series"], c["pairs"]]
                 for m, c in model.card["calibration"].items()])


@app.command("import")
def import_profile(weights: Annotated[Path, typer.Argument(help="A .safetensors file with its card (.json) beside it.")],
                   as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Install weights and card as a profile of the file's name, after a trial load."""
    card = weights.with_suffix(".json")
    if weights.suffix != ".safetensors" or not weights.is_file() or not card.is_file():
        fail("give a .safetensors file that has its card (.json) beside it", WRONG_USE)
    from qa_engine.model import WEIGHTS, ModelMissing, load_model

    try:
        json.loads(card.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as trial:
            for file in (weights, card):
                shutil.copy(file, trial)
            load_model(weights.stem, Path(trial))
        if (WEIGHTS / weights.name).exists():
            fail(f"there is a profile {weights.stem} already; rename the file")
        for file in (card, weights):
            shutil.copy(file, WEIGHTS)
    except (ModelMissing, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot install: {error.strerror}")
    if as_json:
        print_json({"installed": weights.stem})
    elif not quiet:
        print(f"{weights.stem} is installed")
