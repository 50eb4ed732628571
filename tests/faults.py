"""Count and run the tests of faults, by class: `python -m tests.faults [--soak] [--write]`.

A class is what `@pytest.mark.fault(CLASS, cases=N)` says; N is for a test that tries several cases, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

_PAGE = Path(__file__).parents[1] / "TESTING.md"
_TABLE = re.compile(r"(?<=<!-- faults -->\n).*?(?=<!-- end of faults -->)", re.DOTALL)


class _Counts:
    """A plugin of pytest that counts the cases of each class that passed, and those that did not."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._classes: dict[str, list[tuple[str, int]]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._classes[item.nodeid] = [
                (mark.args[0], mark.kwargs.get("cases", 1)) for mark in item.iter_markers("fault")
            ][:1]  # the closest

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.skipped:
            counts = self.passed if report.passed else self.skipped
            counts.update(dict(self._classes[report.nodeid]))

    def show(self) -> str:
        rows = "".join(f"| {name} | {self.passed[name]:,} |\n" for name in sorted(self.passed))
        return f"| class of fault | cases |\n|---|---|\n{rows}| all | {self.passed.total():,} |\n"


def main() -> int:
    """Run the tests of faults, print how many cases of each class passed, and return pytest's status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--soak", action="store_true", help="the long campaigns too")
    parser.add_argument("--write", action="store_true", help="put the counts into TESTING.md")
    options = parser.parse_args()
    counts = _Counts()
    selection = "fault" if options.soak else "fault and not soak"
    status = pytest.main(["-q", "-n", "0", "-m", selection, "--timeout", "7200"], plugins=[counts])
    print(counts.show())
    if options.write and status == 0:
        _PAGE.write_text(_TABLE.sub(lambda _: counts.show(), _PAGE.read_text("utf-8")), "utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
