from __future__ import annotations

import base64
import io
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources import requests
from dsvl_cli.batch.sources.requests import scan_requests
from dsvl_cli.batch.sources.scan import ScanOptions, scan
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.errors import DsvlError, ImageError, InvalidRequest
from tests.pictures import draw_picture

RED, BLUE = (draw_picture(seed).data for seed in (1, 2))


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def request(custom_id: str = "a", content: Any = "What?", **body: Any) -> dict[str, Any]:
    body = {"model": "gpt", "messages": [{"role": "user", "content": content}]} | body
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def scanned(folder: Path, *lines: Any, **options: Any) -> list[Item]:
    path = folder / "requests.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return list(scan_requests(str(path), **options))


def refusal(item: Item) -> str:
    with pytest.raises((ImageError, InvalidRequest)) as caught:
        item.read()
    assert "\n" not in caught.value.message
    return caught.value.message


def test_pictures_prompt_system_and_sampling_of_a_request(tmp_path: Path) -> None:
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [image(data_url(RED)), text("What is this?")]},
        ],
        "max_completion_tokens": 50,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": "\n",
        "stream": False,
        "n": 1,
        "user": "me",
        "frequency_penalty": None,
    }
    [item] = scanned(tmp_path, request("a", **body))
    assert (item.id, item.prompt, item.system) == ("a", "What is this?", "Be brief.")
    assert item.read() == (RED,)
    assert item.sampling == {"max_new_tokens": 50, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ("\n",)}
    [item] = scanned(tmp_path, request(content=[text("Hello?")], stop=["a", "b"]))
    assert (item.prompt, item.system, item.read(), item.sampling) == ("Hello?", None, (), {"stop": ("a", "b")})


def test_where_pictures_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in here").mkdir()
    (tmp_path / "in here" / "red.png").write_bytes(RED)
    for url in ("in here/red.png", str(tmp_path / "in here/red.png"), f"file://{tmp_path}/in%20here/red.png"):
        [item] = scanned(tmp_path, request(content=[image(url)]))
        assert item.read() == (RED,)
        assert item.path == str(tmp_path / "in here/red.png")
    for url in ("data:,%89PNG", "data:image/png;BASE64,iVBO\nRw==", data_url(b"\x89PNG")):
        assert scanned(tmp_path, request(content=[image(url)]))[0].read() == (b"\x89PNG",)
    [item] = scanned(tmp_path, request(content=[{"type": "image_url", "image_url": "in here/red.png"}]))
    assert item.read() == (RED,)
    monkeypatch.setattr("dsvl_cli.engine.pictures.fetch.fetch_picture", lambda url, access: (url.encode(), url))
    assert scanned(tmp_path, request(content=[image("https://h/a.png")]))[0].read() == (b"https://h/a.png",)


@pytest.mark.fault("malformed requests")
def test_pictures_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(url: str) -> str:
        return refusal(scanned(tmp_path, request(content=[image(url)]), access=Access(offline=True))[0])

    assert "offline" in read("https://example.invalid/a.png")
    assert "no such file" in read("missing.png")
    assert "not base64" in read("data:image/png;base64,a")
    assert "without data" in read("data:image/png;base64")
    monkeypatch.setattr(requests, "MAX_BYTES", 3)
    assert "larger than the limit" in read("data:,abcd")


@given(st.lists(st.sampled_from(["RED", "BLUE", "text", "more <image>"]), max_size=8))
def test_parts_keep_their_order(names: list[str]) -> None:
    urls = [name for name in names if name in ("RED", "BLUE")]
    content = [image(name) if name in ("RED", "BLUE") else text(name) for name in names]
    asked = requests._read_messages(request(content=content)["body"])
    parts = asked.parts
    assert asked.urls == urls
    following = iter(urls)
    composed = [next(following) if part is None else part for part in parts]
    assert [piece for part in composed for piece in part.split("\n")] == names
    assert all(None in pair for pair in pairwise(parts)), "texts beside each other are one"


