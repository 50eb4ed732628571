"""Prompt ids against those of transformers' processor: white space, neighbouring texts, names of control tokens."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.conversation import Conversation, Message, Part, Picture, Reply
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.pictures.images import picture_from_path
from dsvl_cli.engine.text.prompt import PromptFormat
from tests.pictures import draw_picture

BOS, EOS, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>"
PICTURE, OTHER = draw_picture(1), draw_picture(2)
EXAMPLES = Path(__file__).parents[3] / "examples"
PIXELS = Image.new("RGB", (16, 16))
PROCESSOR: Any = DeepseekVLProcessor.from_pretrained(EMBEDDED_FOLDER, backend="pil", local_files_only=True)
PUBLISHED = (EMBEDDED_FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
DEFAULT_SYSTEM = PUBLISHED[PUBLISHED.index("You are") : PUBLISHED.index("{% for")]

# The published template strips and joins texts; the others do something else to them.
TEMPLATES = {
    "published": PUBLISHED,
    "verbatim": "{{ bos_token }}Be helpful.{{ '\\n\\n' }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}User: {% elif m['role'] == 'assistant' %}Assistant: "
    "{% else %}{{ m['role']|capitalize }}: {% endif %}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image_placeholder>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if not loop.last or add_generation_prompt %}"
    "{% if m['role'] == 'user' %}{{ '\\n\\n' }}{% else %}<｜end▁of▁sentence｜>{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}",
    "words": "{% for m in messages %}{{ m.role }}>{% for p in m.content %}"
    "{% if p.type == 'image' %}<image_placeholder>{% elif p.text.split() %}{{ p.text.split() | join('_') }}"
    "{% else %}({{ p.text | length }}){% endif %}{% endfor %}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    "json": "{{ bos_token }}{% for m in messages %}{{ m.role | tojson }}{% for p in m.content %}"
    "{% if p.type == 'image' %}<image_placeholder>{% else %}{{ p.text | trim('\n') | tojson }}{% endif %}"
    "{% endfor %}<｜end▁of▁sentence｜>{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}",
}


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PromptFormat]:
    """The embedded tokenizer under each template."""
    made = {}
    for name, template in TEMPLATES.items():
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(EMBEDDED_FOLDER, folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        made[name] = PromptFormat(folder, PROCESSOR.image_token_id, has_chat=True, fingerprint="this")
    return made


def say(role: str, *parts: Part) -> Message:
    return Message(cast("Any", role), parts)


def given_to_processor(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [
        {
            "role": message.role,
            "content": [
                {"type": "image", "image": PIXELS} if isinstance(part, Picture) else {"type": "text", "text": part}
                for part in message.parts
            ],
        }
        for message in messages
    ]


def ids_of_processor(template: str, messages: Sequence[Message], **how: Any) -> list[int]:
    ids = PROCESSOR.apply_chat_template(
        given_to_processor(messages), chat_template=template, tokenize=True, return_tensors="pt", **how
    )
    (row,) = ids.tolist()
    return cast("list[int]", row)


EDGE_CASES = {
    "spaces around the text": [say("user", PICTURE, "  What colour is it? ")],
    "a space before a text without a picture": [say("user", " What?")],
    "newlines around the text": [say("user", "\n\nWhat?\r\n", PICTURE), say("assistant", "A."), say("user", "And?\n")],
    "spaces between text and picture": [say("user", "What is in ", PICTURE, " and here?")],
    "two texts in one message": [say("user", PICTURE, "What", "colour?")],
    "three texts with spaces": [say("user", " One ", " two ", " three ")],
    "a picture alone": [say("user", PICTURE)],
    "a text alone": [say("user", "Hello")],
    "an answer with spaces around": [say("user", "Hi"), say("assistant", "  A red circle. \n"), say("user", "And?")],
    "no answer between two messages": [say("user", PICTURE, "Look."), say("user", "What?")],
    "Unicode spaces": [say("user", "\u00a0\u2003\u3000\u202f\u0085What?\u0085\u202f\u3000\u2003\u00a0")],
    "spaces of no width": [say("user", "\u200b\u2060\ufeffWhat?\ufeff\u2060\u200b")],
    "an empty text": [say("user", "", PICTURE), say("assistant", ""), say("user", PICTURE, "", "")],
    "white space only": [say("user", " \n"), say("assistant", " \u00a0"), say("user", PICTURE, " ", "\t", PICTURE)],
    "text before and after a picture": [say("user", "Is ", PICTURE, " a circle? ")],
    "several pictures": [say("user", PICTURE, OTHER, "Compare."), say("assistant", "No."), say("user", OTHER, " ?")],
    "a system message": [say("system", " Be terse. "), say("user", PICTURE, "What?")],
    "no parts": [say("user"), say("assistant"), say("user", "?")],
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("messages", EDGE_CASES.values(), ids=EDGE_CASES)
def test_edge_cases_have_the_ids_of_the_processor(
    formats: dict[str, PromptFormat], template: str, messages: list[Message]
) -> None:
    prompt = formats[template].prepare(Conversation(messages))
    assert list(prompt.token_ids) == ids_of_processor(TEMPLATES[template], messages, add_generation_prompt=True)
    assert [place for place, i in enumerate(prompt.token_ids) if i == PROCESSOR.tokenizer.bos_token_id] == [0]


white = st.text(" \n\t\r\x0b\x0c\x1c\x85\xa0\u2003\u3000\u202f\u200b\u2060\ufeff", max_size=3)
words = st.text(max_size=8) | st.sampled_from(["What colour is it?", "begin of <sentence", '"two" {{ words }}'])
texts = st.builds(lambda before, word, after: before + word + after, white, words, white)
parts: st.SearchStrategy[Part] = texts | st.sampled_from([PICTURE, OTHER])
messages_ = st.builds(
    lambda role, parts: say(role, *parts),
    st.sampled_from(["user", "user", "assistant", "system"]),
    st.lists(parts, max_size=4),
)
talks = st.builds(
    lambda messages, question: [*messages, question], st.lists(messages_, max_size=3), st.just(say("user", "?"))
)


@pytest.mark.parametrize("template", TEMPLATES)
@given(messages=talks)
def test_any_conversation_has_the_ids_of_the_processor(
    formats: dict[str, PromptFormat], template: str, messages: list[Message]
) -> None:
    ids = list(formats[template].prepare(Conversation(messages)).token_ids)
    assert ids == ids_of_processor(TEMPLATES[template], messages, add_generation_prompt=True)


@pytest.mark.parametrize("template", ["published", "verbatim"])
@given(messages=talks, text=texts.filter(bool))
def test_an_answer_of_another_model_is_gone_on_with_as_by_the_processor(
    formats: dict[str, PromptFormat], template: str, messages: list[Message], text: str
) -> None:
    messages = [*messages, say("assistant", text)]
    ids = list(formats[template].prepare(Conversation(messages)).token_ids)
    assert ids == ids_of_processor(TEMPLATES[template], messages, continue_final_message=True)


@given(messages=talks, system=texts.filter(bool))
def test_another_system_text_stands_where_the_default_one_did(
    formats: dict[str, PromptFormat], messages: list[Message], system: str
) -> None:
    template = PUBLISHED.replace(DEFAULT_SYSTEM, "{{ system_text }}")
    ids = list(formats["published"].prepare(Conversation(messages, system)).token_ids)
    assert ids == ids_of_processor(template, messages, add_generation_prompt=True, system_text=f"{system}\n\n")


# Pieces that make names of control tokens when a template joins them.
names = st.lists(
    st.sampled_from(
        [BOS, EOS, IMAGE, "<", "<image_", "placeholder>", ">", "｜", "<｜end▁of▁", "sentence｜>", " ", "a"]
    ),
    max_size=4,
).map("".join)


@pytest.mark.parametrize("template", TEMPLATES)
@given(talk=st.lists(st.lists(names | st.just(PICTURE), max_size=4), min_size=1, max_size=3))
def test_names_of_control_tokens_stay_text(
    formats: dict[str, PromptFormat], template: str, talk: list[list[Part]]
) -> None:
    messages = [say("user", *parts) for parts in talk]
    prompt_format = formats[template]
    prompt = prompt_format.prepare(Conversation(messages))
    ids: list[int] = []
    for token_id, run in groupby(prompt.token_ids):
        length = len(list(run))
        assert token_id != prompt.image_token_id or length % prompt.num_image_tokens == 0
        ids += [token_id] * (length // (prompt.num_image_tokens if token_id == prompt.image_token_id else 1))
    assert ids.count(prompt.image_token_id) == sum(len(message.pictures) for message in messages)
    assert ids.count(prompt_format.bos_ids[0]) == 1
    assert ids.count(prompt_format.eos_token_id or 0) == (len(messages) if template == "json" else 0)
    text = PROCESSOR.apply_chat_template(
        given_to_processor(messages), chat_template=TEMPLATES[template], add_generation_prompt=True
    )
    written = prompt_format.tokenizer.decode(ids, skip_special_tokens=False)
    assert written.removeprefix(BOS) == text.removeprefix("" if template in ("published", "words") else BOS)


@pytest.mark.parametrize("template", ["published", "verbatim"])
@given(messages=talks, kept=st.lists(st.integers(0, 1000), max_size=5).map(tuple))
def test_an_answer_keeps_its_ids_and_what_was_before_them(
    formats: dict[str, PromptFormat], template: str, messages: list[Message], kept: tuple[int, ...]
) -> None:
    prompt_format = formats[template]
    answer = Message("assistant", (prompt_format.decode(kept),), kept, "this")
    asked = prompt_format.prepare(Conversation(messages)).token_ids
    answered = prompt_format.prepare(Conversation([*messages, answer, say("user", " And? ")])).token_ids
    assert answered[: len(asked) + len(kept) + 1] == (*asked, *kept, prompt_format.eos_token_id)
    assert prompt_format.prepare(Conversation([*messages, answer])).token_ids == asked + kept


def test_an_answer_without_words_is_gone_on_with_as_if_it_were_not_there(tiny: VisionLanguageModel) -> None:
    question = say("user", picture_from_path(EXAMPLES / "red-circle.png"), "What colour is it?")
    for empty in (say("assistant", ""), Message("assistant", ("",), (), tiny.fingerprint)):
        reply = Reply.of(tiny.stream(Conversation([question, empty]), SamplingParams(max_new_tokens=8)))
        assert reply.text == "Red."


@pytest.mark.parametrize("text", ["What colour is it? ", " What colour is it?\n", "\u00a0What colour is it?\u3000"])
def test_spaces_around_a_question_change_no_answer(tiny: VisionLanguageModel, text: str) -> None:
    circle = picture_from_path(EXAMPLES / "red-circle.png")
    reply = Reply.of(tiny.stream(Conversation([say("user", circle, text)]), SamplingParams(max_new_tokens=8)))
    assert reply.text == "Red."
