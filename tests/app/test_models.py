"""`dsvl models`: what is listed, and what is removed; never a folder of the user's own."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.cli import main
from dsvl_cli.engine.checkpoint.find import ALIASES, EMBEDDED_FOLDER
from dsvl_cli.engine.machine.detect import Machine
from dsvl_cli.errors import ExitStatus

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty folders for everything, and a machine with 8 GB of free memory."""
    monkeypatch.setattr("dsvl_cli.engine.machine.detect.detect_machine", lambda: Machine(memory_free=8 * 10**9))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def plant(home: Path, repo: str, *, without: str = "", model_type: str = "deepseek_vl") -> Path:
    """Put the embedded model into the hub cache under another name, as huggingface_hub lays it out."""
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    for place in (snapshot, folder / "blobs", folder / "refs"):
        place.mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(EMBEDDED_FOLDER.iterdir())):
        if file.is_file() and file.name != without and file.suffix not in (".py", ".md"):
            data = file.read_bytes()
            if file.name == "config.json":
                data = data.replace(b'"model_type": "deepseek_vl"', f'"model_type": "{model_type}"'.encode())
            blob = folder / "blobs" / f"{number:040x}"
            blob.write_bytes(data)
            (snapshot / file.name).symlink_to(blob)
    return folder


def pack(home: Path, name: str, size: int = 3000) -> Path:
    path = home / "cache" / "packed" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert main(["models", *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return {row["name"]: row for row in map(json.loads, captured.out.splitlines())}


def test_aliases_are_listed_whether_they_are_here_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys)
    assert list(rows) == list(ALIASES)
    assert rows["tiny"]["kind"] == "built in"
    assert (rows["tiny"]["path"], rows["tiny"]["fits"]) == (str(EMBEDDED_FOLDER), True)
    assert (rows["1.3b"]["path"], rows["1.3b"]["fits"], rows["1.3b"]["target"]) == (None, True, ALIASES["1.3b"])
    assert rows["7b"]["fits"] is False
    assert (rows["7b"]["bytes"], rows["7b"]["download_bytes"]) == (None, 14_680_000_000)
    assert rows["7b"]["needed_bytes"] > 14 * 10**9
    assert listed(capsys, "list") == rows


def test_the_hub_cache_folders_aliases_and_packed_weights_are_listed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(home, ALIASES["1.3b"])
    plant(home, "org/part", without="model.safetensors")
    plant(home, "org/other", model_type="llama")
    shutil.copytree(EMBEDDED_FOLDER, home / "work" / "mine")
    (home / "work" / "photos").mkdir()
    (home / "config.toml").write_text(f"[aliases]\nown = '{home / 'work' / 'mine'}'\ngone = '/no/such/folder'\n")
    pack(home, "3fa9c1d2aaaaaaaaaaaaaaaaaaaaaaaa-int4-head-169-4")
    rows = listed(capsys)
    assert rows["1.3b"]["path"].endswith(COMMIT)
    assert rows["1.3b"]["format"] == rows["tiny"]["format"] == rows["./mine"]["format"] != ""
    assert rows["1.3b"]["bytes"] > 5 * 10**6
    assert rows["org/part"]["kind"] == "hub cache"
    assert "incomplete" in rows["org/part"]["problem"]
    assert "org/other" not in rows
    assert "./photos" not in rows
    assert rows["own"]["fits"] is True
    assert "/no/such/folder" in rows["gone"]["problem"]
    assert (rows["3fa9c1d2-int4-head"]["bytes"], rows["3fa9c1d2-int4-head"]["kind"]) == (3000, "packed")


def test_a_pipe_gets_fields_and_no_connection_is_opened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", connect)
    assert main(["models"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == list(ALIASES)
    assert {len(row) for row in rows} == {5}
    assert "does not fit" in rows[2][4]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["models"]) == 0
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "FORMAT"]
    assert any(line.startswith("tiny ") for line in lines)
    words = " ".join(out.getvalue().split())
    assert "not on this machine, 3.9 GB to download; fits" in words
    assert not any(line.strip().startswith(("GB", "MB")) for line in lines)
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(("count", "rows"), [(8, 8), (9, 1)])
def test_many_packed_weights_are_summed_up(home: Path, monkeypatch: pytest.MonkeyPatch, count: int, rows: int) -> None:
    for number in range(count):
        pack(home, f"{number:08}aaaa-int4-169-4")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    assert main(["models"]) == 0
    assert out.getvalue().count("packed weights") == rows
    assert ("27.0 kB" in out.getvalue()) == (rows == 1)


@pytest.mark.parametrize("name", ["1.3b", "1.3B", ALIASES["1.3b"]])
def test_a_downloaded_model_is_removed_with_all_its_files(
    home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder, other = plant(home, ALIASES["1.3b"]), plant(home, "org/stays")
    packed = pack(home, "3fa9-int8-169-4")
    (folder / "blobs" / "half.incomplete").write_bytes(bytes(1000))
    assert main(["models", "rm", name, "--yes"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"removed {ALIASES['1.3b']}" in captured.err
    assert "MB freed" in captured.err
    assert not folder.exists()
    assert other.exists()
    assert packed.exists()
    assert listed(capsys)["1.3b"]["path"] is None


@pytest.mark.parametrize(("name", "left"), [("3fa9c1d2-int4", 1), ("packed", 0)])
def test_packed_weights_are_removed_one_by_one_or_all(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, left: int
) -> None:
    pack(home, "3fa9c1d2aaaa-int4-169-4", 1000)
    pack(home, "3fa9c1d2aaaa-int4-168-3", 2000)  # of an older dsvl
    pack(home, "3fa9c1d2aaaa-int8-169-4", 5000)
    assert main(["models", "rm", name, "--yes"]) == 0
    assert len(list((home / "cache" / "packed").iterdir())) == left
    assert f"{'3.0' if left else '8.0'} kB freed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tiny", "built into dsvl"),
        ("./mine", "a folder of yours"),
        ("own", "a folder of yours"),
        ("mine", "a folder of yours"),
        ("7b", "is in the hub cache"),
        ("org/nothing", "is in the hub cache"),
        ("org/other", "is in the hub cache"),
        ("nope", "there is no model 'nope'"),
    ],
)
def test_nothing_else_is_removed(home: Path, capsys: pytest.CaptureFixture[str], name: str, told: str) -> None:
    mine = shutil.copytree(EMBEDDED_FOLDER, home / "work" / "mine")
    (home / "config.toml").write_text(f"[aliases]\nown = '{mine}'\n")
    cached, other = plant(home, ALIASES["1.3b"]), plant(home, "org/other", model_type="llama")
    assert main(["models", "rm", "1.3b", name, "--yes"]) == 1
    assert told in capsys.readouterr().err
    assert all(folder.exists() for folder in (mine, cached, other, EMBEDDED_FOLDER / "config.json"))


@pytest.mark.parametrize(("answer", "is_removed"), [("y\n", True), ("yes\n", True), ("\n", False), ("", False)])
def test_it_is_asked_first(home: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_removed: bool) -> None:
    folder = plant(home, ALIASES["1.3b"])
    said, typed = Terminal(), Terminal(answer)
    monkeypatch.setattr("sys.stderr", said)
    monkeypatch.setattr("sys.stdin", typed)
    assert main(["models", "rm", "1.3b"]) == 0
    assert folder.exists() != is_removed
    assert f"{ALIASES['1.3b']}  " in said.getvalue()
    assert "for good? [y/N]" in said.getvalue()
    assert ("freed" if is_removed else "nothing is removed") in said.getvalue()


def test_without_a_terminal_it_needs_yes(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plant(home, ALIASES["1.3b"])
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["models", "rm", "1.3b"]) == ExitStatus.USAGE
    assert "--yes" in capsys.readouterr().err
    assert folder.exists()


def test_an_empty_cache_has_nothing_to_remove(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "rm", "packed", "--yes"]) == 0
    assert "no packed weights" in capsys.readouterr().err