@pytest.mark.parametrize(
    ("content", "parts", "shown"),
    [
        ("Is <image> a tag?", ("Is <image> a tag?",), "Is <image> a tag?"),
        ([image("a"), text("Is <image> a tag?")], (None, "Is <image> a tag?"), "Is <image> a tag?"),
        ([image("a"), image("b"), text("Which?")], (None, None, "Which?"), "Which?"),
        ([text("This:"), image("a")], ("This:", None), "This:<image>"),
        ([image("a"), text("against"), image("b")], (None, "against", None), "<image>against<image>"),
        ([text("one"), text("two"), image("a"), text("")], ("one\ntwo", None), "one\ntwo<image>"),
        ([image("a")], (None,), ""),
        ([], (), ""),
        ("", (), ""),
    ],
)
def test_parts_give_the_places_and_no_text_does(
    tmp_path: Path, content: Any, parts: tuple[str | None, ...], shown: str
) -> None:
    [item] = scanned(tmp_path, request(content=content))
    assert (item.parts, item.prompt) == (parts, shown)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{\n", "not JSON"),
        ("[" * 100_000 + "\n", "not JSON"),
        ("[]\n", "not a JSON object"),
        ({}, "no custom_id"),
        (request(custom_id=""), "no custom_id"),
        (request("\ud800"), "lone surrogate"),
        (request() | {"method": "GET"}, "POST"),
        (request() | {"url": "/v1/embeddings"}, "/v1/chat/completions"),
        (request() | {"priority": 1}, "not supported: priority"),
        ({"custom_id": "a"}, "no body"),
        (request(audio={}, tools=[{}]), "not supported: audio, tools"),
        (request(messages=None), "no messages"),
        (request(messages=["hello"]), "no messages"),
        (request(messages=[]), "does not end with a question"),
        (request(messages=[{"role": "assistant", "content": "x"}]), "does not end with a question"),
        (request(messages=[{"role": "tool", "content": "x"}]), "the role 'tool'"),
        (request(messages=[{"role": "assistant", "content": "x", "tool_calls": [{}]}]), "the role 'assistant'"),
        (
            request(messages=[{"role": role, "content": [image("a")]} for role in ("assistant", "user")]),
            "of the assist",
        ),
        (request(tool_choice="required"), "not supported: tool_choice"),
        (request(response_format={"type": "xml"}), "response_format is not"),
        (request(response_format={"type": "json_schema"}), "response_format is not"),
        (
            request(response_format={"type": "json_schema", "json_schema": {"schema": {"not": {}}}}),
            "response_format: the schema is not supported: not",
        ),
        (
            request(messages=[{"role": role, "content": [image("a")]} for role in ("system", "user")]),
            "in its system prompt",
        ),
        (request(content=None), "without content"),
        (request(content=["text"]), "neither text nor picture"),
        (request(content=[{"type": "input_audio", "input_audio": {}}]), "neither text nor picture"),
        (request(content="\udfff"), "lone surrogate"),
        (request(content=[image("a\ud800.png")]), "lone surrogate"),
        (request(content=[image(" ")]), "without a URL"),
        (request(temperature="hot"), "temperature is not a number"),
        (request(max_tokens=1.5), "max_tokens is not a whole number"),
        (request(max_tokens=0), "max_new_tokens is 0"),
        (request(seed=True), "seed is not"),
        *((request(n=count), "n is not a whole number between 1 and 128") for count in (0, -1, 129, 1.0, True, "3")),
        (request(stop=[1]), "stop is neither"),
        (request(top_p=float("nan")), "top_p is nan"),
    ],
)
@pytest.mark.fault("malformed requests")
def test_a_line_that_cannot_be_answered_says_why(line: Any, words: str, tmp_path: Path) -> None:
    before, bad, after = scanned(tmp_path, request("before"), line, request("after"))
    message = refusal(bad)
    assert words in message
    assert f"{tmp_path}/requests.jsonl, line 2: " in message
    assert bad.id == (
        "a" if isinstance(line, dict) and line.get("custom_id") == "a" else f"{tmp_path}/requests.jsonl::2"
    )
    assert (before.id, before.read(), after.id, after.read()) == ("before", (), "after", ())
    assert bad.prompt == "", "what the run asks is not what this line asked"


