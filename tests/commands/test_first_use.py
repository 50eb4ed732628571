"""The user's way from nothing: no model, no cache and no flag. The hub is one on the loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dsvl_cli.engine.checkpoint.find import ALIASES, EMBEDDED_FOLDER
from dsvl_cli.engine.options import DEFAULT_MODEL
from dsvl_cli.engine.units import format_bytes
from tests.engine.hub import COMMIT, FakeHub, make_environ
from tests.hub_layout import write_hub_layout

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "dsvl_cli", "describe", "examples/red-circle.png"]
SEEN = "A red circle on a white background.\n"
REPO = ALIASES[DEFAULT_MODEL]
NO_NETWORK = "http://127.0.0.1:9"  # nobody listens on the port of the discard protocol
BESIDE = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", "README.md": b"# A model's card\n"}
LAST = "model-00003-of-00003.safetensors"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the default model as they are published, but for the weights: those of the embedded model."""
    folder = tmp_path_factory.mktemp("published")
    write_hub_layout(EMBEDDED_FOLDER, folder, dtype=torch.float16, shards=3, published=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()} | BESIDE


def describe(endpoint: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    variables = make_environ(endpoint, home) | environ
    return subprocess.run(COMMAND, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)


def check_cache(home: Path, repository: dict[str, bytes]) -> None:
    """Everything lies where every program that uses the hub looks for it."""
    folder = home / "hub" / f"models--{REPO.replace('/', '--')}"
    assert (folder / "refs" / "main").read_text() == COMMIT
    snapshot = folder / "snapshots" / COMMIT
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == {
        name: data for name, data in repository.items() if name not in BESIDE
    }
    if os.name == "posix":
        assert {path.resolve().parent for path in snapshot.iterdir()} == {folder / "blobs"}


def test_the_first_question_fetches_the_model_and_later_ones_need_no_hub(
    tmp_path: Path, repository: dict[str, bytes]
) -> None:
    with FakeHub({REPO: repository}) as hub:
        first = describe(hub.endpoint, tmp_path)
        fetched = hub.fetched()
    assert (first.stdout, first.returncode) == (SEEN, 0), first.stderr
    size = format_bytes(sum(len(data) for name, data in repository.items() if name.endswith(".safetensors")))
    told = first.stderr.splitlines()
    assert told[0] == f"downloading {REPO}: {size} to {tmp_path / 'hub'}"
    assert told[-1] == f"downloading {REPO}: 100 % ({size} of {size})"
    assert all(line.startswith(f"downloading {REPO}: ") for line in told)
    assert sorted(fetched) == sorted(repository.keys() - BESIDE.keys())
    check_cache(tmp_path, repository)
    assert not list(tmp_path.rglob("*.incomplete"))

    again = describe(NO_NETWORK, tmp_path, HF_HUB_OFFLINE="1")
    assert (again.stdout, again.stderr, again.returncode) == (SEEN, "", 0)


def test_a_download_that_was_cut_off_half_way_is_gone_on_with(tmp_path: Path, repository: dict[str, bytes]) -> None:
    with FakeHub({REPO: repository}, stalled={LAST}) as hub:
        child = subprocess.Popen(
            COMMAND, cwd=ROOT, env=make_environ(hub.endpoint, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert hub.is_stalling.wait(120)
        child.kill()
        assert child.communicate(timeout=60)[0] == b""

    half = describe(NO_NETWORK, tmp_path, HF_HUB_OFFLINE="1")
    assert (half.stdout, half.returncode) == ("", 1)
    assert f"error: {REPO} is not on this machine" in half.stderr
    assert "hint: " in half.stderr

    with FakeHub({REPO: repository}) as hub:
        done = describe(hub.endpoint, tmp_path)
        assert hub.fetched() == [LAST]
    assert (done.stdout, done.returncode) == (SEEN, 0), done.stderr
    assert "already downloaded" in done.stderr.splitlines()[0]
    check_cache(tmp_path, repository)
