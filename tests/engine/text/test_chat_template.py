"""Chat templates as we render them against transformers' own renderer."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.text.chat_template import ChatTemplate
from dsvl_cli.errors import DsvlError

EMBEDDED = (EMBEDDED_FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = [
    {"role": "system", "content": [{"type": "text", "text": "Be <terse> & \"kind\", 'é'."}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A circle."}]},
]
# Each uses something that a plain jinja2 environment has not, or does otherwise.
TEMPLATES = {
    "blocks": "{% for m in messages %}\n    {% if true %}\n  {{ m.role }}\n    {% endif %}\n{% endfor %}\n\n",
    "json is not escaped": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2, sort_keys=true) }}",
    "json for ASCII": "{{ messages | tojson(ensure_ascii=true, separators=(',', ':')) }}",
    "loops can be left": "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.role }}"
    "{% if loop.index0 == 2 %}{% break %}{% endif %}{% endfor %}",
    "generation": "{% set x = 1 %}{% for m in messages %}{% generation %}{% set x = 2 %}{{ m.role }}{{ x }}"
    "{% endgeneration %}{{ x }}{% endfor %}",
    "namespaces": "{% set ns = namespace(n=0, self=5) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}{{ ns.self }}",
    "dictionaries": "{{ dict(a=1) }}{{ dict.fromkeys([1, 2], 3) }}{{ dict([(1, 2)]) }}",
    "what is not given": "{{ tools is none }}{{ documents is none }}{{ nothing }}{{ add_generation_prompt }}",
    "time": "{{ strftime_now('%Y') }}",
    "names": "{{ bos_token + eos_token }}",
    "ranges": "{{ range(3) | list }}{{ messages | map(attribute='role') | join(',') }}",
}
REFUSED = {
    "by the template": "{{ raise_exception('no') }}",
    "underscores in namespaces": "{{ namespace(_a=1) }}",
    "underscores set later": "{% set ns = namespace() %}{% set ns._a = 1 %}",
    "python's inside": "{{ ''.__class__.__mro__ }}",
    "the type behind dict": "{{ dict.__class__.__subclasses__() }}",
    "changing what is given": "{{ messages.append(1) }}",
    "long ranges": "{% for i in range(10000000) %}{% endfor %}",
    "another language": "{% for %}",
    "an open tag": "{% generation %}a",
}


def by_transformers(template: str, messages: list[dict[str, Any]], generation_prompt: bool) -> str:
    render: Any = render_jinja_template
    ((text,), _) = render(
        conversations=[messages], chat_template=template, add_generation_prompt=generation_prompt, **NAMES
    )
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("generation_prompt", [True, False])
@pytest.mark.parametrize("template", [*TEMPLATES.values(), EMBEDDED], ids=[*TEMPLATES, "embedded"])
def test_it_writes_what_transformers_writes(template: str, generation_prompt: bool) -> None:
    text = ChatTemplate(template, NAMES).render(MESSAGES, add_generation_prompt=generation_prompt)
    assert text == by_transformers(template, MESSAGES, generation_prompt)
    assert text.strip()


def test_the_embedded_template_is_the_published_one() -> None:
    # As transformers' converter of DeepSeek-VL wrote it into the public checkpoints.
    digest = "2c1e4eb031afffb4b6112c14e98419327da0173105d51b82b78b0b34bdc7052f"
    assert hashlib.sha256(EMBEDDED.encode()).hexdigest() == digest


parts = st.just({"type": "image"}) | st.builds(lambda text: {"type": "text", "text": text}, st.text())
talks = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant"]),
        st.lists(parts, min_size=1, max_size=3),  # the published template refuses an answer without any part
    ),
    max_size=4,
)


@given(talk=talks, generation_prompt=st.booleans())
def test_any_conversation_is_written_as_transformers_writes_it(
    talk: list[dict[str, Any]], generation_prompt: bool
) -> None:
    ours = ChatTemplate(EMBEDDED, NAMES).render(talk, add_generation_prompt=generation_prompt)
    assert ours == by_transformers(EMBEDDED, talk, generation_prompt)


@pytest.mark.parametrize("template", REFUSED.values(), ids=REFUSED)
def test_what_transformers_refuses_is_refused(template: str) -> None:
    with pytest.raises((TemplateError, OverflowError)):
        by_transformers(template, MESSAGES, True)
    with pytest.raises(DsvlError, match="chat template"):
        ChatTemplate(template, NAMES).render(MESSAGES, add_generation_prompt=True)
