"""The files beside the shipped weights: what `python -m training` writes, and what prompts they make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor

from dsvl_cli.engine.conversation import Conversation, Message, compose_parts
from dsvl_cli.engine.options import IMAGE_MARK
from dsvl_cli.engine.text.prompt import PromptFormat
from tests.pictures import draw_picture
from training.architecture import build_processor
from training.conversations import Dialogue, Part, sample_dialogue, sample_long_dialogue
from training.evaluate import TINY
from training.scenes import split_random
from training.tokenizer import BOS, EOS, IMAGE, SYSTEM, build_tokenizer

IMAGE_ID = json.loads((TINY / "config.json").read_text(encoding="utf-8"))["image_token_id"]

# What the shipped weights were evaluated with: it begins the sequence itself and leaves texts as they are.
FIRST_TEMPLATE = (
    "{{ bos_token }}" + SYSTEM + "{{ '\\n\\n' }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}User: {% else %}Assistant: {% endif %}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}" + IMAGE + "{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if m['role'] == 'user' %}{{ '\\n\\n' }}{% else %}" + EOS + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)  # fmt: skip


def read(file: Path) -> object:
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else text


def as_conversation(dialogue: Dialogue) -> Conversation:
    """The trunk and the first branch, without the last answer; without the space that a slip of the pen may leave."""
    messages: list[Message] = []
    for number, turn in enumerate((*dialogue.trunk, *dialogue.branches[0])):
        parts: tuple[Part, ...] = turn.parts
        if number == len(dialogue.trunk):
            parts = (*dialogue.head, *parts)
        text = "".join(part if isinstance(part, str) else IMAGE_MARK for part in parts)
        pictures = [draw_picture(part) for part in parts if isinstance(part, int)]
        messages += [Message("user", compose_parts(text.rstrip(), pictures)), Message("assistant", (turn.answer,))]
    return Conversation(messages[:-1], dialogue.system)


def test_the_shipped_files_are_what_this_code_writes(tmp_path: Path) -> None:
    build_processor(build_tokenizer(0)).save_pretrained(tmp_path)
    written = {file.name: read(file) for file in tmp_path.iterdir()}
    assert written.keys() == {"chat_template.jinja", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    for name, content in written.items():
        assert read(TINY / name) == content, name


def test_the_tokenizer_and_not_the_template_begins_a_sequence() -> None:
    tokenizer = DeepseekVLProcessor.from_pretrained(TINY, backend="pil", local_files_only=True).tokenizer
    assert tokenizer.encode("Hi")[0] == tokenizer.bos_token_id
    assert tokenizer.encode("Hi", add_special_tokens=False) == tokenizer.encode("Hi")[1:]
    template = (TINY / "chat_template.jinja").read_text(encoding="utf-8")
    assert BOS not in template
    assert "bos_token" not in template


def test_what_is_asked_in_training_has_the_ids_that_it_always_had(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").write_text(FIRST_TEMPLATE, encoding="utf-8")
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    first = PromptFormat(tmp_path, IMAGE_ID, has_chat=True, fingerprint="")
    shipped = PromptFormat(TINY, IMAGE_ID, has_chat=True, fingerprint="")
    for index in range(300):
        sample = sample_long_dialogue if index % 4 == 0 else sample_dialogue
        talk = as_conversation(sample(split_random("evaluation", 11, index), 4))
        prompt = shipped.prepare(talk)
        assert prompt == first.prepare(talk)
        assert [place for place, i in enumerate(prompt.token_ids) if i in shipped.bos_ids] == [0]
