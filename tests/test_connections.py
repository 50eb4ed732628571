"""What connects: nothing with a local model and local pictures, and nothing at all under `--offline`."""

from __future__ import annotations

import io
import json
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.cli import main
from dsvl_cli.errors import ExitStatus
from tests.test_cli import COMMANDS

CIRCLE = Path(__file__).parents[1] / "examples" / "red-circle.png"
ADDRESS = "http://127.0.0.1:9/a.png"
LOADS = ("describe", "chat", "batch", "quantize")
# Values for options that cannot be made up; None: it needs another option or state, or another machine.
VALUES: dict[str, Sequence[str] | None] = {
    "--model": ["tiny"], "--revision": None, "--device": ["cpu"], "--dtype": ["float32"], "--device-map": None,
    "--attn-implementation": ["sdpa"], "--quantization": ["int8"], "--profile": ["work"], "--image": ["a.png"],
    "--session": None, "--continue": None, "--out": None, "--column": None, "--ext": ["png"], "--existing": None,
    "--prompt-file": ["prompt.txt"], "--ask": ["ask.toml"], "--files-from": ["list.txt"], "--format": ["jsonl"],
    "--report": ["r.html"], "--check": ["done.jsonl"], "--batch-size": ["2"], "--overflow": ["drop-oldest"],
    "--group-size": ["64"], "--seed": ["1"], "--max-new-tokens": ["2"], "--top-p": ["0.5"], "--min-p": ["0.1"],
    "--top-k": ["3"], "--threads": ["2"], "--stop": ["x"], "--temperature": ["0.5"], "--repetition-penalty": ["1.1"],
    "--system": ["Be kind."], "--prompt": ["What?"], "--max-errors": ["3"], "--debug": [], "--verify": None,
    "--choices": ["Red,Blue"], "--schema": ["count int"], "--samples": ["2"], "--min-probability": ["0.5"],
    "--exclude": ["x*"], "--sidecar": [".caption"], "--prefix": ["p"], "--suffix": ["s"], "--separator": [" "],
}  # fmt: skip


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was looked up or connected to; each raises."""
    found: list[object] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        found.append(arguments[-1] if isinstance(arguments[0], socket.socket) else arguments[0])
        raise OSError(101, "Network is unreachable")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CIRCLE, "a.png")
    Path("list.txt").write_text("a.png\n")
    Path("prompt.txt").write_text("What?")
    Path("ask.toml").write_text('shape = "What is it?"\n')
    Path("config.toml").write_text("[profiles.work]\ntemperature = 0.5\n")
    for variable, name in (("DSVL_CONFIG_DIR", "."), ("DSVL_DATA_DIR", "data"), ("HF_HOME", "hub")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n/image a.png\nWhat?\n")))
    return tmp_path


def arguments_of(command: str) -> list[str]:
    model = ["--model", "tiny"] if command in LOADS else []
    rest = {"describe": ["a.png"], "batch": ["a.png", "-o", "out.jsonl"], "quantize": ["q", "--overwrite"]}
    return [command, *(["tiny", *rest[command]] if command == "quantize" else [*rest.get(command, []), *model])]


def options_of(command: str) -> list[list[str]]:
    """Each option of a command with a value; those that VALUES leaves out are missing."""
    found: list[list[str]] = []
    for parameter in COMMANDS[(command,)].params:
        name = next((name for name in parameter.opts if name.startswith("--")), "")
        value = VALUES.get(name, [] if getattr(parameter, "is_flag", False) else ())
        if name and value is not None:
            assert value != (), f"{name} needs a value in VALUES"
            found.append([name, *value])
    return found


EACH = [(command, option) for command in LOADS for option in options_of(command)]


@pytest.mark.soak
@pytest.mark.fault("a connection nobody asked for")
@pytest.mark.parametrize(
    ("command", "option"), EACH, ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_no_option_connects_with_a_local_model(
    folder: Path, connections: list[object], command: str, option: list[str]
) -> None:
    if option[0] == "--check":
        main([*arguments_of("batch")[:-4], "-o", "done.jsonl", "--model", "tiny"])
    assert main([*arguments_of(command), *option]) in (ExitStatus.OK, ExitStatus.USAGE, ExitStatus.ERROR)
    assert connections == []


@pytest.mark.fault("a connection nobody asked for")
@pytest.mark.parametrize("offline", [[], ["--offline"]], ids=["", "offline"])
@pytest.mark.parametrize("command", ["describe", "chat", "batch"])
def test_no_command_connects_with_a_local_model(
    folder: Path, connections: list[object], command: str, offline: list[str]
) -> None:
    more = {
        "batch": ["--report", "r.html", "--seed", "1", "--files-from", "list.txt"],
        "describe": ["--json", "--stats"],
    }
    assert main([*arguments_of(command), *more.get(command, []), *offline]) == ExitStatus.OK
    if command == "batch":
        main(["batch", "--check", "out.jsonl", *offline])
        main([*arguments_of(command), "--dry-run", *offline])
    assert connections == []


@pytest.mark.fault("a connection nobody asked for")
def test_the_other_commands_never_connect(folder: Path, connections: list[object]) -> None:
    for arguments in (
        ["doctor", "--json"],
        ["sessions", "list"],
        ["sessions", "search", "x"],
        ["sessions", "show", "x"],
    ):
        main(arguments)
    assert connections == []


def requests(url: str) -> str:
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
    return json.dumps({"custom_id": "r", "body": {"messages": [{"role": "user", "content": content}]}})


@pytest.mark.fault("a connection under --offline")
@pytest.mark.parametrize(
    "arguments",
    [
        ["describe", ADDRESS, "--model", "tiny"],
        ["describe", "a.png", "--model", "org/none"],
        ["describe", "a.png", "--model", "1.3b"],
        ["describe", "a.png", "--model", "1.3b", "--revision", "main"],
        ["chat", ADDRESS, "--model", "tiny"],
        ["chat", "--model", "org/none"],
        ["batch", ADDRESS, "-o", "out.jsonl", "--model", "tiny", "--report", "r.html"],
        ["batch", "requests.jsonl", "-o", "out.csv", "--model", "tiny", "--report", "r.html"],
        ["batch", "requests.jsonl", "-o", "-", "--model", "tiny"],
        ["batch", "--files-from", "addresses.txt", "-o", "texts", "--model", "tiny"],
        ["batch", "a.png", "-o", "out.jsonl", "--model", "org/none"],
        ["batch", "a.png", "-o", "out.jsonl", "--model", "org/none", "--dry-run"],
        ["quantize", "org/none", "q"],
        ["quantize", "tiny", "q", ADDRESS, "--verify", "--format", "int8"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_offline_nothing_connects(folder: Path, connections: list[object], arguments: list[str]) -> None:
    Path("requests.jsonl").write_text(requests(ADDRESS) + "\n")
    Path("addresses.txt").write_text(f"{ADDRESS}\n")
    assert main([*arguments, "--offline"]) != ExitStatus.USAGE
    assert connections == []


@pytest.mark.fault("a connection under --offline")
@pytest.mark.parametrize(
    "more", [["--report", "r.html", "-o", "out.jsonl", "requests.jsonl"], ["--check", "out.jsonl"]]
)
@pytest.mark.parametrize("offline", [[], ["--offline"]], ids=["", "offline"])
def test_a_report_and_a_check_never_fetch_again(
    folder: Path, connections: list[object], monkeypatch: pytest.MonkeyPatch, more: list[str], offline: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("requests.jsonl").write_text(requests(ADDRESS) + "\n")
    with monkeypatch.context() as patched:
        patched.setattr(
            "dsvl_cli.engine.pictures.fetch.fetch_picture", lambda url, access: (Path("a.png").read_bytes(), url)
        )
        assert main(["batch", "requests.jsonl", "-o", "out.jsonl", "--model", "tiny"]) == ExitStatus.OK
    capsys.readouterr()
    assert main(["batch", *more, "--model", "tiny", *offline]) == ExitStatus.OK
    assert connections == []
    assert "stale" not in capsys.readouterr().err.replace("0 of 1 rows are stale", "")


SECRET = "c4n4ry"


@pytest.mark.fault("a secret in an address")
def test_a_secret_in_an_address_appears_nowhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from tests.engine.pictures.test_fetch import Server

    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    good, bad = (f"http://me:{SECRET}@{server.host}/{name}?token={SECRET}&x=1" for name in ("a.png", "missing.png"))
    server.answers[f"/a.png?token={SECRET}&x=1"] = server.answers["/a.png"]
    odd = [
        f"ftp://me:{SECRET}@h/a.png",
        f"http://me:se/{SECRET}@h/a.png",
        f"http://h:{SECRET}/",
        f"https://{SECRET}@[::1/",
    ]
    run: Callable[[Sequence[str]], int] = main
    try:
        monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO(f"/image {good}\nWhat?\n/image {bad}\n/images\n".encode()))
        )
        run(["chat", good, bad, "--model", "tiny"])
        (folder / "inputs").mkdir()
        (folder / "inputs" / "list.txt").write_text("\n".join([good, bad, *odd]))
        lines = [requests(url).replace('"r"', f'"{number}"') for number, url in enumerate([good, bad, *odd])]
        (folder / "inputs" / "r.jsonl").write_text("\n".join(lines))
        sources = ["inputs/r.jsonl", "--files-from", "inputs/list.txt", "--allow-private-addresses", "--model", "tiny"]
        for debug in ([], ["--debug"]):
            for url in (good, bad, *odd):
                run(["describe", url, "--model", "tiny", "--json", *debug])
                run(["describe", url, "a.png", "--model", "tiny", *debug])
                run(["batch", url, "-o", "-", "--model", "tiny", *debug])
            for out in ("o.jsonl", "o.csv", "texts", "o.parquet"):
                run(["batch", *sources, "-o", out, "--report", f"{out}.html", *debug])
            run(["batch", "--check", "o.jsonl", "--model", "tiny", *debug])
            run(["batch", *sources[:-2], "-o", "x.jsonl", "--model", "tiny", "--offline", *debug])
        run(["sessions", "list", "--json"])
        said = b"".join(capfdbinary.readouterr())
    finally:
        server.close()
    leaks = [line for line in said.split(b"\n") if SECRET.encode() in line]
    assert leaks == []
    assert server.host.encode() in said
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "inputs"]
    assert len(files) > 8
    assert [path for path in files if SECRET.encode() in path.read_bytes() or SECRET in path.name] == []
