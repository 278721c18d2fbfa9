"""The row of scored slices: in order, with the worst among them, outliers marked."""

from __future__ import annotations

import dataclasses

from node.report.overlay_thumbs import chosen_for_thumbs
from tests.report.test_overlay import drawn, result, with_outliers


def test_thumbnails_are_in_order_and_hold_the_worst_slice() -> None:
    a = result(slices=41)
    slices = tuple(dataclasses.replace(s, score=1.0 if k == 17 else 60.0) for k, s in enumerate(a.slices))
    chosen = chosen_for_thumbs(slices)
    assert len(chosen) == 7 and chosen == sorted(chosen) and 17 in chosen
    assert chosen_for_thumbs(slices[:3]) == [0, 1, 2]
    told = drawn(dataclasses.replace(a, slices=slices))
    assert "18 worst" in told and "7 of 41 scored slices, feet to head" in told


def test_ten_slices_are_all_shown_and_outliers_marked() -> None:
    told = drawn(with_outliers(result(slices=10, stack=41), k2="noise", k5="structure", k8="blur"))
    assert "10 scored slices, feet to head" in told and [t for t in told if t.startswith("+ ")][1:] == ["+ noisier", "+ streaky", "+ softer"]
    assert chosen_for_thumbs(result(slices=10).slices) == list(range(10)) and len(chosen_for_thumbs(result(slices=11).slices)) == 7
    assert not any(t.startswith("+") for t in drawn(result(slices=7)))