def test_earlier_turns_are_kept_with_their_pictures(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image(data_url(RED)), text("What is it?")]},
        {"role": "assistant", "content": "A circle."},
        {"role": "user", "content": [text("And"), image(data_url(BLUE)), text("here?")]},
    ]
    [item] = scanned(tmp_path, request(messages=messages))
    assert item.system == "Be brief."
    assert item.earlier == (("user", (None, "What is it?")), ("assistant", ("A circle.",)))
    assert item.parts == ("And", None, "here?")
    assert item.read() == (RED, BLUE)


def test_what_has_no_effect_is_taken_and_said(tmp_path: Path) -> None:
    harmless: dict[str, Any] = {
        "tool_choice": "auto", "parallel_tool_calls": True, "top_logprobs": 0, "verbosity": "low",
        "prompt_cache_retention": "24h", "response_format": {"type": "text"},
    }  # fmt: skip
    [item] = scanned(tmp_path, request(content="Hello?", **harmless))
    assert (item.read(), item.sampling, item.notes) == ((), {}, ())
    messages = [{"role": "user", "name": "ann", "content": [image(data_url(RED)), image(data_url(BLUE))]}]
    [item] = scanned(tmp_path, request(messages=messages))
    assert item.notes == ("name of a message has no effect", "detail of a picture has no effect")


@pytest.mark.parametrize(
    ("body", "sampling"),
    [
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"logprobs": 20}),
        ({"logprobs": True, "top_logprobs": None}, {"logprobs": 0}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"logprobs": None}, {}),
    ],
    ids=str,
)
def test_log_probabilities(tmp_path: Path, body: dict[str, Any], sampling: dict[str, Any]) -> None:
    [item] = scanned(tmp_path, request(**body))
    assert (item.read(), item.sampling) == ((), sampling)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"top_logprobs": 3}, "top_logprobs is given, but logprobs is not true"),
        ({"top_logprobs": 3, "logprobs": False}, "top_logprobs is given, but logprobs is not true"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs is not a whole number between 0 and 20"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs is not a whole number between 0 and 20"),
        ({"top_logprobs": True, "logprobs": True}, "top_logprobs is not a whole number"),
        ({"top_logprobs": "3", "logprobs": True}, "top_logprobs is not a whole number"),
        ({"logprobs": 3}, "logprobs is neither true nor false"),
    ],
    ids=str,
)
@pytest.mark.fault("malformed requests")
def test_log_probabilities_that_cannot_be_had(tmp_path: Path, body: dict[str, Any], message: str) -> None:
    assert f"line 1: {message}" in refusal(scanned(tmp_path, request(**body))[0])


