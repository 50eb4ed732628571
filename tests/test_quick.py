"""The quick tier: no test module is imported in it that brings torch, and none that could be in it is left out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.quick import SLOW, TESTS, is_quick

MODULES = {path.relative_to(TESTS).as_posix(): path for path in TESTS.rglob("test_*.py")}


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("terminal/test_markdown.py", True),
        ("test_settings.py", True),  # the formats of weights are named without torch
        ("commands/test_batch_options.py", True),
        ("engine/test_parity.py", False),  # imports torch
        ("engine/test_seeing.py", False),  # by its fixture's type only, and within a function
        ("commands/test_describe.py", False),  # by tests.checkpoints
        ("commands/test_batch.py", False),  # by what it runs
    ],
)
def test_what_imports_torch_in_whatever_way_is_not_quick(name: str, quick: bool) -> None:
    assert is_quick(MODULES[name]) == quick


@pytest.mark.parametrize("name", sorted(SLOW))
def test_what_is_slow_is_there(name: str) -> None:
    module, _, test = name.partition("::")
    assert f"def {test}" in MODULES[module].read_text(encoding="utf-8")


def run_quick(*arguments: str) -> tuple[list[str], str]:
    """Run the tier in a process of its own; returns the lines of its output and which torch it has loaded then."""
    script = "import pytest, sys; status = pytest.main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(status)"
    command = [sys.executable, "-c", script, "-m", "quick", "-p", "no:cacheprovider", "--assert=plain", *arguments]
    run = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    *lines, loaded = run.stdout.splitlines()
    return lines, loaded


def test_collecting_the_tier_imports_no_torch() -> None:
    lines, loaded = run_quick("--collect-only")
    assert loaded == "False"
    collected = {line.partition("::")[0].removeprefix("tests/") for line in lines if "::" in line}
    assert collected == {name for name, path in MODULES.items() if is_quick(path)}


def test_running_a_part_of_it_imports_no_torch() -> None:
    _, loaded = run_quick("tests/terminal/chat/slash", "tests/batch/test_captioner.py", "tests/engine/text")
    assert loaded == "False"
