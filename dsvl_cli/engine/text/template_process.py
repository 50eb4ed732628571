"""Renders a checkpoint's chat template under a limit of time and memory, in a process of its own.

jinja2's sandbox keeps a template from Python, but not from looping for ever or asking for a gigabyte, and neither can
be interrupted from within. The published template of DeepSeek-VL is known to do neither, and needs no process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsvl_cli.engine.text.chat_template import ChatTemplate, unusable
from dsvl_cli.errors import DsvlError

SECONDS = 3.0
LARGEST_MEMORY = 400 * 2**20  # bytes, Python's own included
LARGEST_TEXT = 8 * 2**20  # characters; no context is that long
_LARGEST_SOURCE = 2**20  # characters
_START_SECONDS = 60.0  # of Python, which may have to be read from a disk
# Of the empty template of base models, and of the one that transformers' converter wrote for all DeepSeek-VL.
_KNOWN = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "2c1e4eb031afffb4b6112c14e98419327da0173105d51b82b78b0b34bdc7052f",
}
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {} import serve; serve()"


class GuardedTemplate:
    """A `ChatTemplate` that cannot hang, and cannot use up the memory.

    Args:
        source: a jinja2 template.
        names: variables available besides the messages.

    Raises:
        DsvlError: it is not a valid template.
    """

    def __init__(self, source: str, names: Mapping[str, str]) -> None:
        self._source, self._names = source, dict(names)
        self._direct: ChatTemplate | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_hostile = False
        if hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest() in _KNOWN:
            self._direct = ChatTemplate(source, names)
        elif len(source) > _LARGEST_SOURCE:
            raise unusable()

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """Render messages to the text of the prompt; see `ChatTemplate.render`.

        Raises:
            DsvlError: the template cannot render them, or not within the limits.
        """
        if self._direct is not None:
            return self._direct.render(messages, add_generation_prompt=add_generation_prompt)
        if self._is_hostile:
            raise _too_expensive()
        process = self._process or self._start()
        answer = _ask(process, {"messages": messages, "add_generation_prompt": add_generation_prompt}, SECONDS)
        if answer is None:
            self._is_hostile = True
            raise _too_expensive()
        if "text" not in answer:
            raise unusable() from RuntimeError(answer.get("error"))
        return str(answer["text"])

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CODE.format(__name__), json.dumps([*_import_paths()])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for dsvl
        )
        weakref.finalize(self, _end, process)
        self._process = process
        if _ask(process, {"source": self._source, "names": self._names}, _START_SECONDS) is None:
            raise DsvlError("the chat template cannot be rendered: its process did not start", "try again")
        return process


def _import_paths() -> list[str]:
    return [str(Path(__file__).parents[3]), *(path for path in sys.path if path)]


def _ask(process: subprocess.Popen[bytes], request: object, seconds: float) -> dict[str, Any] | None:
    """Send a request and return the answer; None if there was none in time, or one that is too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        process.stdin.write(_pack(request))
        process.stdin.flush()
        line = process.stdout.readline(6 * LARGEST_TEXT + 1000)  # six bytes of JSON for a character, at most
        answer = _unpack(line)
    except (OSError, ValueError):
        process.kill()
        return None
    except BaseException:  # an answer that nobody waits for any more must not be that to the next request
        process.kill()
        raise
    finally:
        timer.cancel()
    return answer if isinstance(answer, dict) else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _too_expensive() -> DsvlError:
    return DsvlError("the checkpoint's chat template takes too much time or memory", "use another model")


def serve() -> None:
    """Render what stdin asks for, until it ends; the first request is the template itself."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no limits, macOS not all of them
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (LARGEST_MEMORY, LARGEST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    first = _unpack(sys.stdin.buffer.readline())
    _reply({})
    template: ChatTemplate | None = None
    for line in sys.stdin.buffer:
        request = _unpack(line)
        try:
            _limit_cpu()
            template = template or ChatTemplate(first["source"], first["names"])
            text = template.render(request["messages"], add_generation_prompt=request["add_generation_prompt"])
            _reply({"text": text} if len(text) <= LARGEST_TEXT else {"error": "the text is too long"})
        except DsvlError as exc:
            _reply({"error": f"{type(exc.__cause__).__name__}: {exc.__cause__}"[:1000]})


def _limit_cpu() -> None:
    """End this process if a text takes longer than whoever asked waits, who may have been killed meanwhile."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime + SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _reply(answer: object) -> None:
    sys.stdout.buffer.write(_pack(answer))
    sys.stdout.buffer.flush()


def _pack(value: object) -> bytes:
    """Write a line of JSON with all characters as they are: escaped, two lone surrogates would be read as one pair."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _unpack(line: bytes) -> Any:
    return json.loads(line.decode("utf-8", "surrogatepass"))
