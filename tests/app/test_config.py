"""`dsvl config`: the example is complete and right, the path is printed, and what was edited is checked."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from dsvl_cli.cli import main
from dsvl_cli.config import read_config
from dsvl_cli.errors import ExitStatus
from dsvl_cli.settings import ALL_SETTINGS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of config.toml, which is not there yet."""
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path / "own"))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["config", "example"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_loads_and_changes_nothing(folder: Path, example: str) -> None:
    write(folder, example)
    found = read_config({"DSVL_CONFIG_DIR": str(folder)})
    assert (found.values, found.profiles, found.aliases) == ({}, (), {})


def test_every_line_of_the_example_is_right_by_itself_and_with_all_others(folder: Path, example: str) -> None:
    lines = re.findall(r"^#(\w+) = ", example, re.MULTILINE)
    assert set(ALL_SETTINGS) <= set(lines)
    for name in [*lines, r"\w+"]:
        write(folder, re.sub(rf"^#({name} = )", r"\1", example, flags=re.MULTILINE))
        found = read_config({"DSVL_CONFIG_DIR": str(folder)}, "fast" if name in ("fast", r"\w+") else None)
        assert name not in ALL_SETTINGS or set(found.values) == {name}
    assert set(found.values) == set(ALL_SETTINGS)


def test_the_example_explains_every_setting_with_its_choices(example: str) -> None:
    blocks = dict(re.findall(r"((?:^# .*\n)+)#(\w+) = ", example, re.MULTILINE)[::-1])
    meanings = {name: " ".join(text.replace("\n#", " ").split()) for text, name in blocks.items()}
    assert set(ALL_SETTINGS) <= set(meanings)
    assert "One of: auto, bfloat16, float16, float32." in meanings["dtype"]
    assert "at least 1" in meanings["max_new_tokens"]
    assert max(map(len, example.splitlines())) <= 120


def test_the_path_is_printed_whether_it_is_there_or_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "path"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{folder / 'config.toml'}\n"
    assert "dsvl config edit" in captured.err
    write(folder, "")
    assert main(["config", "path"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{folder / 'config.toml'}\n", "")


def use_editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Set an editor that runs Python code on the bytes of the file."""
    script = tmp_path / "an editor.py"
    script.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{code}\n", encoding="utf-8")
    monkeypatch.setenv("EDITOR", f"'{sys.executable}' '{script}'")


def test_editing_begins_with_the_example(
    folder: Path, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_editor(monkeypatch, tmp_path, "path.write_text('model = \"tiny\"\\n' + path.read_text())")
    assert main(["config", "edit"]) == 0
    assert (folder / "config.toml").read_text() == f'model = "tiny"\n{example}'
    assert tomllib.loads((folder / "config.toml").read_text())["model"] == "tiny"
    assert f"fine: {folder / 'config.toml'}" in capsys.readouterr().err
    use_editor(monkeypatch, tmp_path, "")
    assert main(["config", "edit"]) == 0
    assert "no change" in capsys.readouterr().err


def test_what_was_saved_wrong_is_told_with_its_line_and_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_editor(monkeypatch, tmp_path, "path.write_text('\\ntop_p = 3\\n')")
    assert main(["config", "edit"]) == ExitStatus.USAGE
    assert f"error: {folder / 'config.toml'}:2: top_p is 3; it must be" in capsys.readouterr().err
    assert (folder / "config.toml").read_text() == "\ntop_p = 3\n"


@pytest.mark.parametrize(
    ("editor", "told"), [(None, "there is no editor"), ("/no/such", "cannot be used"), ("'", "cannot be used")]
)
def test_without_an_editor_nothing_is_left(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    editor: str | None,
    told: str,
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("EDITOR", raising=False)
    if editor is not None:
        monkeypatch.setenv("EDITOR", editor)
    assert main(["config", "edit"]) == 1
    captured = capsys.readouterr()
    assert told in captured.err
    assert "Errno" not in captured.err
    assert "EDITOR" in captured.err.splitlines()[1]
    assert not (folder / "config.toml").exists()
