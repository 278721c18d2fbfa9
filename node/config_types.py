"""Types of values in config.yaml: what each accepts, and the words in which an error says what to write."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

_SIZES = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Bytes of a size such as `2 GiB`, `500 MB` or `0 B`; ValueError for anything else."""
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([KMGT]?i?B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError("no size")
    return int(float(found[1]) * _SIZES[(found[2] or "B").upper()])


def _size(value: object) -> object:
    """A bare number of bytes as text; the text itself is checked."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value} B"
    if isinstance(value, str):
        parse_size(value)
    return value


def _ae_title(value: str) -> str:
    """PS3.5 table 6.2-1, VR AE: 1 to 16 characters without backslash and control characters, spaces at the ends do not count."""
    value = value.strip(" ")
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", value):
        raise ValueError("no AE title")
    return value


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


# The description of a type is the sentence that an error tells: "write ...".
AeTitle = Annotated[str, AfterValidator(_ae_title),
                    Field(description="an AE title: 1 to 16 characters, no backslash (quote it if it is all digits)")]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:%-]{1,253}$", description="a host name or an address")]
Port = Annotated[int, Field(ge=1, le=65535, description="a number from 1 to 65535")]
ListenPort = Annotated[int, Field(ge=0, le=65535, description="a number from 1 to 65535 (0 = any free port)")]
Network = Annotated[str, AfterValidator(_network), Field(description="a network such as 10.0.0.0/8 or ::1/128")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="a name of letters, digits, '.', '_' and '-' (up to 64)")]
Size = Annotated[str, BeforeValidator(_size), Field(description="a size such as 2 GiB or 500 MB")]
Flag = Annotated[bool, Field(description="true or false")]
Text = Annotated[str, Field(max_length=1024, description="text")]
Score = Annotated[float, Field(ge=0, le=100, description="a number from 0 to 100")]


def seconds(least: float, most: float) -> object:
    return Field(ge=least, le=most, allow_inf_nan=False, description=f"seconds, a number from {least:g} to {most:g}")


def whole(least: int, most: int, unit: str = "") -> object:
    return Field(ge=least, le=most, description=f"a whole number{unit} from {least} to {most}")