def test_response_format_is_a_schema(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    strict, free = scanned(
        tmp_path, request("a", response_format=wanted), request("b", response_format={"type": "json_object"})
    )
    assert strict.sampling["constraint"].value == schema
    assert free.sampling["constraint"].value == {"type": "object"}


@pytest.mark.fault("malformed requests")
def test_a_custom_id_that_comes_again_is_an_error_of_its_own(tmp_path: Path) -> None:
    first, again, third = scanned(tmp_path, request("a"), request("a"), request("b"))
    assert "already used in line 1" in refusal(again)
    assert len({first.id, again.id, third.id}) == 3


@pytest.mark.fault("malformed requests")
def test_a_custom_id_that_comes_again_in_another_file_is_an_error_too(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps(request("first")) + "\n" + json.dumps(request(name)) + "\n")
    first, second = (str(tmp_path / name) for name in ("a.jsonl", "b.jsonl"))
    items = list(scan([first, second]))
    assert [item.id for item in items] == ["first", "a.jsonl", f"{second}::1", "b.jsonl"]
    assert f"{second}, line 1: its custom_id is already used in {first}, line 1" in refusal(items[2])
    assert [item.read() for item in items if item.id.endswith("jsonl")] == [(), ()]
    # A file that is named twice is the same file.
    assert [item.id for item in scan([first, first, f"{tmp_path}/../{tmp_path.name}/a.jsonl"])] == ["first", "a.jsonl"]
    options = ScanOptions()
    for _ in range(2):
        assert [item.id for item in scan([first], options=options)] == ["first", "a.jsonl"]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    line = json.dumps(request("a")).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\n  \n\xff\n" + line[:-9])
    items = list(scan_requests(str(path)))
    assert [item.id for item in items] == ["a", f"{path}::4", f"{path}::5"]
    assert "line 4: not UTF-8" in refusal(items[1])
    assert "line 5: not JSON, or cut off" in refusal(items[2])


def test_a_line_over_the_limit_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_MAX_LINE_BYTES", 300)
    items = scanned(tmp_path, request("a"), request("b", "x" * 4_000_000), request("c"))
    assert [item.id for item in items] == ["a", f"{tmp_path}/requests.jsonl::2", "c"]
    assert "longer than the limit" in refusal(items[1])


def test_pictures_are_not_held(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with path.open("w") as file:
        for n in range(60):
            print(json.dumps(request(str(n), [image(data_url(b"%03d" % n + bytes(1_000_000)))])), file=file)
    tracemalloc.start()
    items = list(scan_requests(str(path)))
    for n in (59, 0, 30):
        assert items[n].read()[0][:3] == b"%03d" % n
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


@pytest.mark.fault("malformed requests")
def test_a_file_that_changed_or_is_not_there(tmp_path: Path) -> None:
    [item] = scanned(tmp_path, request())
    assert item.prompt == "What?"
    (tmp_path / "requests.jsonl").write_text("other\n")
    assert "changed" in refusal(item)
    for path in (tmp_path, tmp_path / "missing.jsonl"):
        with pytest.raises(DsvlError, match="cannot be read"):
            list(scan_requests(str(path)))


@pytest.mark.fault("a path out of its folder")
@pytest.mark.parametrize(
    "url", ["../secret.png", "{folder}/secret.png", "file://{folder}/secret.png", "link/secret.png"]
)
def test_a_request_reads_nothing_outside_its_folder(tmp_path: Path, url: str) -> None:
    (tmp_path / "secret.png").write_bytes(RED)
    folder = tmp_path / "requests"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    line = request(content=[image(url.format(folder=tmp_path))])
    assert "outside the folder" in refusal(scanned(folder, line)[0])
    assert scanned(folder, line, access=Access(outside=True))[0].read() == (RED,)


def test_an_address_of_another_kind_is_not_looked_for_as_a_file(tmp_path: Path) -> None:
    line = request(content=[image("ftp://me:secret@example.org/a.png")])
    said = refusal(scanned(tmp_path, line)[0])
    assert said.endswith("ftp://example.org/a.png: only addresses of http, https, data and file are read")


@pytest.mark.fault("an address of this machine or its network")
def test_addresses_of_requests_and_lists_must_be_public(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/a.png"
    listed = [*scan([], io.BytesIO(url.encode())), *scanned(tmp_path, request(content=[image(url)]))]
    for item in listed:
        assert "on this machine or its network" in refusal(item)
    assert "refused the connection" in refusal(next(iter(scan([url]))))  # the user typed it


def test_paths_of_a_list_may_be_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(RED)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = io.BytesIO(f"{tmp_path}/a.png\n../b.png\n".encode())
    assert [item.read() for item in scan([], names)] == [(RED,), (RED,)]
