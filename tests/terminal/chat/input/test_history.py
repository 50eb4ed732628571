from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from dsvl_cli.terminal.chat.input.history import PrivateHistory, open_history
from dsvl_cli.terminal.console import Console, Environment


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("before", [None, 0o644])
def test_only_the_owner_can_read_it(tmp_path: Path, before: int | None) -> None:
    path = tmp_path / "new" / "history"
    if before is not None:
        path.parent.mkdir()
        path.touch()
        path.chmod(before)
    mask = os.umask(0)
    try:
        PrivateHistory(path).append_string("secret")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_entries_of_several_lines_come_back_newest_first(tmp_path: Path) -> None:
    first = PrivateHistory(tmp_path / "history")
    for entry in ("one", "two\nlines", "ünï"):
        first.append_string(entry)
    assert list(PrivateHistory(tmp_path / "history").load_history_strings()) == ["ünï", "two\nlines", "one"]


def test_a_full_disk_costs_the_entry_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = PrivateHistory(tmp_path / "history")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("builtins.open", refuse)
    history.append_string("lost")
    assert history.get_strings() == ["lost"]


def test_where_no_file_can_be_made_it_lasts_as_long_as_the_chat(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stderr = io.StringIO()
    console = Console(Environment(io.StringIO(), io.StringIO(), stderr, {}))
    history = open_history(tmp_path / "file" / "history", console)
    history.append_string("one")
    assert history.get_strings() == ["one"]
    assert "history file" in stderr.getvalue()
    assert not open_history(None, console).get_strings()
