"""The manuals of codes and outcomes are those that the program would print."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.report import codes
from qa_engine import outcome

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name, module", [("codes.md", codes), ("outcomes.md", outcome)])
def test_manual_is_up_to_date(name: str, module: object) -> None:
    text = module.manual()  # type: ignore[attr-defined]
    assert (DOCS / name).read_text(encoding="utf-8") == text, \
        f"write docs/{name} anew: python -c 'from {module.__name__} import manual; print(manual(), end=\"\")' > docs/{name}"  # type: ignore[attr-defined]


def test_every_end_and_reason_has_one_row() -> None:
    assert sorted(r.reason for r in outcome.TABLE if r.reason is not None) == sorted(outcome.Reason)
    assert {r.end for r in outcome.TABLE} == set(outcome.End)
    assert [r.end for r in outcome.TABLE if r.reason is None] == [outcome.End.ASSESSED]
    assert all(f"| `{r.reason}` |" in outcome.manual() for r in outcome.TABLE if r.reason is not None)

def test_every_cited_decision_exists() -> None:
    root = DOCS.parent
    cited = {word[:4] for package in ("node", "qa_engine", "storage") for file in (root / package).rglob("*.py")
             for word in file.read_text(encoding="utf-8").split("docs/decisions/")[1:]}
    missing = {number for number in cited if not list((DOCS / "decisions").glob(f"{number}-*.md"))}
    assert not missing


def test_decisions_are_numbered_once() -> None:
    files = sorted(f.name for f in (DOCS / "decisions").glob("*.md"))
    assert [name[:4] for name in files] == [f"{k:04d}" for k in range(1, len(files) + 1)]
    assert all((DOCS / "decisions" / name).read_text(encoding="utf-8").startswith(f"# {int(name[:4])}. ") for name in files)
