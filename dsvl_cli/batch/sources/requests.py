"""Requests in the input format of OpenAI's Batch API, one item per JSON line. Does not import torch.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user",
     "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "a.png"}}]}]}}

The format: https://platform.openai.com/docs/guides/batch. A picture is a data URL, an http(s) URL, or a path relative
to the folder of the file and within it. Pictures go where their parts are among the texts; image marks in a text have
no effect. A line that cannot be answered as requested becomes an item whose `read` raises the reason: no field is
silently ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from dsvl_cli.batch.item import Item
from dsvl_cli.engine.encodings import Encoding, find_encoding, read_line
from dsvl_cli.engine.options import RULES, SamplingParams
from dsvl_cli.engine.pictures.access import FOREIGN, Access, check_inside, is_url, shown_address
from dsvl_cli.engine.pictures.addresses import decode_data_address, is_data_address, is_file_address, local_path
from dsvl_cli.engine.pictures.images import MAX_BYTES, is_address, read_file
from dsvl_cli.errors import DsvlError, ImageError

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
    {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream_options"}
)
_NEUTRAL: Mapping[str, Any] = {
    "n": 1, "stream": False, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {},
    "modalities": ["text"], "response_format": {"type": "text"}, "tools": [], "tool_choice": "none",
}  # fmt: skip


class _BadRequest(ImageError):
    """A line cannot be answered as requested."""


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
        parts, system, urls = _read_messages(body)
        if len(urls) == 1 and _is_path(urls[0]):
            item = replace(item, path=_resolve(urls[0], path))
        return replace(item, parts=parts, system=system, sampling=_sampling(body))
    except DsvlError as exc:
        return replace(item, read=partial(_refuse, f"{path}, line {number}: {exc.message}", exc.hint))


def _refuse(message: str, hint: str | None) -> Sequence[bytes]:
    raise ImageError(message, hint)


def _parse(line: bytes, encoding: Encoding) -> dict[str, Any]:
    if len(line) >= _MAX_LINE_BYTES:
        raise _BadRequest(f"longer than the limit of {_MAX_LINE_BYTES // 2**20} MiB")
    try:
        request = json.loads(encoding.decode(line).removeprefix("\ufeff"))  # a mark again where files were joined
    except UnicodeDecodeError as exc:
        raise _BadRequest(f"not {encoding.name}") from exc
    except (ValueError, RecursionError) as exc:
        raise _BadRequest("not JSON, or cut off") from exc
    if not isinstance(request, dict):
        raise _BadRequest("not a JSON object")
    return request


def _custom_id(request: Mapping[str, Any]) -> str:
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise _BadRequest("has no custom_id")
    _check_text(custom_id)
    return custom_id


def _check_new(place: tuple[str, int], path: str, number: int) -> None:
    file, line = place
    if line == number and (file == path or os.path.realpath(file) == os.path.realpath(path)):
        return
    where = f"line {line}" if file == path else f"{file}, line {line}"
    raise _BadRequest(f"its custom_id is already used in {where}", "give each line a unique custom_id")


def _body(request: Mapping[str, Any]) -> Mapping[str, Any]:
    if request.get("method", "POST") != "POST":
        raise _BadRequest("its method is not POST")
    if request.get("url", ENDPOINT) != ENDPOINT:
        raise _BadRequest(f"its url is not {ENDPOINT}")
    unknown = [*(request.keys() - {"custom_id", "method", "url", "body"})]
    if unknown:
        raise _unknown_fields(unknown)
    body = request.get("body")
    if not isinstance(body, dict):
        raise _BadRequest("has no body")
    unknown = [name for name, value in body.items() if not _is_understood(name, value)]
    if unknown:
        raise _unknown_fields(unknown)
    return body


def _is_understood(name: str, value: object) -> bool:
    if name == "messages" or name in _SAMPLING or name in _WITHOUT_EFFECT or value is None:
        return True
    return name in _NEUTRAL and value == _NEUTRAL[name]


def _unknown_fields(names: Sequence[str]) -> _BadRequest:
    return _BadRequest(f"has fields or values that are not supported: {', '.join(sorted(names))}"[:300], "remove them")


def _read_messages(body: Mapping[str, Any]) -> tuple[tuple[str | None, ...], str | None, list[str]]:
    """Return the parts of the user message in the form of `Item.parts`, the system prompt, and the picture URLs."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _BadRequest("has no messages")
    systems, users = [], []
    for message in messages:
        if message.get("role") in ("system", "developer"):
            systems.append(_content(message))
        elif message.get("role") == "user":
            users.append(_content(message))
        else:
            raise _BadRequest("has messages whose role is neither system nor user", "ask one question per line")
    if len(users) != 1:
        raise _BadRequest(f"has {len(users)} user messages", "ask one question per line")
    if any(url is not None for content in systems for _, url in content):
        raise _BadRequest("has a picture in its system prompt")
    system = "\n".join(text for content in systems for text, _ in content) if systems else None
    urls = [url for _, url in users[0] if url is not None]
    return _arrange(users[0]), system, urls


