"""What tests/conftest.py does for all tests: seeds that a failure tells, and a quick tier that stays without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hypothesis

ROOT = Path(__file__).parent.parent


def fail(tmp_path: Path, source: str, *arguments: str) -> str:
    """Run a test that fails; returns what is told of it."""
    file = tmp_path / "test_it.py"
    file.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(file), *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stdout


def test_a_failure_tells_the_seed_and_the_seed_repeats_it(tmp_path: Path) -> None:
    source = "def test_it(chance):\n    assert chance.random() == 2\n"
    first, other = fail(tmp_path, source), fail(tmp_path, source)
    (seed,) = set(re.findall(r"--seed (\d+)", first))
    drawn = [
        re.findall(r"assert (0\.\d+) == 2", told) for told in (first, other, fail(tmp_path, source, "--seed", seed))
    ]
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_failed_property_tells_how_to_repeat_it() -> None:
    assert hypothesis.settings().print_blob


def test_a_quick_test_that_imports_torch_fails(tmp_path: Path) -> None:
    source = "import sys, pytest\n@pytest.mark.quick\ndef test_it():\n    sys.modules['torch'] = sys\n"
    assert "belongs into SLOW" in fail(tmp_path, source)
