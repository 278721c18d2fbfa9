"""The JSON of `mediqa score` against DESIGN section 7: every key, type, word and null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from qa_engine.outcome import TABLE, Severity, Verdict

REGIONS = {"head", "neck", "chest", "abdomen", "pelvis", "spine", "extremity", "breast", "heart", "whole-body"}
KEYS = {"series_uid", "modality", "region", "description", "instances", "end", "reason", "score", "interval", "verdict", "noise", "sharpness", "artefact",
        "worst_slice", "slices", "degradations", "measures", "acquisition", "findings", "text", "model", "seconds"}
NUMBERS = ("score", "noise", "sharpness", "artefact")
ENDS = {(str(row.end), None if row.reason is None else str(row.reason)) for row in TABLE}


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high


def is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def check_quantities(quantities: object) -> None:
    assert isinstance(quantities, dict)
    for name, quantity in quantities.items():
        assert is_text(name) and set(quantity) == {"value", "unit"} and isinstance(quantity["unit"], str)
        assert is_number(quantity["value"]) if quantity["unit"] else is_text(quantity["value"]), (name, quantity)


def check_slice(one: Mapping[str, Any]) -> None:
    assert set(one) == {"sop_uid", "frame", "position_mm", "score", "weight"}
    assert is_text(one["sop_uid"]) and (one["frame"] is None or (isinstance(one["frame"], int) and one["frame"] >= 1))
    assert one["position_mm"] is None or is_number(one["position_mm"])
    assert is_number(one["score"], 0, 100) and is_number(one["weight"], 0, 1)


def check_entry(entry: Mapping[str, Any]) -> None:
    """One entry of `series` against the contract."""
    assert set(entry) == KEYS
    assert is_text(entry["series_uid"]) and isinstance(entry["modality"], str) and isinstance(entry["description"], str)
    assert isinstance(entry["instances"], int) and entry["instances"] >= 1
    assert (entry["end"], entry["reason"]) in ENDS
    assert entry["region"] is None or set(entry["region"].split(" ")) <= REGIONS
    assert isinstance(entry["text"], str) and entry["text"]
    for finding in entry["findings"]:
        assert set(finding) == {"code", "text"} and is_text(finding["code"]) and is_text(finding["text"])
    check_quantities(entry["acquisition"])
    check_quantities(entry["measures"])
    assert set(entry["seconds"]) == {"read", "network", "total"} and is_number(entry["seconds"]["read"], 0) and is_number(entry["seconds"]["total"], 0)
    if entry["end"] != "assessed":
        assert all(entry[key] is None for key in (*NUMBERS, "interval", "verdict", "worst_slice", "model"))
        assert entry["slices"] == entry["degradations"] == [] and entry["measures"] == {}
        assert entry["seconds"]["network"] is None or entry["reason"] in ("unfamiliar-content", "wide-interval")
        return
    low, high = entry["interval"]
    assert 0 <= low <= entry["score"] <= high <= 100 and all(is_number(entry[key], 0, 100) for key in NUMBERS)
    assert entry["verdict"] in set(Verdict) and is_number(entry["seconds"]["network"], 0, entry["seconds"]["total"])
    slices = entry["slices"]
    for one in slices:
        check_slice(one)
    assert slices and sum(one["weight"] for one in slices) == pytest.approx(1.0, abs=1e-6 * len(slices))
    assert sum(one["weight"] * one["score"] for one in slices) == pytest.approx(entry["score"], abs=0.11)
    assert entry["worst_slice"] in slices and entry["worst_slice"]["score"] == min(one["score"] for one in slices)
    places = [one["position_mm"] for one in slices]
    assert None in places or places == sorted(places)
    for one in entry["degradations"]:
        assert set(one) == {"type", "severity", "probability", "amount", "unit"} and is_text(one["type"]) and one["severity"] in set(Severity)
        assert is_number(one["probability"], 0, 1) and (one["amount"] is None) == (one["unit"] is None)
        assert one["amount"] is None or (is_number(one["amount"]) and is_text(one["unit"]))
    assert entry["measures"] and all(is_number(q["value"]) for q in entry["measures"].values())
    assert set(entry["model"]) == {"profile", "version", "sha256"} and len(bytes.fromhex(entry["model"]["sha256"])) == 32


def check(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The whole object against the contract; its entries by series UID."""
    assert set(found) == {"series", "rejected"}
    for entry in found["series"]:
        check_entry(entry)
    for one in found["rejected"]:
        assert set(one) == {"file", "reason"} and is_text(one["file"]) and is_text(one["reason"])
    return {entry["series_uid"]: entry for entry in found["series"]}
