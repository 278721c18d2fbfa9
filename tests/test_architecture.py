"""The arrows of DESIGN section 3: who may import whom, and what stays out of the start-up of each process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("node", "qa_engine", "storage")

# Third-party fences (docs/architecture.md): import name -> places that may import it.
FENCES = {
    "dbos": ("node/workflow",),
    "apscheduler": ("node/",),
    "pynetdicom": ("node/",),
    "highdicom": ("node/",),
    "torch": ("qa_engine/",),
    "safetensors": ("qa_engine/",),
    "SimpleITK": ("qa_engine/",),
    "alembic": ("storage/",),
    "pydicom": ("node/", "qa_engine/"),
}


def imports(file: Path) -> set[str]:
    """Top-level names that `file` imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def sources() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def test_packages_import_one_way() -> None:
    forbidden = {"qa_engine": {"node", "storage"}, "storage": {"node", "qa_engine"}, "node": set()}
    breaches = [f"{file.relative_to(ROOT)}: {name}" for file in sources()
                for name in imports(file) & forbidden[file.relative_to(ROOT).parts[0]]]
    assert breaches == []


@pytest.mark.parametrize("library", FENCES)
def test_third_party_fences(library: str) -> None:
    breaches = [str(file.relative_to(ROOT)) for file in sources()
                if library in imports(file) and not str(file.relative_to(ROOT)).startswith(FENCES[library])]
    assert breaches == []


@pytest.mark.parametrize("module", ["node.cli", "node.receive", "storage.index", "storage.audit_log", "node.config"])
def test_no_torch_at_import_time(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'SimpleITK', 'dbos') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_stay_readable() -> None:
    long = {str(f.relative_to(ROOT)): n for f in sources() if (n := len(f.read_text(encoding="utf-8").splitlines())) > 400}
    assert long == {}
