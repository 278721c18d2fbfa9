"""Pixels of a stack in physical units. What nothing has encoded is read by several threads, everything else comes from the decoder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from qa_engine.decode import DecodeError, Decoder
from qa_engine.frames import Frame, physical_frame
from qa_engine.native import native_frames
from qa_engine.outcome import Reason

THREADS = min(4, len(os.sched_getaffinity(0)))


def stack_pixels(stack: list[Frame], modality: str, headers: Mapping[Path, Dataset], decoder: Decoder) -> tuple[np.ndarray, np.ndarray | None]:
    """Physical values (N,H,W) float32 and a mask (N,H,W) that is False on padding, None where there is no padding; DecodeError."""
    places: dict[Path, list[int]] = defaultdict(list)
    for k, frame in enumerate(stack):
        places[frame.file].append(k)
    shape = stack[0].rows, stack[0].columns
    first, *others = places
    begin = _native(first, headers, decoder)
    begin = _checked(decoder.read(first).pixels if begin is None else begin, stack, places[first])
    pixels = np.empty((len(stack), *shape), np.float32)  # a size that the header only claims is never allocated
    masks: dict[int, np.ndarray] = {}

    def take(k: int, decoded: np.ndarray) -> None:
        mask = physical_frame(decoded[stack[k].index], stack[k], modality, pixels[k])
        if mask is not None:
            masks[k] = mask

    def take_native(path: Path) -> bool:
        decoded = _native(path, headers, decoder)
        if decoded is None:
            return False
        _checked(decoded, stack, places[path])
        for k in places[path]:
            take(k, decoded)
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda k: take(k, begin), places[first]))
        for path, taken in zip(others, list(pool.map(take_native, others)), strict=True):
            if not taken:
                decoded = _checked(decoder.read(path).pixels, stack, places[path])
                list(pool.map(take, places[path], [decoded] * len(places[path])))
    if not masks:
        return pixels, None
    valid = np.ones(pixels.shape, bool)
    for k, mask in masks.items():
        valid[k] = mask
    return pixels, valid


def _native(path: Path, headers: Mapping[Path, Dataset], decoder: Decoder) -> np.ndarray | None:
    return native_frames(path, headers[path], decoder.max_pixels)


def _checked(decoded: np.ndarray, stack: list[Frame], places: list[int]) -> np.ndarray:
    """The stored values of a file, when they hold the frames of the stack as these are described."""
    if any(stack[k].index >= len(decoded) for k in places) or decoded.shape[1:] != (stack[0].rows, stack[0].columns):
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "the decoded pixels do not have the described size")
    return decoded
