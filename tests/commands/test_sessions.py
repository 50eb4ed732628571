"""`dsvl sessions` on the command line; what the commands print is tested in tests/app/test_sessions.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsvl_cli.cli import main
from dsvl_cli.sessions.store import SessionStore, default_store_path
from tests.sessions.samples import answer, question, talk


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One kept conversation; its id."""
    monkeypatch.setenv("DSVL_DATA_DIR", str(tmp_path))
    with SessionStore(default_store_path({"DSVL_DATA_DIR": str(tmp_path)})) as store:
        session_id = store.create()
        return store.save(session_id, talk(question("What is it?"), answer("A red circle.")), "tiny")


def test_a_conversation_can_be_listed_shown_searched_exported_and_removed(
    kept: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["sessions", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == kept
    assert main(["sessions", "show", kept]) == 0
    assert "A red circle." in capsys.readouterr().out
    assert main(["sessions", "search", "red", "circle"]) == 0
    assert kept in capsys.readouterr().out
    file = tmp_path / "talk.md"
    assert main(["sessions", "export", kept, str(file)]) == 0
    assert "A red circle." in file.read_text(encoding="utf-8")
    assert main(["sessions", "export", kept, str(file)]) == 1
    assert main(["sessions", "export", kept, str(file), "--overwrite"]) == 0
    assert main(["sessions", "rename", kept, "My", "red  circle"]) == 0
    assert main(["sessions", "show", "My red circle"]) == 0
    assert main(["sessions", "rm", kept]) == 2  # no terminal to ask on
    assert "--yes" in capsys.readouterr().err
    assert main(["sessions", "rm", kept, "--yes"]) == 0
    capsys.readouterr()
    assert main(["sessions", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_an_unknown_conversation_is_a_clear_error(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["show", "nothing"],
        ["rm", kept, "nothing"],
        ["rename", "nothing", "x"],
        ["export", "nothing", "x.md"],
    ):
        assert main(["sessions", *command]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "nothing" in captured.err
    assert main(["sessions", "show", kept]) == 0


def test_bare_sessions_is_a_usage_error_that_says_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions"]) == 2
    assert "dsvl sessions --help" in capsys.readouterr().err
