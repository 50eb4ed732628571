"""Foreign templates are rendered as in this process, and end within a limit of time and memory."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsvl_cli.engine.text import template_process
from dsvl_cli.engine.text.chat_template import ChatTemplate
from dsvl_cli.engine.text.template_process import GuardedTemplate
from dsvl_cli.errors import DsvlError
from tests.engine.text.test_chat_template import EMBEDDED, MESSAGES, NAMES, TEMPLATES

ECHO = GuardedTemplate("{{ messages[0].content[0].text }}", {})
HOSTILE = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a gigabyte by format": "{{ '%9999999999d' % 1 }}",
    "a gigabyte by product": "{{ 'x' * 4000000000 }}",
    "a gigabyte by doubling": "{% set n = namespace(x='x') %}{% for i in range(40) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "a huge power": "{{ 9 ** (9 ** 9) }}",
    "more text than a context": "{{ 'x' * 20000000 }}",
}


@pytest.mark.parametrize("generation_prompt", [True, False])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_it_renders_what_this_process_renders(template: str, generation_prompt: bool) -> None:
    guarded, direct = GuardedTemplate(template, NAMES), ChatTemplate(template, NAMES)
    for _ in range(2):
        text = guarded.render(MESSAGES, add_generation_prompt=generation_prompt)
        assert text == direct.render(MESSAGES, add_generation_prompt=generation_prompt)


@given(st.text(st.characters(), max_size=20))
@settings(max_examples=100)
def test_any_character_comes_back(text: str) -> None:
    for each in (text, "\ud800\udffe", "\udfff\n"):
        message = {"role": "user", "content": [{"type": "text", "text": each}]}
        assert ECHO.render([message], add_generation_prompt=True) == each


@pytest.mark.fault("hostile template")
@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_it_ends_in_time_and_memory(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 1.0)
    guarded = GuardedTemplate(template, {})
    for _ in range(2):
        with pytest.raises(DsvlError, match=r"takes too much time or memory|cannot be rendered"):
            guarded.render(MESSAGES, add_generation_prompt=True)


@pytest.mark.fault("hostile template")
@pytest.mark.parametrize(
    "template", ["{% for", "{{ raise_exception('no') }}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"]
)
def test_an_error_is_one_line_and_the_next_prompt_has_another_try(template: str) -> None:
    guarded = GuardedTemplate("{% if messages %}" + template + "{% if 1 %}{% endif %}{% endif %}", {})
    for _ in range(2):
        with pytest.raises(DsvlError, match="cannot be rendered"):
            guarded.render(MESSAGES, add_generation_prompt=True)


@pytest.mark.fault("killed process")
def test_a_process_that_is_gone_is_an_error() -> None:
    guarded = GuardedTemplate("{{ 1 }}", {})
    guarded.render([], add_generation_prompt=True)
    assert guarded._process is not None
    guarded._process.kill()
    guarded._process.wait()
    with pytest.raises(DsvlError):
        guarded.render([], add_generation_prompt=True)


def test_the_published_template_needs_no_process() -> None:
    guarded = GuardedTemplate(EMBEDDED, NAMES)
    guarded.render(MESSAGES, add_generation_prompt=True)
    assert guarded._process is None


@pytest.mark.fault("hostile template")
def test_a_huge_template_is_not_even_compiled() -> None:
    with pytest.raises(DsvlError):
        GuardedTemplate("x" * 2_000_000, {})


@pytest.mark.fault("hostile template")
def test_the_limit_of_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(DsvlError, match="takes too much time or memory"):
        GuardedTemplate(HOSTILE["endless"], {}).render(MESSAGES, add_generation_prompt=True)
    assert time.monotonic() - started < template_process._START_SECONDS


@pytest.mark.fault("hostile template")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of CPU time")
def test_a_process_ends_even_if_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 1000.0)  # here, not in the process
    started = time.monotonic()
    with pytest.raises(DsvlError, match="takes too much time or memory"):
        GuardedTemplate(HOSTILE["endless"], {}).render(MESSAGES, add_generation_prompt=True)
    assert time.monotonic() - started < template_process._START_SECONDS


@pytest.mark.fault("hostile template")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep this limit")
def test_the_limit_of_memory_is_kept() -> None:
    """Half a gigabyte would be there, and is quickly made."""
    with pytest.raises(DsvlError) as caught:
        GuardedTemplate("{{ ('x' * 500000000) | length }}", {}).render(MESSAGES, add_generation_prompt=True)
    assert "MemoryError" in str(caught.value.__cause__)