def _content(message: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return the parts of a message, each a text and None, or "" and the URL of a picture."""
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise _BadRequest("has a message without content")
    parts: list[tuple[str, str | None]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if kind in ("text", "image_url") else None
        if kind == "image_url" and isinstance(value, dict):
            value = value.get("url")
        if not isinstance(value, str):
            raise _BadRequest("has a message part that is neither text nor picture")
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
        raise _BadRequest("contains a lone surrogate, which is not a valid character") from exc


def _check_url(url: str) -> None:
    if not url.strip():
        raise _BadRequest("has a picture without a URL")
    try:
        os.fsencode(url)  # accepts the surrogates that represent undecodable bytes of a file name
    except UnicodeEncodeError as exc:
        raise _BadRequest("has a URL with a lone surrogate, which is not a valid character") from exc


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, field in _SAMPLING.items():
        value = body.get(name)
        if value is None or field in given:
            continue
        if field == "stop":
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
                raise _BadRequest("stop is neither a string nor a list of strings")
            value = tuple(value)
        elif isinstance(value, bool) or not isinstance(value, int if RULES[field].kind is int else (int, float)):
            raise _BadRequest(f"{name} is not a {'whole ' if RULES[field].kind is int else ''}number")
        given[field] = value
    SamplingParams(**given)  # raises for values out of range
    return given


def _pictures_at(path: str, offset: int, encoding: Encoding, access: Access) -> Sequence[bytes]:
    """Read the pictures of the request at a file offset."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            line = read_line(file, _MAX_LINE_BYTES, encoding)
    except OSError as exc:
        raise ImageError(f"{path}: cannot be read: {exc.strerror or 'unknown error'}") from exc
    try:
        urls = _read_messages(_body(_parse(line, encoding)))[2]
    except DsvlError as exc:
        raise ImageError(f"{path}: changed during the run") from exc
    return tuple(_picture(url, path, access) for url in urls)


def _is_path(url: str) -> bool:
    return not is_address(url) and not is_data_address(url)


def _resolve(url: str, path: str) -> str:
    return os.path.join(os.path.dirname(path), shown_address(local_path(url)))


def _picture(url: str, path: str, access: Access) -> bytes:
    if is_address(url):
        from dsvl_cli.engine.pictures.fetch import fetch_picture

        return fetch_picture(url, access)[0]
    if _is_path(url):
        if is_url(url) and not is_file_address(url):
            raise ImageError(f"{shown_address(url)}: only addresses of http, https, data and file are read")
        name = _resolve(url, path)
        check_inside(name, os.path.dirname(path), access)
        return read_file(Path(name), name)
    data = decode_data_address(url)
    if len(data) > MAX_BYTES:
        raise ImageError(f"a data URL larger than the limit of {MAX_BYTES // 2**20} MiB", "make it smaller first")
    return data
