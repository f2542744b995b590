"""A room may import from the rooms above it, never from those below."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "moestro"

# From the ground up. Rooms on one line do not know each other.
LAYERS: list[set[str]] = [
    {"errors", "units", "findings", "closing", "words"},
    {"hardware"},
    {"model"},
    {"planning"},
    {"engine"},
    {"client"},
    {"load"},
    {"routing"},
    {"verify"},
    {"tune"},
    {"doctor"},
    {"gateway"},
    {"export"},
    {"demo"},
    {"cli"},
]
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
MAY_IMPORT_ENGINE_PACKAGE = SOURCE / "engine" / "llama_cpp"


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "moestro" and len(parts) > 1 and not parts[1].startswith("_"):
            found.add(parts[1])
    return found


FILES = sorted(SOURCE.rglob("*.py"))
ROOM_FILES = [path for path in FILES if not path.name.startswith("__") or path.parent != SOURCE]


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_from_above(path: Path) -> None:
    room = room_of(path)
    assert room in HEIGHT, f"{room} has no place in the table of rooms"
    for other in imported_rooms(path) - {room}:
        assert other in HEIGHT, f"{path} imports the unknown room {other}"
        same_level = HEIGHT[other] == HEIGHT[room]
        both_ground = same_level and HEIGHT[room] == 0
        assert HEIGHT[other] < HEIGHT[room] or both_ground, f"{path}: {room} must not know {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_one_room_knows_the_engine_package(path: Path) -> None:
    if path.is_relative_to(MAY_IMPORT_ENGINE_PACKAGE):
        return
    roots = {name.split(".")[0] for name in imported_modules(path)}
    assert not roots & {"xllamacpp"}, f"{path} must go through moestro.engine"


def test_the_table_names_only_rooms_that_exist() -> None:
    assert {room_of(path) for path in ROOM_FILES} == set(HEIGHT)
