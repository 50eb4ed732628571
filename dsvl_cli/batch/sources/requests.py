"""Requests in the input format of OpenAI's Batch API, one item per JSON line. Does not import torch.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user",
     "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "a.png"}}]}]}}

The format: https://platform.openai.com/docs/guides/batch. A picture is a data URL, an http(s) URL, or a path relative
to the folder of the file and within it. Pictures go where their parts are among the texts; image marks in a text have
no effect. Turns of user and assistant may come before the question, `response_format` may ask for JSON, `logprobs` for
log probabilities, and `n` for several answers. A line that cannot be answered as requested becomes an item whose `read`
raises the reason: no field is silently ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from dsvl_cli.batch.item import Item
from dsvl_cli.engine.constraints import ANY_OBJECT, JsonSchema
from dsvl_cli.engine.conversation import Role
from dsvl_cli.engine.encodings import Encoding, find_encoding, read_line
from dsvl_cli.engine.options import MOST_LOGPROBS, RULES, SamplingParams
from dsvl_cli.engine.pictures.access import FOREIGN, Access, check_inside, is_url, shown_address
from dsvl_cli.engine.pictures.addresses import decode_data_address, is_file_address, local_path
from dsvl_cli.engine.pictures.images import MAX_BYTES, is_address, is_path, read_file
from dsvl_cli.engine.schemas import check_schema
from dsvl_cli.errors import DsvlError, ImageError, InvalidRequest

ENDPOINT = "/v1/chat/completions"
_MAX_LINE_BYTES = 2 * MAX_BYTES
# Body field -> field of `SamplingParams`. The last three are not OpenAI's, but common in other servers.
_SAMPLING = {
    "max_completion_tokens": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}
# Fields that do not affect answers, and values that are the default. The run determines the model.
_WITHOUT_EFFECT = frozenset(
    {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream_options",
     "prompt_cache_retention", "verbosity", "parallel_tool_calls"}
)  # fmt: skip
_NEUTRAL: Mapping[str, Any] = {
    "stream": False, "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "modalities": ["text"],
    "tools": [],
}  # fmt: skip
_READ_APART = frozenset({"messages", "response_format", "logprobs", "top_logprobs", "n"})


@dataclass(frozen=True, slots=True)
class _Asked:
    """The messages of a request, in the form of `Item`, and the addresses of all pictures in order."""

    parts: tuple[str | None, ...]
    earlier: tuple[tuple[Role, tuple[str | None, ...]], ...]
    system: str | None
    urls: list[str]
    notes: tuple[str, ...]


# custom_id -> file and line number.
Places = dict[str, tuple[str, int]]


def scan_requests(path: str, *, access: Access = FOREIGN, found: Places | None = None) -> Iterator[Item]:
    """Yield the requests of a file in order; ids are their `custom_id`s, or `FILE::LINE` without a valid one.

    Pictures are read from the line again on demand, so that memory use stays small.

    Args:
        path: the file.
        access: what URLs and paths may lead to.
        found: the `custom_id`s of this file and earlier ones; duplicates become errors, since the output could not
            distinguish them.

    Raises:
        DsvlError: the file cannot be read.
    """
    found = {} if found is None else found
    try:
        with open(path, "rb") as file:
            encoding = find_encoding(file.read(3))
            number, offset = 0, len(encoding.mark)
            file.seek(offset)
            while line := read_line(file, _MAX_LINE_BYTES, encoding):
                number += 1
                if line.strip(b"\0\t\r\n "):
                    yield _item(path, number, offset, line, encoding, found, access)
                while line and not encoding.ends_line(line):
                    line = read_line(file, 2**20, encoding)
                offset = file.tell()
    except OSError as exc:
        raise DsvlError(f"{path}: cannot be read: {exc.strerror or 'unknown error'}") from exc


def _item(path: str, number: int, offset: int, line: bytes, encoding: Encoding, found: Places, access: Access) -> Item:
    place = f"{path}::{number}"
    item = Item(place, place, partial(_pictures_at, path, offset, encoding, access), parts=())
    try:
        request = _parse(line, encoding)
        custom_id = _custom_id(request)
        _check_new(found.setdefault(custom_id, (path, number)), path, number)
        item = replace(item, id=custom_id, own_id=True)
        body = _body(request)
        asked, sampling = _read_messages(body), _sampling(body)
        if len(asked.urls) == 1 and is_path(asked.urls[0]):
            item = replace(item, path=_resolve(asked.urls[0], path))
        return replace(
            item,
            parts=asked.parts,
            earlier=asked.earlier,
            system=asked.system,
            sampling=sampling,
            samples=_read_count(body.get("n")),
            notes=asked.notes,
        )
    except DsvlError as exc:
        return replace(item, read=partial(_refuse, f"{path}, line {number}: {exc.message}", exc.hint))


def _refuse(message: str, hint: str | None) -> Sequence[bytes]:
    raise InvalidRequest(message, hint)


def _parse(line: bytes, encoding: Encoding) -> dict[str, Any]:
    if len(line) >= _MAX_LINE_BYTES:
        raise InvalidRequest(f"longer than the limit of {_MAX_LINE_BYTES // 2**20} MiB")
    try:
        request = json.loads(encoding.decode(line).removeprefix("\ufeff"))  # a mark again where files were joined
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"not {encoding.name}") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("not JSON, or cut off") from exc
    if not isinstance(request, dict):
        raise InvalidRequest("not a JSON object")
    return request


def _custom_id(request: Mapping[str, Any]) -> str:
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise InvalidRequest("has no custom_id")
    _check_text(custom_id)
    return custom_id


def _check_new(place: tuple[str, int], path: str, number: int) -> None:
    file, line = place
    if line == number and (file == path or os.path.realpath(file) == os.path.realpath(path)):
        return
    where = f"line {line}" if file == path else f"{file}, line {line}"
    raise InvalidRequest(f"its custom_id is already used in {where}", "give each line a unique custom_id")


def _body(request: Mapping[str, Any]) -> Mapping[str, Any]:
    if request.get("method", "POST") != "POST":
        raise InvalidRequest("its method is not POST")
    if request.get("url", ENDPOINT) != ENDPOINT:
        raise InvalidRequest(f"its url is not {ENDPOINT}")
    unknown = [*(request.keys() - {"custom_id", "method", "url", "body"})]
    if unknown:
        raise _unknown_fields(unknown)
    body = request.get("body")
    if not isinstance(body, dict):
        raise InvalidRequest("has no body")
    unknown = [name for name, value in body.items() if not _is_understood(name, value)]
    if unknown:
        raise _unknown_fields(unknown)
    return body


def _is_understood(name: str, value: object) -> bool:
    if name == "tool_choice":  # there are no tools to choose from
        return value in ("none", "auto")
    if name in _READ_APART or name in _SAMPLING or name in _WITHOUT_EFFECT or value is None:
        return True
    return name in _NEUTRAL and value == _NEUTRAL[name]


def _unknown_fields(names: Sequence[str]) -> InvalidRequest:
    return InvalidRequest(
        f"has fields or values that are not supported: {', '.join(sorted(names))}"[:300], "remove them"
    )


def _read_messages(body: Mapping[str, Any]) -> _Asked:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest("has no messages")
    systems: list[list[tuple[str, str | None]]] = []
    turns: list[tuple[Role, list[tuple[str, str | None]]]] = []
    notes: dict[str, None] = {}
    for message in messages:
        role, content = message.get("role"), _content(message)
        if role in ("system", "developer"):
            systems.append(content)
        elif role == "user":
            turns.append(("user", content))
        elif role == "assistant" and not message.get("tool_calls"):
            turns.append(("assistant", content))
        else:
            raise InvalidRequest(f"messages has the role {role!r}, which is none of system, user and assistant")
        notes.update((note, None) for note in _list_ignored(message))
    if not turns or turns[-1][0] != "user":
        raise InvalidRequest("messages does not end with a question of the user")
    if any(url is not None for content in systems for _, url in content):
        raise InvalidRequest("messages has a picture in its system prompt")
    if any(url is not None for role, content in turns if role == "assistant" for _, url in content):
        raise InvalidRequest("messages has a picture in an answer of the assistant")
    system = "\n".join(text for content in systems for text, _ in content) if systems else None
    urls = [url for _, content in turns for _, url in content if url is not None]
    earlier = tuple((role, _arrange(content)) for role, content in turns[:-1])
    return _Asked(_arrange(turns[-1][1]), earlier, system, urls, tuple(notes))


def _list_ignored(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield notes about the fields of a message that have no effect."""
    if message.get("name"):
        yield "name of a message has no effect"
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        image = part.get("image_url") if isinstance(part, dict) else None
        if isinstance(image, dict) and image.get("detail", "auto") != "auto":
            yield "detail of a picture has no effect"


