"""Data flows one way and imports go the other: docs/design.md, held."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "msta"
FILES = sorted(SOURCE.rglob("*.py"))

# What a package may import besides itself. Modules at the top (errors, files, memory …) are open to all.
ALLOWED = {
    "backbone": set(),
    "data": set(),
    "descriptions": {"backbone", "data"},
    "methods": {"backbone"},
    "config": {"backbone", "data", "methods", "descriptions"},
    "evaluation": {"data", "backbone", "methods", "descriptions", "config", "training"},
    "training": {"data", "backbone", "methods", "descriptions", "config", "evaluation"},
    "inference": {"data", "backbone", "methods", "descriptions", "config", "training", "evaluation"},
    "demo": {"data", "backbone", "methods", "descriptions", "config", "training", "evaluation", "inference"},
}
BASE = {"errors", "files", "memory", "notices", "_version"}


def part(module: str) -> str:
    """msta.data.clips -> data"""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    """The parts of msta that a file imports, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {
                f"{node.module}.{alias.name}" if node.module == "msta" else str(node.module) for alias in node.names
            }
    return {part(m) for m in modules if m.split(".")[0] == "msta"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_import_direction(path):
    inside = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    found = imported(path)
    if inside != "__main__":
        assert "cli" not in found - {inside}, "nothing imports the command line"
    if inside in ALLOWED:
        assert found <= ALLOWED[inside] | BASE | {inside}
    elif inside in BASE:
        assert found <= BASE
    else:
        assert inside in {"__init__", "__main__", "cli"}, f"{inside}: say in ALLOWED what it may import"


def test_the_rule_sees_imports():
    assert imported(SOURCE / "methods" / "msta.py") == {"backbone", "errors", "methods"}
