"""The text side of the configuration: YAML with places, environment overrides, and mistakes as lines that say what to write."""

from __future__ import annotations

import difflib
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

Place = tuple[str | int, ...]
PREFIX = "MEDIQA_"
MAX_BYTES = 2**20


class ConfigError(Exception):
    """A wrong configuration; `lines` and `str` are one line per mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass
class Source:
    """Plain values and where each of them stands."""

    values: dict[str, Any]
    folder: Path
    file: Path | None
    places: dict[Place, str] = field(default_factory=dict)
    """Place of a key -> `file:line:column` or `environment NAME`."""

    def at(self, place: Place, text: str) -> str:
        """One line about `place`: where it stands (or its nearest parent), its dotted name, `text`."""
        known = next((self.places[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.places), None)
        return f"{known or self.file or 'defaults'}: {dotted(place)}: {text}"

    def value(self, place: Place) -> Any:
        """The value at `place`, None where there is none."""
        value: Any = self.values
        for step in place:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def lines(self, error: ValidationError, model: type[BaseModel]) -> list[str]:
        """The mistakes that validation found, one located line each."""
        lines = []
        for item in error.errors(include_url=False, include_context=False):
            place = tuple(item["loc"])
            if item["type"] == "extra_forbidden":
                lines.append(self.at(place, _unknown(str(place[-1]), model, place[:-1])))
            elif item["type"] == "missing":
                lines.append(self.at(place, f"is missing, write {_wanted(model, place)}"))
            else:
                lines.append(self.at(place, f"{_shown(self.value(place), place)}, write {_wanted(model, place)}"))
        return lines


def read_source(path: Path | None, default: Path, model: type[BaseModel]) -> Source:
    """Values of the file and the environment. A missing default file is none; a named one that is missing is a `ConfigError`."""
    file = path if path is not None else default
    source = Source({}, file.absolute().parent, None)
    try:
        data = file.read_bytes()[:MAX_BYTES + 1]
    except OSError as error:
        if path is not None or not isinstance(error, FileNotFoundError):
            raise ConfigError([f"{file}: cannot be read ({error.strerror}), write the path of a configuration file"]) from None
        data = b""
    else:
        source.file = file.absolute()
    source.values = _parse(data, file, source.places)
    _override(source, os.environ, model)
    return source


def _parse(data: bytes, file: Path, places: dict[Place, str]) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise ConfigError([f"{file}: is larger than 1 MiB, write the path of a configuration file"])
    try:
        tree = YAML(typ="rt").load(StringIO(data.decode("utf-8-sig")))
    except UnicodeDecodeError:
        raise ConfigError([f"{file}: is not UTF-8 text, save it as UTF-8"]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        problem = (getattr(error, "problem", None) or str(error) or "cannot be read").splitlines()[0]
        raise ConfigError([f"{where}: is not YAML: {problem}"]) from None
    if tree is None:
        return {}
    if not isinstance(tree, CommentedMap):
        raise ConfigError([f"{file}:1:1: is not a mapping, write sections such as 'receive:'"])
    return _plain(tree, file, (), places)


def _plain(value: Any, file: Path, place: Place, places: dict[Place, str]) -> Any:
    """`value` of plain Python types (sequences as tuples); remembers where each key and item stands."""
    if isinstance(value, CommentedMap):
        out = {}
        for key, item in value.items():
            name = str(key)
            line, column = value.lc.key(key) if key in (value.lc.data or {}) else (value.lc.line, value.lc.col)
            places[*place, name] = f"{file}:{line + 1}:{column + 1}"
            if item is None and not place and name != "database":
                continue  # a section whose keys are all commented out
            out[name] = _plain(item, file, (*place, name), places)
        return out
    if isinstance(value, CommentedSeq):
        for k in range(len(value)):
            line, column = value.lc.item(k) if k in (value.lc.data or {}) else (value.lc.line, value.lc.col)
            places[*place, k] = f"{file}:{line + 1}:{column + 1}"
        return tuple(_plain(item, file, (*place, k), places) for k, item in enumerate(value))
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _override(source: Source, environment: Mapping[str, str], model: type[BaseModel]) -> None:
    """MEDIQA_<SECTION>__<KEY> (deeper: further __) replaces a key; MEDIQA_DATABASE the one key without a section."""
    problems = []
    for name in sorted(environment):
        if not name.startswith(PREFIX) or ("__" not in name and name != "MEDIQA_DATABASE"):
            continue
        place, problem = _resolve(name.removeprefix(PREFIX).split("__"), model)
        if problem:
            problems.append(f"environment {name}: {problem}")
            continue
        value: Any = environment[name]
        if _annotation(model, place) is not str:
            try:
                value = _plain(YAML(typ="rt").load(value), Path(name), place, {})
            except (YAMLError, ValueError, RecursionError):
                pass  # the text itself is then refused, with what to write
        target = source.values
        for step in place[:-1]:
            inner = target.get(step)
            target[step] = dict(inner) if isinstance(inner, dict) else {}
            target = target[step]
        target[place[-1]] = value
        source.places = {p: w for p, w in source.places.items() if p[:len(place)] != place}
        source.places[place] = f"environment {name}"
    if problems:
        raise ConfigError(problems)


def _resolve(steps: list[str], model: type[BaseModel]) -> tuple[Place, str]:
    """Keys named by an environment variable, whatever their case, or what is wrong with it."""
    place: Place = ()
    for step in steps:
        inner = _model_at(model, place)
        names = inner.model_fields if inner is not None else {}
        found = next((n for n in names if n.lower() == step.lower()), None)
        if found is None:
            return place, _unknown(step.lower(), model, place)
        place = (*place, found)
    return place, ""


def dotted(place: Place) -> str:
    """`destinations[0].port`"""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.lstrip(".") or "file"


def _shown(value: Any, place: Place) -> str:
    """What stands there, short; a database URL may hold a password and is not repeated."""
    if place[0] == "database":
        return "is wrong"
    text = repr(value)
    return f"is {text if len(text) <= 40 else text[:37] + '...'}"


def _unknown(key: str, model: type[BaseModel], place: Place) -> str:
    inner = _model_at(model, place)
    names = list(inner.model_fields) if inner is not None else []
    close = difflib.get_close_matches(key, names, n=1)
    return f"unknown key, did you mean {close[0]}?" if close else f"unknown key, write one of {', '.join(names) or 'the documented keys'}"


def _bare(annotation: Any) -> Any:
    """The type without Annotated and without None."""
    while get_origin(annotation) is not None and hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(a for a in get_args(annotation) if a is not type(None)))
    return annotation


def _annotation(model: type[BaseModel], place: Place) -> Any:
    """The bare type at `place`, None where there is no such key."""
    kind: Any = model
    for step in place:
        if isinstance(step, int):
            kind = _bare(get_args(kind)[0]) if get_args(kind) else None
        else:
            is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
            kind = _bare(kind.model_fields[step].annotation) if is_model and step in kind.model_fields else None
    return kind


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    kind = _annotation(model, place)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _wanted(model: type[BaseModel], place: Place) -> str:
    """What to write at `place`: the description of the key, or of its items."""
    kind: Any = model
    told = "a value of the documented kind"
    for step in place:
        if isinstance(step, int):
            item = get_args(kind)[0] if get_args(kind) else None
            told = next((m.description for m in getattr(item, "__metadata__", ()) if getattr(m, "description", None)), told)
            kind = _bare(item)
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and step in kind.model_fields:
            info = kind.model_fields[step]
            told, kind = info.description or told, _bare(info.annotation)
            if isinstance(kind, type) and issubclass(kind, BaseModel) and not info.description:
                told = f"keys under it: {', '.join(kind.model_fields)}"
        else:
            break
    if isinstance(kind, type) and issubclass(kind, BaseModel) and place and isinstance(place[-1], int):
        told = f"keys {', '.join(kind.model_fields)}"
    return told
