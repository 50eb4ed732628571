from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli import cli
from dsvl_cli.engine.conversion import convert as requantize
from tests.engine.conversion.test_verify import LAYER, change

PICTURE = str(Path(__file__).parent.parent.parent / "examples" / "red-circle.png")


def run(*arguments: object) -> int:
    return cli.main(["quantize", *map(str, arguments), "--quiet", "--device", "cpu"])


def test_a_folder_is_written_and_described_with(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("tiny", out, "--format", "4bit") == 0
    assert capfd.readouterr() == ("", "")
    assert (out / "README.md").is_file()
    describe = ["describe", PICTURE, "--model", str(out), "--max-new-tokens", "3", "--quiet", "--json"]
    assert cli.main(describe) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["model"] == str(out)
    assert captured.err == ""


@pytest.mark.parametrize("name", ["bnb-int8", "torchao-int8", "torchao-int8-dynamic"])
def test_no_library_speaks_when_a_picture_is_described(capfd: pytest.CaptureFixture[str], name: str) -> None:
    command = ["describe", PICTURE, "--model", "tiny", "--quantization", name, "--max-new-tokens", "2", "--quiet"]
    assert cli.main([*command, "--device", "cpu"]) == 0
    assert capfd.readouterr().err == ""


def test_verify_tells_a_table_and_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("tiny", tmp_path / "a", PICTURE, "--verify", "--format", "8bit") == 0
    out, err = capfd.readouterr()
    assert err == ""
    for line in ("quantized layers", "same most likely token", "99th percentile", "tokens/s", "memory", "on disk"):
        assert line in out
    assert run("tiny", tmp_path / "b", PICTURE, "--verify", "--format", "8bit", "--json") == 0
    row = json.loads(capfd.readouterr().out)
    assert row["format"] == "bnb-int8"
    assert len(row["quantized"]) == len(row["verification"]["weights"]["layers"]) == 28
    assert row["verification"]["answers"]["pictures"] == 1
    assert row["verification"]["problems"] == []


def test_verify_fails_where_the_disk_holds_something_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsvl_cli.engine.checkpoint.find import check_folder

    write = requantize.quantize_checkpoint

    def write_and_damage(*arguments: Any, **options: Any) -> Any:
        written = write(*arguments, **options)
        change(check_folder("x", written.path), f"{LAYER}.weight.absmax", lambda tensor: tensor.flip(0))
        return written

    monkeypatch.setattr(requantize, "quantize_checkpoint", write_and_damage)
    assert run("tiny", tmp_path / "out", "--verify") == 1
    out, err = capfd.readouterr()
    assert "1 damaged" in out
    assert err == f"error: {LAYER}.weight is damaged\n"


def test_an_existing_model_is_replaced_only_when_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    assert run("tiny", out) == 1
    assert "--overwrite" in capfd.readouterr().err
    assert (out / "config.json").read_text() == "{}"
    assert run("tiny", out, "--overwrite") == 0
    assert "quantization_config" in json.loads((out / "config.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["tiny", "out", PICTURE], 2, "--verify"),
        (["tiny", "out", "--format", "int3"], 2, "int3"),
        (["tiny", "out", "--format", "torchao-int4"], 1, "bnb-nf4"),
        (["tiny", "out", "--format", "int4"], 1, "bnb-nf4"),
        (["tiny", "out", "--format", "int8"], 1, "bnb-int8"),
        (["tiny", "out", "--include-head"], 1, "head"),
        (["tiny", "out", "--group-size", "7"], 2, "--group-size is 7"),
        (["nothing", "out"], 2, "nothing"),
    ],
)
def test_what_cannot_be_done_is_refused_in_two_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert word in err
    assert err.count("\n") <= 2
    assert list(tmp_path.iterdir()) == []


def test_names_and_defaults_come_from_config(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["[aliases]", 'mine = "tiny"', "[loading]", 'quantization = "bnb-fp4"']
    lines += ["[profiles.wide]", 'quantization = "bnb-int8"']
    (tmp_path / "config.toml").write_text("\n".join(lines))
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path))
    formats = {"a": (), "b": ("--profile", "wide"), "c": ("--profile", "wide", "--format", "bnb-nf4")}
    for name, options in formats.items():
        assert run("mine", tmp_path / name, "--json", *options) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["format"] for row in rows] == ["bnb-fp4", "bnb-int8", "bnb-nf4"]
    assert [row["source"] for row in rows] == ["tiny"] * 3
    assert run("mine", tmp_path / "d", "--profile", "wild") == 2
    assert "wide" in capfd.readouterr().err
