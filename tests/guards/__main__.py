"""Take each guard out of a copy of the program and see its tests fail: `python -m tests.guards [AREA...]`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.guards.guard import ROOT, Guard, read_guards


def main(areas: list[str]) -> int:
    """Try the guards of these areas, or all; return 1 if one can go without a test that fails."""
    guards = [guard for guard in read_guards() if not areas or guard.area in areas]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "dsvl")
        _copy_sources(copy)
        names = sorted({name for guard in guards for name in guard.tests})
        print(f"{len(names)} tests with every guard in place", flush=True)
        if (status := _run_tests(copy, names)) != 0:
            print(f"they do not pass: pytest ended with {status}")
            return 1
        loose = [guard for guard in guards if not _is_held(copy, guard)]
    print(f"{len(guards) - len(loose)} of {len(guards)} guards are held by a test")
    return 1 if loose else 0


def _copy_sources(copy: Path) -> None:
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def _is_held(copy: Path, guard: Guard) -> bool:
    file = copy / guard.file
    source = file.read_text("utf-8")
    file.write_text(guard.without(source), "utf-8")
    try:
        status = _run_tests(copy, list(guard.tests))
    finally:
        file.write_text(source, "utf-8")
    held = status == 1  # pytest's status for tests that failed; a file that no longer imports ends with another
    print(f"{'held ' if held else 'LOOSE'}  {guard.threat:>2}  {guard.area}: {guard.name}", flush=True)
    return held


def _run_tests(copy: Path, names: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", "", *names]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
