"""One name, one thing: what the packages call public has one meaning each."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bandits", "policies", "serve_app", "simulator", "clients/python")
FULLEST = 16


def definitions(kind: type | tuple[type, ...]) -> dict[str, list[str]]:
    """Return where each public definition of a module is, by name."""
    found = defaultdict(list)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, kind) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_public_class_name_exists_twice():
    assert {name: at for name, at in definitions(ast.ClassDef).items() if len(at) > 1} == {}


def test_no_public_function_name_exists_twice():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    twice = {name: at for name, at in definitions(kinds).items() if len(at) > 1}
    assert {name: at for name, at in twice.items() if name != "main"} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_is_a_shelf(package):
    for room in {path.parent for path in (ROOT / package).rglob("*.py")}:
        assert len(list(room.glob("*.py"))) <= FULLEST, room
