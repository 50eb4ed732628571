"""Every door through which a text comes in: a table of doors by a table of encodings."""

from __future__ import annotations

import ast
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dsvl_cli.app.describe import Question
from dsvl_cli.batch.row import ONLY
from dsvl_cli.batch.sources.requests import scan_requests
from dsvl_cli.batch.sources.scan import scan
from dsvl_cli.cli import main
from dsvl_cli.config import read_config
from dsvl_cli.engine.constraints import OneOf
from dsvl_cli.engine.schemas import read_constraint, read_schema
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.input.editor import edit_text
from dsvl_cli.terminal.chat.script import ScriptLines
from tests.app.batch.jobs import job

PACKAGE = Path(__file__).parent.parent / "dsvl_cli"
TEXT = "Wie heißt das?\nЧто это? 🖼"  # two lines, with characters of two, three and four bytes
ENCODINGS: Mapping[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 LE with a mark": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE with a mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
}
Door = Callable[[Path, Callable[[str], bytes], pytest.MonkeyPatch], str]


def piped(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


def prompt_on_stdin(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    patch.setattr(sys, "stdin", piped(encode(TEXT)))
    return str(Question.read(["a.png"], "-", None, together=False).prompt)


def prompt_file(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    (place / "p.txt").write_bytes(encode(TEXT))
    return job(prompt_file=place / "p.txt").questions(has_chat=True).prompts[ONLY]


def questions(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    (place / "q.toml").write_bytes(encode(f'"größe" = """\n{TEXT}"""\n'))
    return job(ask=place / "q.toml").questions(has_chat=True).prompts["größe"]


def list_of_pictures(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    return "\n".join(item.path for item in scan([], io.BytesIO(encode(TEXT))))


def user_settings(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    (place / "config.toml").write_bytes(encode(f'[prompts]\nprompt = """\n{TEXT}"""\n'))
    return str(read_config({"DSVL_CONFIG_DIR": str(place)}, folder=place / "none").values["prompt"].value)


def settings_of_a_folder(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    (place / ".dsvl.toml").write_bytes(encode(f'[prompts]\nsystem = """\n{TEXT}"""\n'))
    return str(read_config({"DSVL_CONFIG_DIR": str(place / "none")}, folder=place).values["system"].value)


def requests(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    (place / "a.png").write_bytes(b"picture")
    lines = []
    for number, text in enumerate(TEXT.split("\n")):
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": "a.png"}}]
        request = {"custom_id": f"№{number}", "body": {"messages": [{"role": "user", "content": content}]}}
        lines.append(json.dumps(request, ensure_ascii=False))
    (place / "r.jsonl").write_bytes(encode("\n".join(lines)))
    items = list(scan_requests(str(place / "r.jsonl")))
    assert [item.id for item in items] == ["№0", "№1"]
    assert [item.read() for item in items] == [(b"picture",)] * 2
    return "\n".join(item.prompt.removesuffix("<image>") for item in items if item.prompt is not None)


def script_of_a_chat(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    lines = ScriptLines(piped(encode(TEXT)))
    return f"{lines.read()}\n{lines.read()}"


def editor(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    program = place / "editor.py"
    program.write_text(f"import sys; open(sys.argv[1], 'wb').write({encode(TEXT)!r})")
    return edit_text("", {"EDITOR": f"{sys.executable} {program}"})


def schema(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    written = json.dumps({"description": TEXT}, ensure_ascii=False, indent=1)
    (place / "s.json").write_bytes(encode(written))
    return str(read_schema(str(place / "s.json")).value["description"])


def choices(place: Path, encode: Callable[[str], bytes], patch: pytest.MonkeyPatch) -> str:
    (place / "c.txt").write_bytes(encode(TEXT))
    constraint = read_constraint(str(place / "c.txt"), False, None)
    assert isinstance(constraint, OneOf)
    return "\n".join(constraint.choices)


DOORS: tuple[Door, ...] = (
    prompt_on_stdin, prompt_file, questions, list_of_pictures, user_settings, settings_of_a_folder, requests,
    script_of_a_chat, editor, schema, choices,
)  # fmt: skip


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_text_is_the_same_in_every_encoding(
    door: Door, encoding: str, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = ENCODINGS[encoding]
    assert door(tmp_path, lambda text: encode(text.replace("\n", ends)), monkeypatch) == TEXT


@pytest.mark.fault("texts in a wrong encoding")
@pytest.mark.parametrize(
    "door", [prompt_on_stdin, prompt_file, questions, user_settings, settings_of_a_folder, choices]
)
@pytest.mark.parametrize(
    ("break_", "said"),
    [
        (lambda text: text.encode("latin-1", "replace"), "not UTF-8: byte 0x"),
        (lambda text: b"\xff\xfe" + text.encode("utf-16-le")[:-1], "not UTF-16: byte 0x"),
        (lambda text: text.encode().replace(b" ", b"\0"), "a null character"),
        (lambda text: b"\x89PNG\r\n\x1a\n" + text.encode(), "not UTF-8: byte 0x89"),
        (lambda text: text.encode("utf-16-le"), "not"),  # without a mark
    ],
)
def test_what_is_no_text_is_refused_with_its_place(
    door: Door, break_: Callable[[str], bytes], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DsvlError, match=rf":\d+:\d+: .*{said}") as caught:
        door(tmp_path, break_, monkeypatch)
    assert "\n" not in caught.value.message


def test_the_place_of_a_wrong_byte_is_its_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("Größe\nund ".encode() + b"caf\xe9")
    with pytest.raises(DsvlError, match=r"p\.txt:2:8: not UTF-8: byte 0xE9"):
        job(prompt_file=tmp_path / "p.txt").questions(has_chat=True)


@pytest.mark.fault("texts in a wrong encoding")
@pytest.mark.parametrize("command", ["chat", "describe", "batch"])
@pytest.mark.parametrize("option", ["--prompt", "--system", "--stop", "DSVL_PROMPT", "DSVL_SYSTEM"])
def test_an_argument_that_is_not_utf8_is_a_usage_error_that_names_it(
    command: str, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "chat" and option == "DSVL_PROMPT":
        pytest.skip("a chat reads no prompt from the environment")
    text = "caf\udce9"  # what Python makes of the bytes `caf\xe9`
    if option.startswith("DSVL"):
        monkeypatch.setenv(option, text)
    arguments = [] if option.startswith("DSVL") else [option, text]
    assert main([command, "a.png", *(["-o", "out.jsonl"] if command == "batch" else []), *arguments]) == 2
    error = capsys.readouterr().err
    assert f"error: {option} is not UTF-8: byte 0xE9 after 'caf'" in error
    assert not Path("out.jsonl").exists()


# Modules that decode what dsvl, the system or a model's author wrote: not a text of the user's.
OWN = {
    "engine/encodings.py": "decodes for all others",
    "engine/diagnosis.py": "pyproject.toml beside the package, /proc",
    "engine/machine/detect.py": "/proc and /sys",
    "engine/machine/instruction_sets.py": "/proc",
    "engine/storage/contents.py": "records that dsvl wrote",
    "engine/storage/daily.py": "records that dsvl wrote",
    "engine/storage/cache_folder.py": "records that dsvl wrote, /proc",
    "engine/generation/logprobs.py": "the bytes of tokens",
    "engine/text/token_bytes.py": "the bytes of tokens",
    "engine/text/template_process.py": "a pipe between two processes of dsvl",
    "sessions/page.py": "a style of the package",
    "batch/output/report.py": "styles of the package",
    "batch/output/trials.py": "records that dsvl wrote",
    "batch/output/tables.py": "names to be written",
    "terminal/console.py": "what is to be shown",
    "terminal/clipboard.py": "base64",
    "terminal/chat/script.py": "names to be written",
    "terminal/chat/input/line_editor.py": "what is to be shown",
    "app/sessions.py": "what is to be shown",
    "engine/pictures/clipboard.py": "names of types, hexadecimal digits",
    "engine/pictures/fetch.py": "ASCII of a header",
    "engine/pictures/signatures.py": "whether a file that is no picture is text",
    "batch/sources/requests.py": "base64",
    "sessions/export.py": "base64",
    "sessions/schema.py": "the database",
}
CHECKPOINTS = ("engine/checkpoint/", "engine/conversion/", "engine/network/", "engine/kernels/", "engine/model.py")


def test_no_other_module_decodes_text() -> None:
    """A new door is to use `engine.encodings`; what decodes something else is listed with what it is."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                takes = node.func.attr
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                if takes == "read_text" or (takes == "decode" and (not node.args or texts)):
                    found.add(name)
    assert {name for name in found if not name.startswith(CHECKPOINTS)} <= OWN.keys()
