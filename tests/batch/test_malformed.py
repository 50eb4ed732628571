"""Malformed pictures, bombs and odd ones give a picture or one line of an error, and nothing else."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dsvl_cli.engine.pictures.images import decode, picture_from_bytes
from dsvl_cli.errors import ImageError
from tests.batch.malformed import DAMAGES, FORMATS, NAMES, bombs, malformed, odd, sound, write_all


def outcome(name: str, data: bytes) -> str:
    """`picture`, or the error's message; whatever else is raised is the failure."""
    refusal = None
    try:
        picture = picture_from_bytes(data, name)
        image = decode(picture)
    except ImageError as error:
        refusal = error.message
    if refusal is not None:
        assert refusal.startswith(f"{name}: ")
        assert "\n" not in refusal
        assert " at 0x" not in refusal
        return refusal
    assert (image.mode, image.size) == ("RGB", (picture.width, picture.height))
    return "picture"


def test_a_sample_of_the_malformed() -> None:
    cases = list(malformed(140))
    kinds = {tuple(name.split("-")[1:]) for name, _ in cases}
    assert kinds == {(kind.lower(), damage.__name__) for kind in FORMATS for damage in DAMAGES}
    outcomes = [outcome(name, data) for name, data in cases]
    # Were all refused, or none, the damage would be too coarse, or too fine, to find anything.
    assert 20 < outcomes.count("picture") < 120


@pytest.mark.soak
def test_all_the_malformed() -> None:
    assert len([outcome(name, data) for name, data in malformed()]) == 1000


def test_they_are_the_same_each_time() -> None:
    assert dict(malformed(30)) == dict(malformed(30))
    assert [name for name, _ in malformed(30)] == [name for name, _ in malformed(30, seed=1)]
    assert dict(malformed(30)) != dict(malformed(30, seed=1))


def test_no_bomb_goes_off() -> None:
    cases = dict(bombs())
    assert len(cases) == 25
    for name, data in cases.items():
        what = outcome(name, data)
        assert len(data) < 10_000_000
        if name.endswith("-header"):
            assert "larger than the limit" in what or "damaged" in what, name


def test_there_are_as_many_as_is_said() -> None:
    assert len(dict(odd())) == 40
    assert len(set(NAMES)) == len(NAMES) >= 40
    assert max(map(len, NAMES)) == 255


def test_what_is_odd_but_sound_is_a_picture() -> None:
    assert {name: outcome(name, data) for name, data in odd()} == {name: "picture" for name, _ in odd()}


def test_every_format_is_sound_before_it_is_damaged() -> None:
    for kind in FORMATS:
        for n in range(8):
            assert outcome(kind, sound(kind, random.Random(n))) == "picture"


@pytest.mark.soak
def test_the_command_makes_one_row_of_each(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out.jsonl"
    folder.mkdir()
    written = write_all(folder)
    command = [sys.executable, "-m", "dsvl_cli", "batch", str(folder), "-o", str(out), "-m", "tiny"]
    done = subprocess.run([*command, "--max-new-tokens", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr[-2000:]
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    found = [os.path.basename(os.fsencode(row["id"])) for row in rows]
    assert len(found) == written
    assert set(found) == set(os.listdir(os.fsencode(folder)))
    for name, row in zip(found, rows, strict=True):
        assert (row["error"] is None) == (row["width"] is not None)
        assert row["error_type"] in (None, "ImageError")
        if name in NAMES:
            assert row["error"] is None
