"""The house stands on its floors: imports go down, never up, and never in a circle; what computes takes no command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
WINGS = {"lavit_edge": ROOT / "lavit_edge", "lavit_edge.quantize": ROOT / "quantize", "lavit_edge.export": ROOT / "export"}

# from the ground up; a room imports nothing of its own floor, nor of one above
FLOORS = (
    ("lavit_edge",),  # its __init__: the version, and names that are loaded when they are used
    ("errors", "memory", "metrics", "webpage"),
    ("files", "toolchain", "cli", "verbs"),
    ("contract",),
    ("data", "models", "artifact"),
    ("traced",),
    ("checkpoint", "verdict", "selftest"),
    ("classifier", "train", "quantize", "adapt"),
    ("parity",),
    ("export",),
    ("doctor", "benchmark", "see"),
    ("verify", "compare", "predict", "evaluate", "profile", "shards", "split", "serve", "__main__"),
)
COMMAND_LINE = "lavit_edge.cli.config_from"  # makes a config of it; all else takes what it needs
MOST_PARAMETERS = 8  # more than that are a config dataclass


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for wing, folder in WINGS.items():
        for file in folder.rglob("*.py"):
            parts = [part for part in file.relative_to(folder).with_suffix("").parts if part != "__init__"]
            found[".".join([wing, *parts])] = ast.parse(file.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def test_every_room_has_its_floor_here_and_on_the_page() -> None:
    assert {room(module) for module in MODULES} == {name for floor in FLOORS for name in floor}
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "house.md").read_text("utf-8"), re.MULTILINE)
    assert tuple(tuple(re.findall(r"`(\w+)/?`", row)) for row in rows) == FLOORS[1:]


def test_imports_go_down() -> None:
    level = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    up = [
        f"{module} imports {other}"
        for module, tree in MODULES.items()
        for other in imports(tree)
        if other in MODULES and room(other) != room(module) and level[room(other)] >= level[room(module)]
    ]
    assert up == []


def test_no_two_files_import_each_other_in_a_circle() -> None:
    graph = {
        module: {other for other in imports(tree) if other in MODULES and other != module} for module, tree in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


def functions() -> Iterator[tuple[str, list[ast.arg]]]:
    """Every function of the package by its dotted name, and its parameters without ``self``."""
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = node.args
                given = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
                yield f"{module}.{node.name}", [each for each in given if each.arg not in ("self", "cls")]


def test_what_computes_takes_no_command_line() -> None:
    taking = {
        name
        for name, given in functions()
        if any(each.annotation is not None and "Namespace" in ast.unparse(each.annotation) for each in given)
    }
    assert taking == {COMMAND_LINE}


def test_long_lists_of_parameters_are_configs() -> None:
    """An architecture's are one: the options of the model in ``config.json``. What an operation of MIL takes, MIL says."""
    assert [
        f"{name} has {len(given)} parameters"
        for name, given in functions()
        if len(given) > MOST_PARAMETERS
        and not re.fullmatch(r"lavit_edge\.(models\.\w+\.__init__|artifact\.mlprogram_ops\.\w+)", name)
    ] == []
