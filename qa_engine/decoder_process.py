"""The process that decodes pixel data for `qa_engine.decode.Decoder`; it may be killed by what it reads, and nothing else is lost.

After an empty object, which says that it is ready, one request per line: {"path", "max_pixels", "alarm"}; one answer per line: {"plugin",
"transfer_syntax"} or {"reason", "text"}. The array goes into the file whose descriptor is the argument. Memory is bounded by what the header
describes, so that a bomb ends in a MemoryError.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from qa_engine.decode import MAX_BYTES, NATIVE, PLUGINS, DecodeError, pixel_description
from qa_engine.header import raw
from qa_engine.outcome import Reason

SPARE_BYTES = 2 ** 30
"""Address space beyond what the file and its pixels need: libraries, temporary copies of one frame."""
MODULES = {"gdcm": "gdcm", "pylibjpeg": "pylibjpeg", "pillow": "pillow", "pyjpegls": "pyjpegls", "pydicom": "pydicom"}


def read(path: Path, max_pixels: int) -> tuple[np.ndarray, str, str]:
    """Pixels (F,H,W[,S]), plugin, transfer syntax UID; DecodeError."""
    size = path.stat().st_size if path.is_file() else 0
    bound_memory(min(MAX_BYTES, 20 * size))  # deflated data sets grow, those that grow a thousandfold are bombs
    try:
        ds = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in ds.file_meta and "PixelData" in ds:  # a bare data set, whose encoding is seen from its bytes
            implicit, little = ds.original_encoding
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = str(ds.file_meta.TransferSyntaxUID)
    except MemoryError:
        raise
    except Exception:
        raise DecodeError(Reason.CORRUPT_PIXEL_DATA, "the file cannot be read as DICOM") from None
    has = [k for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if k in ds]
    if not has:
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "an image without pixel data")
    rows, columns, frames, samples = pixel_description(ds, max_pixels, "PixelData" in ds)
    bound_memory(4 * rows * columns * frames * samples * (int(raw(ds, "BitsAllocated") or 64) + 7) // 8)
    if syntax in NATIVE:
        return _native(ds, has[0], (frames, rows, columns, samples)), "pydicom", syntax
    if syntax not in PLUGINS:
        raise DecodeError(Reason.NO_DECODER, f"no decoder for the transfer syntax {syntax}")
    problems: list[str] = []
    for plugin in PLUGINS[syntax]:
        try:
            array, _ = get_decoder(syntax).as_array(ds, raw=True, decoding_plugin=MODULES[plugin])
            return _shaped(array, (frames, rows, columns, samples)), plugin, syntax
        except (DecodeError, MemoryError):
            raise
        except Exception as error:
            problems.append(f"{plugin}: {type(error).__name__}")
    twelve = _extended_twelve_bit(ds, path, syntax, (frames, rows, columns, samples))
    if twelve is not None:
        return twelve, "gdcm", syntax
    raise DecodeError(Reason.CORRUPT_PIXEL_DATA, "decoding failed (" + ", ".join(problems) + ")")


def _native(ds: Dataset, keyword: str, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Padding at the end is shorter than a row; a row or more that is left over belongs to an image of another size."""
    try:
        described, there = get_expected_length(ds), len(ds[keyword].value or b"")
        if not described <= there < described + max(described // (shape[0] * shape[1]), 2):
            raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, f"the header describes {described} bytes of pixel data, there are {there}")
        array, _ = get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, raw=True)
    except (DecodeError, MemoryError):
        raise
    except Exception as error:
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION,
                          f"the header describes other pixel data than there is ({type(error).__name__})") from None
    return _shaped(array, shape)


def _shaped(array: np.ndarray, shape: tuple[int, int, int, int]) -> np.ndarray:
    frames, rows, columns, samples = shape
    wanted = (frames, rows, columns, samples) if samples > 1 else (frames, rows, columns)
    if array.size != np.prod(wanted):
        raise DecodeError(Reason.INCONSISTENT_PIXEL_DESCRIPTION, "the decoded pixels do not have the described size")
    return array.reshape(wanted)


def _extended_twelve_bit(ds: Dataset, path: Path, syntax: str, shape: tuple[int, int, int, int]) -> np.ndarray | None:
    """12-bit JPEG Extended, which the plugins refuse, through GDCM's own reader; None when that is not what it is."""
    if syntax != "1.2.840.10008.1.2.4.51" or int(ds.get("BitsStored", 8)) <= 8 or shape[3] != 1:
        return None
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return None
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    change.SetInput(reader.GetImage())
    if not change.Change():
        return None
    data = change.GetOutput().GetBuffer()
    kind = np.dtype("<i2" if int(ds.get("PixelRepresentation", 0)) else "<u2")
    found = np.frombuffer(data.encode("utf-8", "surrogateescape"), kind)
    return _shaped(found, shape) if found.size == np.prod(shape) else None


def bound_memory(more: int) -> None:
    """Limit the address space to what is used now, SPARE_BYTES and `more` bytes."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + SPARE_BYTES + more
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def answer(request: dict[str, Any], scratch: int) -> dict[str, Any]:
    """Decode one file into the scratch file."""
    signal.alarm(int(request["alarm"]))
    try:
        pixels, plugin, syntax = read(Path(request["path"]), int(request["max_pixels"]))
        with os.fdopen(os.dup(scratch), "wb") as file:
            file.seek(0)
            file.truncate()
            np.save(file, np.ascontiguousarray(pixels), allow_pickle=False)
    except DecodeError as error:
        return {"reason": str(error.reason), "text": error.text}
    except MemoryError:
        return {"reason": str(Reason.OVER_LIMIT), "text": "decoding needs more memory than it may have"}
    except OSError as error:
        return {"reason": str(Reason.OVER_LIMIT), "text": f"there is no room for the decoded pixels ({type(error).__name__})"}
    except Exception as error:
        return {"reason": str(Reason.CORRUPT_PIXEL_DATA), "text": f"decoding failed ({type(error).__name__})"}
    finally:
        signal.alarm(0)
    return {"plugin": plugin, "transfer_syntax": syntax}


def main() -> None:
    """Answer requests on stdin until it closes, which it does when the parent dies."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels
    scratch = int(sys.argv[1])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native codecs print on stdout, which is the channel of answers
    out.write(b"{}\n")  # ready
    out.flush()
    for line in sys.stdin.buffer:
        out.write(json.dumps(answer(json.loads(line), scratch)).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
