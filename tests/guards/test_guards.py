"""The lists of guards fit the program and its tests."""

from __future__ import annotations

import re

import pytest

from tests.guards.guard import ROOT, Guard, read_guards

_GUARDS = read_guards()


@pytest.mark.parametrize("guard", _GUARDS, ids=lambda guard: f"{guard.area}: {guard.name}")
def test_guard_is_in_the_program_and_its_tests_exist(guard: Guard) -> None:
    without = guard.without((ROOT / guard.file).read_text("utf-8"))
    compile(without, guard.file, "exec")
    for name in guard.tests:
        path, *parts = name.split("[")[0].split("::")
        source = (ROOT / path).read_text("utf-8")
        assert all(re.search(rf"^\s*(async )?(def|class) {part}\b", source, re.MULTILINE) for part in parts), name


def test_each_promise_of_the_security_page_has_a_guard() -> None:
    page = (ROOT / "SECURITY.md").read_text("utf-8").split("## What dsvl promises")[1].split("\n## ")[0]
    promises = {int(number) for number in re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)}
    assert {guard.threat for guard in _GUARDS} <= promises
