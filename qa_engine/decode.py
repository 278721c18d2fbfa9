"""Pixel decoding by named plugins, in a process of its own that may be killed: encoded pixel data is hostile until its pixels are here.

`Decoder` starts `python -m qa_engine.decoder_process` and talks to it in lines of JSON; arrays come back through a file without a name, so
that nothing is left behind by a kill. The plugin for each transfer syntax is chosen here, by measured speed and exactness
(docs/decisions/0004), never left to a library's order.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from pydicom.dataset import Dataset

from qa_engine.header import UNREADABLE, raw
from qa_engine.outcome import Reason

PLUGINS: dict[str, tuple[str, ...]] = {
    "1.2.840.10008.1.2.4.50": ("pillow", "gdcm"), "1.2.840.10008.1.2.4.51": ("pillow", "gdcm"),
    "1.2.840.10008.1.2.4.57": ("gdcm",), "1.2.840.10008.1.2.4.70": ("gdcm",),
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "gdcm"), "1.2.840.10008.1.2.4.81": ("pyjpegls", "gdcm"),
    "1.2.840.10008.1.2.4.90": ("gdcm", "pylibjpeg"), "1.2.840.10008.1.2.4.91": ("gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.201": ("pylibjpeg",), "1.2.840.10008.1.2.4.202": ("pylibjpeg",), "1.2.840.10008.1.2.4.203": ("pylibjpeg",),
    "1.2.840.10008.1.2.5": ("pylibjpeg", "pydicom"),
}
"""Encapsulated transfer syntaxes that we decode, and by which plugins, in this order (PS3.5 A.4)."""
NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"})
MAX_BYTES = 8 * 2 ** 30
MAX_ANSWER = 1 << 20
START_SECONDS = 60.0


class DecodeError(Exception):
    """Pixels that cannot be had; `reason` is one of the reasons of the end `undecodable`."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason, self.text = reason, text


def pixel_description(ds: Dataset, max_pixels: int, whole: bool) -> tuple[int, int, int, int]:
    """rows, columns, frames, samples (PS3.3 C.7.6.3); whole: of Pixel Data, not of floats. DecodeError when the header contradicts itself or asks
    for too much."""
    found = []
    for keyword, default in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1), ("SamplesPerPixel", 1)):
        try:
            value = raw(ds, keyword, UNREADABLE)
            found.append(int(default if value is None else value))
        except (TypeError, ValueError, OverflowError):
            raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, f"{keyword} is not a number") from None
    rows, columns, frames, samples = found
    if rows < 1 or columns < 1 or frames < 1 or samples not in (1, 3, 4):
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "Rows, Columns, Number of Frames or Samples per Pixel is impossible")
    if rows * columns * frames > max_pixels or rows * columns * frames * samples * 8 > MAX_BYTES:
        raise DecodeError(Reason.OVER_LIMIT, f"{rows} x {columns} x {frames} pixels are more than the node decodes")
    try:
        allocated, stored, high = (int(raw(ds, k, UNREADABLE) or 0) for k in ("BitsAllocated", "BitsStored", "HighBit"))
    except (TypeError, ValueError, OverflowError):
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "Bits Allocated, Bits Stored or High Bit is not a number") from None
    if whole and (allocated not in (1, 8, 16, 32) or not 0 < stored <= allocated or not 0 <= high < allocated):
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "Bits Allocated, Bits Stored and High Bit contradict each other")
    return rows, columns, frames, samples


@dataclass(frozen=True, eq=False)
class DecodedFile:
    """pixels: (F,H,W) or (F,H,W,3) stored values; plugin that decoded them; transfer syntax UID."""

    pixels: np.ndarray
    plugin: str
    transfer_syntax: str


class Decoder:
    """Context manager. seconds: limit per file; max_pixels: rows x columns x frames per file."""

    def __init__(self, seconds: float = 60.0, max_pixels: int = 2 ** 31) -> None:
        self.seconds, self.max_pixels = seconds, max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: IO[bytes] | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a later `read` starts a new one."""
        self._kill()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def read(self, path: Path) -> DecodedFile:
        """Decode all frames of a file; DecodeError when that is not possible within the limits, TimeoutError when no decoder starts."""
        try:
            answer = self._ask(path)
        except (BrokenPipeError, EOFError):
            self._kill()
            try:  # it may have been killed from outside; pixel data that kills decoders kills the next one too
                answer = self._ask(path)
            except (BrokenPipeError, EOFError):
                self._kill()
                raise DecodeError(Reason.CORRUPT_PIXEL_DATA, "the decoder died of this pixel data") from None
        if "reason" in answer:
            raise DecodeError(Reason(answer["reason"]), str(answer["text"])[:200])
        return DecodedFile(self._taken(), str(answer["plugin"]), str(answer["transfer_syntax"]))

    def _ask(self, path: Path) -> dict[str, Any]:
        """What the process says about a file; DecodeError after the time limit, BrokenPipeError or EOFError when the process died."""
        process = self._started()
        assert process.stdin is not None
        # the alarm ends an orphan that hangs; a living parent kills it first
        request = {"path": str(Path(path).resolve()), "max_pixels": self.max_pixels, "alarm": math.ceil(self.seconds) + 5}
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        try:
            return self._answer(process, self.seconds)
        except TimeoutError:
            self._kill()
            raise DecodeError(Reason.OVER_LIMIT, f"decoding took longer than {self.seconds:g} s") from None

    def _taken(self) -> np.ndarray:
        """The array that the process has written."""
        assert self._scratch is not None
        with os.fdopen(os.dup(self._scratch.fileno()), "rb") as file:
            file.seek(0)
            try:
                return np.load(file, allow_pickle=False)
            except (OSError, ValueError, EOFError):
                raise DecodeError(Reason.CORRUPT_PIXEL_DATA, "the decoder handed over nothing") from None
            finally:
                os.ftruncate(file.fileno(), 0)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the decoder)
        if self._process is None or self._process.poll() is not None:
            env = dict(os.environ, OMP_NUM_THREADS="1")
            scratch = self._scratch.fileno()
            self._process = subprocess.Popen([sys.executable, "-m", "qa_engine.decoder_process", str(scratch)], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, pass_fds=(scratch,),
                                             cwd=Path(__file__).resolve().parents[1])
            try:  # its start does not count against the first file
                self._answer(self._process, START_SECONDS)
            except TimeoutError:
                self._kill()
                # the machine's fault, not the file's: an OSError, after which a caller may try again
                raise TimeoutError(f"the decoder process does not start within {START_SECONDS:g} s") from None
        return self._process

    @staticmethod
    def _answer(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        """One line of JSON within the time; TimeoutError, EOFError."""
        assert process.stdout is not None
        deadline, line = time.monotonic() + seconds, b""
        descriptor = process.stdout.fileno()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            block = os.read(descriptor, 65536)
            if not block or len(line) > MAX_ANSWER:
                raise EOFError
            line += block
        try:
            return dict(json.loads(line))
        except ValueError:
            raise EOFError from None

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
