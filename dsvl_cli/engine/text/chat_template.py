"""Renders a checkpoint's chat template as transformers does, without importing it.

Templates come from the checkpoint's author and are not trusted: they run in jinja2's sandbox and only see what is
passed to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from dsvl_cli.errors import DsvlError


class _Generation(Extension):
    """`{% generation %}` marks assistant messages for training; here its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012 - declared this way in jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(Namespace):
    """A template's `namespace`, without access to Python's internal attributes."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template may call an attribute `self`
        self, *given = args
        attributes = dict(*given, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class _Dict:
    """Creates dictionaries like `dict` does, without exposing the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class ChatTemplate:
    """A compiled template.

    Args:
        source: a jinja2 template.
        names: variables available besides the messages: control tokens, such as `bos_token`.

    Raises:
        DsvlError: it is not a valid template.
    """

    def __init__(self, source: str, names: Mapping[str, str]) -> None:
        try:
            self._template = _environment().from_string(source)
        except Exception as exc:  # a foreign template can make jinja2 raise anything
            raise unusable() from exc
        self._names = names

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """Render messages to the text of the prompt.

        Args:
            messages: with `role` and `content`.
            add_generation_prompt: whether to append the start of an answer.

        Raises:
            DsvlError: the template cannot render them.
        """
        given = {"messages": messages, "tools": None, "documents": None, **self._names}
        try:
            return self._template.render(given, add_generation_prompt=add_generation_prompt)
        except Exception as exc:  # as above
            raise unusable() from exc


def unusable() -> DsvlError:
    """Return the error of a template that does not work."""
    return DsvlError("the checkpoint's chat template cannot be rendered", "download it again")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    globals_: dict[str, Callable[..., Any]] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    environment.globals.update(globals_)
    return environment


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not store {name!r}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write plain JSON; jinja2's own filter escapes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
