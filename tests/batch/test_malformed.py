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
from tests.batch.fuzz import FOUND, KEPT, mutation, mutations
from tests.batch.malformed import DAMAGES, FORMATS, NAMES, bombs, malformed, odd, sound, write_all

ROOT = Path(__file__).parent.parent.parent


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


@pytest.mark.fault("malformed pictures", cases=140)
def test_a_sample_of_the_malformed() -> None:
    cases = list(malformed(140))
    kinds = {tuple(name.split("-")[1:]) for name, _ in cases}
    assert kinds == {(kind.lower(), damage.__name__) for kind in FORMATS for damage in DAMAGES}
    outcomes = [outcome(name, data) for name, data in cases]
    # Were all refused, or none, the damage would be too coarse, or too fine, to find anything.
    assert 20 < outcomes.count("picture") < 120


@pytest.mark.soak
@pytest.mark.fault("malformed pictures", cases=1000)
def test_all_the_malformed() -> None:
    assert len([outcome(name, data) for name, data in malformed()]) == 1000


@pytest.mark.fault("malformed pictures", cases=1000)
def test_1000_mutations_are_pictures_or_errors() -> None:
    outcomes = [outcome(name, data) for name, data in mutations(1000)]
    assert 200 < outcomes.count("picture") < 800


@pytest.mark.soak
@pytest.mark.fault("malformed pictures", cases=10_000)
def test_10000_mutations_take_little_time_and_memory(tmp_path: Path) -> None:
    """In a process with 2 GB of address space, so that one that takes all memory, or crashes, is found as well."""
    code = (
        "import resource, sys, time\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))\n"
        "from tests.batch.fuzz import mutations; from tests.batch.test_malformed import outcome\n"
        "for name, data in mutations(10_000):\n"
        "    print(name, flush=True); before = time.process_time(); outcome(name, data)\n"
        "    assert time.process_time() - before < 10, name\n"
        "print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines()[-1:] == ["done"], done.stdout[-200:] + done.stderr[-2000:]


@pytest.mark.fault("malformed pictures", cases=len(FOUND))
def test_what_mutations_found_once_is_a_picture_or_an_error() -> None:
    for seed, number in FOUND:
        outcome(*mutation(number, seed))


@pytest.mark.fault("malformed pictures", cases=len(KEPT))
def test_kept_files_are_pictures_or_errors() -> None:
    for name, data in KEPT.items():
        outcome(name, data)


def test_they_are_the_same_each_time() -> None:
    assert dict(malformed(30)) == dict(malformed(30))
    assert dict(mutations(30)) == dict(mutations(30)) != dict(mutations(30, seed=1))
    assert {mutation(number)[1] for number in range(30)} == set(dict(mutations(30)).values())
    assert [name for name, _ in malformed(30)] == [name for name, _ in malformed(30, seed=1)]
    assert dict(malformed(30)) != dict(malformed(30, seed=1))


@pytest.mark.fault("bombs", cases=25)
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
