"""Hostile chat templates and tokenizers; see `hostile`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.engine.checkpoint.hostile import HARMLESS, LONG, REFUSED, Variant, edit, embedded_json, raw

_ENDLESS = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3
_TEMPLATES = {
    "nested ranges": _ENDLESS,
    "nested ranges that write": _ENDLESS.replace("{% endfor %}", "xxxxxxxx{% endfor %}", 1),
    "a format of a gigabyte": "{{ '%9999999999d' % 1 }}",
    "a format of a gigabyte, by method": "{{ '{:9999999999}'.format(1) }}",
    "a format of 2 GB": "{{ '%2000000000d' % 1 }}",
    "a centred gigabyte": "{{ 'x'.center(4000000000) }}",
    "a filter that centres": "{{ 'x' | center(4000000000) }}",
    "an indent of a gigabyte": "{{ ('x\n' * 1000) | indent(40000000) }}",
    "a product of texts": "{{ 'x' * 4000000000 }}",
    "a product of lists": "{{ ([0] * 1000000000) | length }}",
    "doubling": "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(40) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "joining": "{{ ('x' * 100000) | join('y' * 100000) }}",
    "replacing": "{{ ('x' * 100000) | replace('x', 'y' * 100000) }}",
    "powers": "{{ 9 ** (9 ** 9) }}",
    "lipsum": "{{ lipsum(n=100000000) }}",
    "json": "{{ [[1]] | tojson(indent=2000000000) }}",
    "a macro that calls itself": "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "a macro that doubles": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}"
    "{{ f(n - 1) }}{% endif %}x{% endmacro %}{{ f(60) }}",
    "a loop over itself": "{% for a in [[1]] recursive %}{{ loop([a, a]) }}{% endfor %}",
    "deep nesting": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "deep brackets": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "a syntax error": "{% for",
    "an exception": "{{ raise_exception('x' * 100000) }}",
    "include": "{% include '/etc/passwd' %}",
    "no place for pictures": "{% for m in messages %}{{ m.role }}{% endfor %}",
    "too many pictures": "<image_placeholder><image_placeholder>{{ messages | length }}",
    "pictures before there are any": "<image_placeholder>",
    "pictures in another order": "{% for m in messages | reverse %}<image_placeholder>"
    "{{ m.content[1].text }}{% endfor %}{{ m.x.y }}",
    "marks of answers": "{{ '\ufffd7\ufffd' }}<image_placeholder>",
    "escapes that make marks": "{{ '\\udfff7\\udfff' }}<image_placeholder>",
    "escapes that make marks without a number": "{{ '\\udfff99999999999999999999\\udfff\\udffe' }}<image_placeholder>",
    "lone surrogates": "{{ '\\ud812\\udc00' }}<image_placeholder>",
    "nothing": "",
    "a prompt that is too long": "{{ 'word ' * 20000 }}<image_placeholder>",
    "an endless list": "{{ cycler('a') | list }}",
    "python's inside": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "bytes that are no text": "{{ '\\x00\\x1b[2J' }}<image_placeholder>",
    "an attribute of everything": "{{ (1).real.__class__ }}",
    "a sort of much": "{% for i in range(99999) %}{{ range(99999) | list | sort }}{% endfor %}",
}  # fmt: skip
_HARMLESS_TEMPLATES = {"bytes that are no text", "pictures before there are any", "marks of answers"}


def list_templates() -> Iterator[Variant]:
    """List checkpoints with hostile chat templates."""
    for name, template in _TEMPLATES.items():
        kind = HARMLESS if name in _HARMLESS_TEMPLATES else REFUSED
        yield Variant(f"template: {name}", raw("chat_template.jinja", template.encode()), kind)
    yield Variant("template: 100 MB", raw("chat_template.jinja", b"x", 10**8))
    yield Variant("template: not UTF-8", raw("chat_template.jinja", b"\xff\xfe"))

    def in_tokenizer(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        edit("tokenizer_config.json", "chat_template", value=[{"name": "default", "template": _ENDLESS}])(folder)

    yield Variant("template: in the tokenizer's settings", in_tokenizer)


def list_tokenizers() -> Iterator[Variant]:
    """List checkpoints with hostile tokenizers, and settings of their tokens."""
    page = embedded_json("tokenizer.json")

    def changed(**changes: Any) -> Callable[[Path], None]:
        return raw("tokenizer.json", json.dumps({**page, **changes}).encode())

    def model(**changes: Any) -> Callable[[Path], None]:
        return changed(model={**page["model"], **changes})

    def added(*tokens: dict[str, Any]) -> Callable[[Path], None]:
        return changed(added_tokens=[*page["added_tokens"], *tokens])

    vocabulary = page["model"]["vocab"]
    word = next(name for name in vocabulary if name == "What" or name == "ĠWhat" or len(name) > 2)
    token = page["added_tokens"][0]
    catastrophe = {
        "type": "Split",
        "pattern": {"Regex": "(a|a|b|b)*(x+x+)+y$|(.*)*(.*)*(.*)*\\d\\d\\dz"},
        "behavior": "Isolated",
        "invert": False,
    }
    words = {**catastrophe, "pattern": {"Regex": "(\\w+\\s?)+\\d{9}$"}}
    yield Variant("tokenizer: a pattern that tries all ways", changed(pre_tokenizer=words))
    yield Variant("tokenizer: not JSON", raw("tokenizer.json", b"{"))
    yield Variant("tokenizer: empty", raw("tokenizer.json", b""))
    yield Variant("tokenizer: nested", raw("tokenizer.json", b"[" * 10**6))
    yield Variant("tokenizer: 200 MB", raw("tokenizer.json", b" ", 2 * 10**8, b"{}"))
    yield Variant("tokenizer: no model", changed(model=None))
    yield Variant("tokenizer: an unknown model", model(type="X"))
    yield Variant(
        "tokenizer: ids far outside",
        model(vocab={name: (i + 10**6 if i < 1000 else i) for name, i in vocabulary.items()}),
    )
    yield Variant("tokenizer: ids of 2^32 - 1", model(vocab={**vocabulary, word: 2**32 - 1}))
    yield Variant("tokenizer: ids of 2^40", model(vocab={**vocabulary, word: 2**40}))
    yield Variant("tokenizer: all words have one id", model(vocab=dict.fromkeys(vocabulary, 7)))
    yield Variant(
        "tokenizer: words have the image's id",
        model(vocab={name: (1023 if i < 1000 else i) for name, i in vocabulary.items()}),
    )
    yield Variant("tokenizer: merges of nothing", model(merges=[["zzzz", "yyyy"]]))
    yield Variant("tokenizer: no image token", changed(added_tokens=page["added_tokens"][:2]))
    yield Variant("tokenizer: no control tokens", changed(added_tokens=[]))
    yield Variant("tokenizer: an empty control token", added({**token, "id": 1024, "content": ""}), HARMLESS)
    yield Variant("tokenizer: a control token far outside", added({**token, "id": 10**9, "content": "What"}), HARMLESS)
    yield Variant("tokenizer: a control token of one letter", added({**token, "id": 1024, "content": "e"}), HARMLESS)
    yield Variant("tokenizer: a control token of white space", added({**token, "id": 1024, "content": " "}))
    yield Variant(
        "tokenizer: 3,000 letters in control tokens",
        added({**token, "id": 1024, "content": "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))}),
    )
    yield Variant(
        "tokenizer: a pattern that takes for ever",
        changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [catastrophe, page["pre_tokenizer"]]}),
    )
    yield Variant(
        "tokenizer: a pattern that is none", changed(pre_tokenizer={**catastrophe, "pattern": {"Regex": "(("}})
    )
    for what, pattern in {"each letter": ".", "nothing": ""}.items():
        growth = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "ab" * 10**6}
        yield Variant(
            f"tokenizer: a megabyte for {what}", changed(normalizer={"type": "Sequence", "normalizers": [growth] * 3})
        )
    yield Variant("tokenizer: a text before each", changed(normalizer={"type": "Prepend", "prepend": "ab" * 10**7}))
    yield Variant(
        "tokenizer: truncation",
        changed(truncation={"max_length": 0, "strategy": "LongestFirst", "stride": 5, "direction": "Right"}),
        HARMLESS,
    )
    yield Variant(
        "tokenizer: padding",
        changed(
            padding={
                "strategy": {"Fixed": 10**9},
                "direction": "Left",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "x",
            }
        ),
        HARMLESS,
    )
    before, text = {"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    many = {"type": "TemplateProcessing", "single": [before, text],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]}  # fmt: skip
    for what, ids in {"far outside": [10**6], "of pictures": [1023], "by the million": [5] * 10**6}.items():
        special = {"x": {"id": "x", "ids": ids, "tokens": ["x"] * len(ids)}}
        yield Variant(
            f"tokenizer: tokens before a text {what}", changed(post_processor={**many, "special_tokens": special})
        )
    yield Variant("tokenizer: no decoder", changed(decoder=None), HARMLESS)
    growth = {"type": "Replace", "pattern": {"Regex": "."}, "content": "ab" * 10**6}
    yield Variant("tokenizer: a decoder that grows", changed(decoder={"type": "Sequence", "decoders": [growth] * 3}))
    for name in ("bos_token", "eos_token", "pad_token"):
        for value in (7, [1], "", {"content": 7}, "What", "e"):
            kind = HARMLESS
            yield Variant(f"{name} is {value!r}", edit("tokenizer_config.json", name, value=value), kind)
    yield Variant("tokenizer_config.json is a list", raw("tokenizer_config.json", b"[1]"))
    ends: tuple[Any, ...] = (-1, 10**9, LONG, "x", [], [[1]], {"a": 1}, None, True, 1.5, [1022] * 10**6)
    for end in ends:
        yield Variant(
            f"eos_token_id is {end!r:.20}", edit("generation_config.json", "eos_token_id", value=end), HARMLESS
        )
    yield Variant("generation_config.json is damaged", raw("generation_config.json", b"{"))
