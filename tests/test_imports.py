"""Imports go one way, and what is not needed is not imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dsvl_cli"
HEAVY = {"torch", "transformers", "PIL", "numpy", "huggingface_hub", "prompt_toolkit", "bitsandbytes", "accelerate"}

# What each part may import of the package besides itself; `engine.units` stands for one module.
ALLOWED = {
    "errors": set(),
    "settings": {"engine.options"},
    "config": {"errors", "settings", "engine.encodings"},
    "engine": {"errors"},
    "batch": {"errors", "engine"},
    "sessions": {"errors", "engine"},
    "terminal": {
        "errors", "config", "engine.constraints", "engine.conversation", "engine.encodings", "engine.options",
        "engine.progress", "engine.schemas", "engine.units",
    },
    "app": {"errors", "config", "settings", "engine", "terminal", "batch", "sessions"},
    "commands": {
        "errors", "config", "app", "engine.encodings", "engine.options", "terminal.console", "batch.output.formats",
        "engine.checkpoint.find", "engine.pictures.images",  # names to complete
    },
    "cli": {"errors", "config", "commands", "terminal"},
    "__main__": {"cli", "errors"},
    "__init__": {"engine", "errors"},  # the public names, imported when they are used
}  # fmt: skip

# The rooms of engine/, top to bottom: each uses only those further down. The last six import no torch.
ROOMS = (
    "diagnosis", "inventory", "conversion", "model", "generation", "network", "quantization", "kernels", "text",
    "pictures", "machine", "checkpoint", "storage", "samples", "schemas", "conversation", "progress", "encodings",
    "options", "constraints", "units",
)  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path, *, lazily: bool = False) -> set[str]:
    """The modules of the package that a file imports, without the package's own name; only within functions if so."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    places = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)] if lazily else [tree]
    found = set()
    for node in (node for place in places for node in ast.walk(place)):
        if isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in within if is_module(name)} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("dsvl_cli.") for name in found if name.startswith("dsvl_cli.")}


def is_module(name: str) -> bool:
    """Whether a dotted name of the package is a module or a folder of modules, not something in one."""
    place = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("dsvl_cli.") and (place.is_dir() or place.with_suffix(".py").is_file())


def imported_modules(path: Path) -> set[str]:
    """The same with what is imported out of a module, which may be a module as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}".removeprefix("dsvl_cli.") for alias in node.names}
    return found | imported(path)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(path):
        target = name.split(".")[0]
        assert target == part or target in ALLOWED[part] or name in ALLOWED[part], f"{path.name} imports {name}"


def engine_modules() -> list[Path]:
    return [path for path in modules() if path.relative_to(PACKAGE).parts[0] == "engine"]


def room_of(module: str) -> str:
    """The room of a module that is named from the package on: `machine` of `engine.machine.plan`."""
    return module.split(".")[1]


@pytest.mark.parametrize("path", engine_modules(), ids=lambda p: str(p.relative_to(PACKAGE / "engine")))
def test_rooms_use_only_those_below_them(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("engine", "__init__"):
        return
    room = room_of(".".join(parts))
    for name in imported(path):
        if name.startswith("engine."):
            used = room_of(name)
            assert used == room or ROOMS.index(used) > ROOMS.index(room), f"{room} is below {used}"


def test_modules_of_one_room_import_each_other_in_no_circle() -> None:
    arrows = {}
    for path in engine_modules():
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        arrows[name] = {used for used in imported(path) if used.startswith("engine.")}
    tuple(TopologicalSorter(arrows).static_order())  # raises CycleError


def test_every_room_has_its_place() -> None:
    names = {entry.stem for entry in (PACKAGE / "engine").iterdir() if not entry.name.startswith("__")}
    assert names == set(ROOMS)


def test_the_walk_sees_imports_within_functions_and_from_packages() -> None:
    assert "engine.model" in imported(PACKAGE / "app" / "describe.py")
    assert "engine.checkpoint.hub" in imported(PACKAGE / "engine" / "checkpoint" / "find.py")
    assert "engine.model" in imported(PACKAGE / "app" / "describe.py", lazily=True)
    assert "errors" not in imported(PACKAGE / "app" / "describe.py", lazily=True)


@pytest.mark.parametrize("name", sorted(path.stem for path in (PACKAGE / "app").iterdir() if path.stem[0] != "_"))
def test_a_command_declares_and_the_app_of_its_name_works(name: str) -> None:
    path = PACKAGE / "commands" / f"{name}.py"
    works = imported(path, lazily=True)
    assert works
    assert all(f"{module}.".startswith(f"app.{name}.") for module in works)
    assert not {module for module in imported(path) - works if module.startswith("app.")}


def test_no_modules_import_each_other() -> None:
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in modules()}
    graph = {name: imported_modules(path) & names.keys() for name, path in names.items()}
    assert "terminal.console" in graph["terminal.progress"]
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a circle


@pytest.mark.parametrize("path", [p for p in modules() if p.name == "__init__.py" and p.parent != PACKAGE])
def test_packages_are_empty(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == ""


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after a piece of code ran in a fresh process."""
    script = f"import sys\n{code}\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["describe", "--help"], ["--version"], [], ["chat", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(f"from dsvl_cli.cli import main\nassert main({arguments!r}) == 0")
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "from dsvl_cli.commands.options import complete_device, complete_model\n"
        "assert 'tiny' in dict(complete_model(''))\nassert 'cpu' in complete_device('')"
    )
    assert loaded_by(code).isdisjoint(HEAVY)


def test_the_conversation_is_free_of_torch() -> None:
    assert loaded_by("import dsvl_cli.engine.conversation, dsvl_cli.engine.options").isdisjoint(HEAVY)


def test_click_is_never_imported() -> None:
    for path in modules():
        assert "import click" not in path.read_text(encoding="utf-8")
        assert "_click" not in path.read_text(encoding="utf-8")
