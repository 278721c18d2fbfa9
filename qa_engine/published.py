"""The profile `mediqa-base`: the released checkpoint as weights and card, and the model that they make.

Its score is on the scale of labels that were not released, one number without axes, so it has no calibration: the benchmark may ask it, the
Assessor never gives its number (`abstained/no-model`).
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qa_engine.assessment import ModelIdentity
from qa_engine.calibration import Calibration
from qa_engine.decode import Decoder
from qa_engine.network.published import CODES, PublishedMedIQA, PublishedOutput
from qa_engine.network.published_input import SLICES, as_released, released_slices
from qa_engine.network.published_swin import WINDOW, relative_position_index, shift_mask

PROFILE = "mediqa-base"
WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
"""Keys under which training scripts keep the weights."""
PREFIX = "module."
"""Before each name, from a training on several devices."""
FEW = 3
"""Differences that a message names."""


class CheckpointError(Exception):
    """A file that is no checkpoint of the published network; one line that says what to do."""


class PublishedModel:
    """Weights and card of `mediqa-base`; made by `qa_engine.model.load_model`."""

    def __init__(self, profile: str, weights: Path, card: dict[str, Any]) -> None:
        self.card = card
        self.network = _network(load_file(weights), bool(card["scrambled"]))
        self.identity = ModelIdentity(profile, str(card["version"]), hashlib.sha256(weights.read_bytes()).hexdigest())

    def calibration(self, modality: str) -> Calibration:
        """Always KeyError: what its score means is not known."""
        raise KeyError(modality)

    def scores(self, images: Tensor, code: int | None = None, device: str = "cpu") -> PublishedOutput:
        """Images (N,3,224,224) with the prompt `code` 0..63, or none; seven at a time, on the CPU afterwards."""
        prompt = torch.zeros(1, CODES, device=device)
        if code is not None:
            prompt[0, code] = 1.0
        network = self.network.to(device)
        with torch.inference_mode():
            parts = [network(part.to(device), prompt) for part in images.split(SLICES)]
        return PublishedOutput(*(torch.cat(values).float().cpu() for values in zip(*parts, strict=True)))

    def series_score(self, files: Sequence[Path], decoder: Decoder, code: int | None = None, device: str = "cpu") -> float:
        """Score of a series as released: seven files by the order of their names, each as stored, the plain mean. DecodeError."""
        ordered, indices = sorted(files), released_slices(len(files))
        once = sorted(set(indices))
        images = torch.stack([as_released(_grey(decoder.read(ordered[k]).pixels)) for k in once])
        score = self.scores(images, code, device).score
        return float(score[[once.index(k) for k in indices]].mean())


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The first frame (H,W) of a decoded file; of colours the first channel."""
    frame = pixels[0]
    return frame[..., 0] if frame.ndim == 3 else frame


def _network(state: Mapping[str, Tensor], scrambled: bool) -> PublishedMedIQA:
    """The network with these tensors, without making others first."""
    with torch.device("meta"):
        network = PublishedMedIQA(scrambled)
    network.load_state_dict(dict(state), assign=True)
    return network.eval()


def convert_checkpoint(file: Path, folder: Path) -> str:
    """Write a checkpoint of the published network as weights (safetensors) and card of the profile; its name. CheckpointError, OSError."""
    state = _fitting(_named(_loaded(file), file), file)
    save_file(state, folder / f"{PROFILE}.safetensors")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    card = {"architecture": PROFILE, "version": f"released-{digest[:12]}", "source": {"file": file.name, "sha256": digest}, "scrambled": True,
            "scale": "unknown: that of the labels it was trained with", "calibration": {}}
    (folder / f"{PROFILE}.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return PROFILE


def _loaded(file: Path) -> object:
    """What the file holds, read without running any code that stands in it."""
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except Exception:  # the library raises its own kinds of errors on a broken header
            raise CheckpointError(f"{file.name} is not a safetensors file") from None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a parser says of a hostile file
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(f"{file.name} holds a pickled module, which may run any code when it is opened, so it stays closed; where you trust "
                                  "it, write its weights alone with the code that made it: torch.save(model.state_dict(), \"weights.pt\")") from None
        raise CheckpointError(f"{file.name} is not a checkpoint that torch can read ({type(error).__name__})") from None


def _named(held: object, file: Path) -> dict[str, Tensor]:
    """Name -> tensor, out of the wrappers that training scripts add."""
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    found = {str(name): value for name, value in held.items() if isinstance(value, Tensor)} if isinstance(held, Mapping) else {}
    if not found:
        raise CheckpointError(f"{file.name} holds no tensors with names")
    return {name.removeprefix(PREFIX): value for name, value in found.items()} if all(n.startswith(PREFIX) for n in found) else found


def _fitting(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """All tensors of the architecture, in float32; CheckpointError that names the first differences."""
    with torch.device("meta"):
        wanted = PublishedMedIQA().state_dict()
    constants = {"attn_mask": shift_mask(WINDOW // 2), "relative_position_index": relative_position_index()}
    kept = {name: constants[last].clone() for name in wanted if (last := name.rpartition(".")[2]) in constants}
    differences = []
    for word, names in (("lacks", [n for n in wanted if n not in state and n not in kept]), ("also has", [n for n in state if n not in wanted])):
        if names:
            differences.append(f"{word} {_few(names)}")
    shapes = [f"{n} is {_size(state[n])}, not {_size(t)}" for n, t in wanted.items() if n in state and state[n].shape != t.shape]
    if shapes:
        differences.append(_few(shapes))
    if differences:
        raise CheckpointError(f"{file.name} is not a checkpoint of {PROFILE}: it {'; '.join(differences)}")
    found = {n: kept[n] if n in kept else state[n].detach().float().contiguous() for n in wanted}
    broken = [n for n, t in found.items() if not bool(torch.isfinite(t).all())]
    if broken:
        raise CheckpointError(f"{file.name} is broken: values that are no numbers in {_few(broken)}")
    return found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one value"
