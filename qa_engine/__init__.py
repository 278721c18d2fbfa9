"""Technical image quality of CT and MR series: numbers from pixels. `from qa_engine import assess` is all that a notebook needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qa_engine.assess import assess

__all__ = ["assess"]


def __getattr__(name: str) -> Any:
    """`assess` is imported when it is asked for: torch is not loaded by whoever only needs the words of this package."""
    if name == "assess":
        from importlib import import_module

        return import_module("qa_engine.assess").assess
    raise AttributeError(name)
