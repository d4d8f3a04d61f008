"""Data flows one way and imports go the other: the table of docs/design.md, held."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import msta

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "msta"
FILES = sorted(SOURCE.rglob("*.py"))

# What a room may import besides itself; docs/design.md shows this table. BASE is open to all.
ALLOWED = {
    "data": set(),
    "backbone": set(),
    "adapters": {"data", "backbone"},
    "methods": {"backbone", "adapters"},
    "descriptions": {"data", "backbone"},
    "settings": {"data", "adapters", "descriptions"},
    "config": {"data", "backbone", "adapters", "methods", "descriptions", "settings"},
    "evaluation": {"data", "backbone", "adapters", "descriptions"},
    "training": {"data", "backbone", "adapters", "methods", "descriptions", "settings", "config", "evaluation"},
    "inference": {"data", "backbone", "adapters", "methods", "descriptions", "config", "evaluation"},
    "api": {"data", "backbone", "adapters", "methods", "descriptions", "config", "evaluation", "training", "inference"},
    "studies": {
        "data", "backbone", "adapters", "methods", "descriptions", "settings", "config", "evaluation", "training",
    },
    "serve": {"data", "backbone", "adapters", "methods", "inference"},
    "app": {"data", "backbone", "adapters", "methods", "config", "evaluation", "training", "inference"},
    "motionworld": {"data", "backbone", "adapters", "training"},
    "demo": {
        "data", "backbone", "adapters", "methods", "config", "evaluation", "training", "inference", "motionworld",
    },
}  # fmt: skip
BASE = {"errors", "files", "notices", "_version"}
TOP = {"__init__", "__main__", "cli"}


def room(module: str) -> str:
    """msta.data.clips -> data"""
    return module.split(".")[1] if "." in module else ""


def name_of(path: Path) -> str:
    return ".".join(("msta", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def imported(path: Path, *, annotations: bool = True) -> set[str]:
    """The modules of msta that a file imports, wherever in it; without those for annotations alone, if asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hints = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    modules = set()
    for node in ast.walk(tree):
        if id(node) in hints and not annotations:
            continue
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {
                inner
                if (inner := f"{node.module}.{alias.name}") in NAMES or node.module == "msta"
                else str(node.module)
                for alias in node.names
            }
    return {module for module in modules if module.split(".")[0] == "msta"}


NAMES = {name_of(path): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_import_direction(path):
    inside = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    found = {room(module) for module in imported(path)}
    if inside != "__main__":
        assert "cli" not in found - {inside}, "nothing imports the command line"
    if inside in ALLOWED:
        assert found <= ALLOWED[inside] | BASE | {inside}
    elif inside in BASE:
        assert found <= BASE
    else:
        assert inside in TOP, f"{inside}: say in ALLOWED what it may import"


def test_the_table_itself_goes_one_way():
    open_rooms = {name: set(allowed) for name, allowed in ALLOWED.items()}
    while open_rooms:
        lowest = {name for name, allowed in open_rooms.items() if not allowed}
        assert lowest, f"these rooms import each other: {sorted(open_rooms)}"
        open_rooms = {name: allowed - lowest for name, allowed in open_rooms.items() if name not in lowest}


def test_no_two_modules_import_each_other_not_even_around_corners():
    imports = {name: imported(path, annotations=False) & NAMES.keys() - {name} for name, path in NAMES.items()}
    while imports:
        free = {name for name, others in imports.items() if not others & imports.keys()}
        assert free, f"a circle among {sorted(imports)}"
        imports = {name: others for name, others in imports.items() if name not in free}


def test_every_line_of_the_table_is_in_the_docs():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for name, allowed in ALLOWED.items():
        assert f"| `{name}` | {', '.join(f'`{other}`' for other in allowed_in_order(allowed)) or 'nothing'} |" in page


def allowed_in_order(allowed: set[str]) -> list[str]:
    return [name for name in ALLOWED if name in allowed]


@pytest.mark.parametrize("name", msta.__all__)
def test_every_public_name_is_there(name):
    assert getattr(msta, name)


def test_the_rule_sees_imports():
    rooms = {room(module) for module in imported(SOURCE / "methods" / "msta.py")}
    assert rooms == {"adapters", "backbone", "errors", "methods"}
