"""Each case runs in a process of its own, since the variables are read when huggingface_hub is imported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.engine.files import make_files, make_sharded_files, make_weights
from tests.engine.hub import COMMIT, FakeHub, make_environ

REPO = "deepseek-community/deepseek-vl-1.3b-chat"
NO_NETWORK = "http://127.0.0.1:9"  # nobody listens on the port of the discard protocol

PROGRAM = textwrap.dedent(
    """
    import json, sys, time
    time.sleep = lambda seconds: None  # between retries
    from dsvl_cli.engine.checkpoint.find import find_checkpoint
    from dsvl_cli.engine.options import LoadOptions
    from dsvl_cli.errors import DsvlError

    class Ear:
        heard = {"notes": [], "progress": []}
        def note(self, text): self.heard["notes"].append(text)
        def choice(self, choice): raise AssertionError(choice)
        def progress(self, what, done, total): self.heard["progress"].append([done, total])

    heard = Ear.heard
    try:
        found = find_checkpoint(LoadOptions(**json.loads(sys.argv[1])), Ear())
        heard |= {"path": str(found.path), "commit": found.commit, "parameters": found.parameters}
    except DsvlError as error:
        heard |= {"message": error.message, "hint": error.hint}
    heard["heavy"] = sorted({"torch", "transformers", "PIL"} & set(sys.modules))
    print(json.dumps(heard))
    """
)


def ask(hub: FakeHub | str, home: Path, environ: dict[str, str] | None = None, **options: object) -> dict[str, Any]:
    """What `find_checkpoint` says and returns in a fresh process; nothing else may reach its streams."""
    endpoint = hub if isinstance(hub, str) else hub.endpoint
    command = [sys.executable, "-c", PROGRAM, json.dumps({"model": "1.3b", **options})]
    variables = make_environ(endpoint, home) | (environ or {})
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert (done.stderr, done.returncode) == ("", 0), done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["heavy"] == []
    return answer


def big_files() -> dict[str, bytes]:
    rubbish = {"pytorch_model.bin": b"x", "modeling_x.py": b"x", "README.md": b"x", "onnx/model.safetensors": b"x"}
    return make_files(model_safetensors=make_weights({"a": (1000, 1000)})) | rubbish


def test_a_download_says_its_size_and_shows_its_progress_and_serves_later_runs(tmp_path: Path) -> None:
    files = big_files()
    with FakeHub({REPO: files}) as hub:
        answer = ask(hub, tmp_path)
        assert answer["commit"] == COMMIT
        assert answer["parameters"] == 1_000_000
        assert answer["notes"] == [f"downloading {REPO}: 2.0 MB to {tmp_path / 'hub'}"]
        done, totals = zip(*answer["progress"], strict=True)
        assert set(totals) == {len(files["model.safetensors"])}
        assert list(done) == sorted(done)
        assert [at for at in done if at == totals[0]] == [totals[0]], "the end comes once"
        assert set(hub.fetched()) == make_files().keys(), "no code, no pickles"

        hub.requests.clear()
        again = ask(hub, tmp_path)
        assert again["path"] == answer["path"]
        assert hub.requests == [], "a model that is here needs no hub"
    assert again["notes"] == again["progress"] == []
    assert ask(NO_NETWORK, tmp_path)["path"] == answer["path"]
    assert ask(NO_NETWORK, tmp_path, offline=True)["path"] == answer["path"]
    assert ask(NO_NETWORK, tmp_path, {"HF_HUB_OFFLINE": "1"}, revision=COMMIT)["path"] == answer["path"]


def test_a_broken_connection_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    # huggingface_hub writes, and so keeps, whole pieces of 10 MiB.
    files = make_files(model_safetensors=make_weights({"a": (3000, 2500)}))
    with FakeHub({REPO: files}, cut_after=12_000_000) as hub:
        answer = ask(hub, tmp_path)
    assert "message" not in answer
    assert hub.ranges == [f"bytes={10 * 2**20}-"]
    assert Path(answer["path"], "model.safetensors").read_bytes() == files["model.safetensors"]
    assert answer["progress"][-1] == [len(files["model.safetensors"])] * 2


def test_what_came_whole_is_kept_when_the_connection_is_lost(tmp_path: Path) -> None:
    files, last = make_sharded_files(), "model-00002-of-00002.safetensors"
    with FakeHub({REPO: files}, broken={last}) as hub:
        answer = ask(hub, tmp_path)
        assert "connection was lost" in answer["message"]
        assert "again" in answer["hint"]
        hub.broken.clear()
        hub.requests.clear()
        answer = ask(hub, tmp_path)
        assert hub.fetched() == [last]
    assert "already downloaded" in answer["notes"][0]
    assert answer["parameters"] == 72


def test_the_hint_about_a_truncated_download_works(tmp_path: Path) -> None:
    with FakeHub({REPO: make_files()}) as hub:
        weights = Path(ask(hub, tmp_path)["path"], "model.safetensors")
        damaged = weights.resolve()
        damaged.write_bytes(damaged.read_bytes()[:-1])
        answer = ask(hub, tmp_path)
        assert "truncated" in answer["message"]
        assert str(damaged) in answer["hint"]
        damaged.unlink()
        assert ask(hub, tmp_path)["parameters"] == 64 * 32 + 32


def test_half_a_download_is_no_model(tmp_path: Path) -> None:
    with FakeHub({REPO: make_sharded_files()}, broken={"model-00002-of-00002.safetensors"}) as hub:
        ask(hub, tmp_path)
        answer = ask(hub, tmp_path, offline=True)
    assert "forbids downloading" in answer["message"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to another process there")
def test_ctrl_c_ends_a_download_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with FakeHub({REPO: make_files()}, stalled={"model.safetensors"}) as hub:
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "{}"], env=make_environ(hub.endpoint, tmp_path), stderr=subprocess.PIPE
        )
        assert hub.is_stalling.wait(30)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=5)
    assert b"KeyboardInterrupt" in stderr
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".incomplete"] == []


@pytest.mark.parametrize(
    ("options", "environ", "reason"),
    [
        ({"offline": True}, {}, "--offline forbids"),
        ({}, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({}, {}, "cannot be reached"),
    ],
)
def test_without_a_network_three_ways_on_are_named(
    tmp_path: Path, options: dict[str, Any], environ: dict[str, str], reason: str
) -> None:
    answer = ask(NO_NETWORK, tmp_path, environ, **options)
    assert REPO in answer["message"]
    assert reason in answer["message"]
    assert all(way in answer["hint"] for way in ("--model tiny", "--model FOLDER", "HF_HOME"))


def test_offline_opens_no_connection(tmp_path: Path) -> None:
    with FakeHub({REPO: make_files()}) as hub:
        ask(hub, tmp_path, offline=True)
        ask(hub, tmp_path, {"HF_HUB_OFFLINE": "1"})
        assert hub.requests == []


def test_a_gated_model_opens_to_a_token(tmp_path: Path) -> None:
    with FakeHub({REPO: make_files()}, gated={REPO}) as hub:
        for environ in ({}, {"HF_TOKEN": "hf_wrong"}):
            answer = ask(hub, tmp_path, environ)
            assert "gated" in answer["message"]
            assert "HF_TOKEN" in answer["hint"]
        assert "message" not in ask(hub, tmp_path, {"HF_TOKEN": "hf_good"})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model": "org/unknown"}, "there is no model org/unknown on the hub"),
        ({"revision": "v9"}, "has no revision 'v9'"),
        ({"model": "org--x/y"}, "not a valid model name"),
        ({"model": "org/pickled"}, "has no safetensors"),
        ({"model": "org/empty"}, "no config.json"),
        ({"model": "org/other"}, "type 'llava'"),
        ({"model": "org/truncated"}, "truncated"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(tmp_path: Path, options: dict[str, Any], word: str) -> None:
    whole = make_files()["model.safetensors"]
    repositories = {
        REPO: make_files(),
        "org/pickled": make_files(model_safetensors=None, pytorch_model_bin=b"pickle"),
        "org/empty": {"README.md": b"#"},
        "org/other": make_files(config_json=b'{"model_type": "llava"}'),
        "org/truncated": make_files(model_safetensors=whole[:-1]),
    }
    with FakeHub(repositories) as hub:
        answer = ask(hub, tmp_path, **options)
        assert word in answer["message"]
        assert "\n" not in answer["message"] + answer["hint"]
        if word != "truncated":
            assert "model.safetensors" not in hub.fetched(), "refused before the weights come"


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_hub_in_trouble_is_told(tmp_path: Path, status: int) -> None:
    with FakeHub({REPO: make_files()}, status=status) as hub:
        answer = ask(hub, tmp_path)
    assert "hub" in answer["message"]
    assert answer["hint"]


def test_a_disk_that_is_too_small_is_told_before_the_weights_come(tmp_path: Path) -> None:
    with FakeHub({REPO: make_files()}, sizes={"model.safetensors": 10**15}) as hub:
        answer = ask(hub, tmp_path)
        assert "model.safetensors" not in hub.fetched()
    assert "needs 1000.0 TB of disk space" in answer["message"]
    assert "HF_HOME" in answer["hint"]