def _content(message: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return the parts of a message, each a text and None, or "" and the URL of a picture."""
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise InvalidRequest("has a message without content")
    parts: list[tuple[str, str | None]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if kind in ("text", "image_url") else None
        if kind == "image_url" and isinstance(value, dict):
            value = value.get("url")
        if not isinstance(value, str):
            raise InvalidRequest("has a message part that is neither text nor picture")
        if kind == "text":
            _check_text(value)
        else:
            _check_url(value)
        parts.append((value, None) if kind == "text" else ("", value))
    return parts


def _arrange(content: Sequence[tuple[str, str | None]]) -> tuple[str | None, ...]:
    """Return the texts, with None for each picture; adjacent texts are joined by line feeds."""
    parts: list[str | None] = []
    for is_picture, run in groupby(content, key=lambda part: part[1] is not None):
        if is_picture:
            parts.extend(None for _ in run)
        elif text := "\n".join(text for text, _ in run):
            parts.append(text)
    return tuple(parts)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest("contains a lone surrogate, which is not a valid character") from exc


def _check_url(url: str) -> None:
    if not url.strip():
        raise InvalidRequest("has a picture without a URL")
    try:
        os.fsencode(url)  # accepts the surrogates that represent undecodable bytes of a file name
    except UnicodeEncodeError as exc:
        raise InvalidRequest("has a URL with a lone surrogate, which is not a valid character") from exc


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, field in _SAMPLING.items():
        value = body.get(name)
        if value is None or field in given:
            continue
        if field == "stop":
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
                raise InvalidRequest("stop is neither a string nor a list of strings")
            value = tuple(value)
        elif isinstance(value, bool) or not isinstance(value, int if RULES[field].kind is int else (int, float)):
            raise InvalidRequest(f"{name} is not a {'whole ' if RULES[field].kind is int else ''}number")
        given[field] = value
    if (constraint := _read_format(body.get("response_format"))) is not None:
        given["constraint"] = constraint
    if (logprobs := _read_logprobs(body.get("logprobs"), body.get("top_logprobs"))) is not None:
        given["logprobs"] = logprobs
    SamplingParams(**given)  # raises for values out of range
    return given


def _read_logprobs(wanted: object, count: object) -> int | None:
    """Return how many alternatives each token gets, by `logprobs` and `top_logprobs`; None for no log probabilities."""
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidRequest("logprobs is neither true nor false", "top_logprobs is the number of alternatives")
    if count is None:
        return 0 if wanted else None
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_LOGPROBS:
        raise InvalidRequest(f"top_logprobs is not a whole number between 0 and {MOST_LOGPROBS}")
    if count and not wanted:
        raise InvalidRequest("top_logprobs is given, but logprobs is not true", "add logprobs: true")
    return count if wanted else None


def _read_count(value: object) -> int | None:
    """Read `n`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not RULES["samples"].holds(value):
        raise InvalidRequest(f"n is not {RULES['samples']}")
    return value


def _read_format(value: object) -> JsonSchema | None:
    """Read `response_format`."""
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    described = value.get("json_schema") if isinstance(value, dict) and kind == "json_schema" else None
    if not isinstance(described, dict) or "schema" not in described:
        raise InvalidRequest("response_format is not text, json_object, or json_schema with a schema")
    try:
        return check_schema(described["schema"])
    except DsvlError as exc:
        raise InvalidRequest(f"response_format: {exc.message}", exc.hint) from exc


def _pictures_at(path: str, offset: int, encoding: Encoding, access: Access) -> Sequence[bytes]:
    """Read the pictures of the request at a file offset."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            line = read_line(file, _MAX_LINE_BYTES, encoding)
    except OSError as exc:
        raise ImageError(f"{path}: cannot be read: {exc.strerror or 'unknown error'}") from exc
    try:
        urls = _read_messages(_body(_parse(line, encoding))).urls
    except DsvlError as exc:
        raise ImageError(f"{path}: changed during the run") from exc
    return tuple(_picture(url, path, access) for url in urls)


def _resolve(url: str, path: str) -> str:
    return os.path.join(os.path.dirname(path), shown_address(local_path(url)))


def _picture(url: str, path: str, access: Access) -> bytes:
    if is_address(url):
        from dsvl_cli.engine.pictures.fetch import fetch_picture

        return fetch_picture(url, access)[0]
    if is_path(url):
        if is_url(url) and not is_file_address(url):
            raise ImageError(f"{shown_address(url)}: only addresses of http, https, data and file are read")
        name = _resolve(url, path)
        check_inside(name, os.path.dirname(path), access)
        return read_file(Path(name), name)
    data = decode_data_address(url)
    if len(data) > MAX_BYTES:
        raise ImageError(f"a data URL larger than the limit of {MAX_BYTES // 2**20} MiB", "make it smaller first")
    return data
