"""Conversation -> PreparedPrompt: the token ids that the model reads, and the pictures that belong to them.

The checkpoint's own chat template gives the format. It is rendered with a mark in place of each text, so nothing that
a user, a file or an earlier answer says can be taken for a control token, and an earlier answer keeps the very ids
that were generated: rendering its text again gives other ids in general, and no cache could be reused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dsvl_cli.engine.checkpoint.layouts import find_chat_template, read_num_image_tokens, read_tokenizer_settings
from dsvl_cli.engine.conversation import Conversation, Message, Picture
from dsvl_cli.engine.text.chat_template import ChatTemplate
from dsvl_cli.errors import DsvlError

NUM_IMAGE_TOKENS = 576  # DeepSeek-VL's own: 384 px in patches of 16

# What one position of a prompt holds: a token's id, or a picture's SHA-256 with the place in it.
TokenKey = int | tuple[str, int]

# A piece of a rendered conversation: a text still to be encoded, ids, or a picture.
_Segment = str | tuple[int, ...] | Picture

_MARK = "\U0010fffd"  # a private character: templates neither contain nor change it
_TOKEN_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt as the model reads it.

    Attributes:
        token_ids: the whole prompt; a picture is a run of `num_image_tokens` times the image token's id.
        pictures: in the order of their runs.
        num_image_tokens: the length of one run.
        image_token_id: the id that the runs are made of.
    """

    token_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    num_image_tokens: int
    image_token_id: int

    def __len__(self) -> int:
        return len(self.token_ids)

    @cached_property
    def keys(self) -> tuple[TokenKey, ...]:
        """What each position holds; two prompts share computed work as far as their keys agree."""
        keys: list[TokenKey] = []
        seen = 0
        for token_id in self.token_ids:
            if token_id == self.image_token_id:
                picture, place = divmod(seen, self.num_image_tokens)
                keys.append((self.pictures[picture].sha256, place))
                seen += 1
            else:
                keys.append(token_id)
        return tuple(keys)


class PromptFormat:
    """How one checkpoint writes a conversation.

    Args:
        folder: the checkpoint's folder, with `tokenizer.json`, `tokenizer_config.json`, `processor_config.json` and
            the chat template.
        image_token_id: the id that stands for a picture, from `config.json`.
        has_chat: False for a base checkpoint: the pictures come first, then the text, to be completed as it is.
        fingerprint: the model whose generated ids may be taken over from an assistant's message.

    Raises:
        DsvlError: a file is missing or cannot be used.
    """

    def __init__(self, folder: Path, image_token_id: int, *, has_chat: bool, fingerprint: str) -> None:
        try:
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as exc:  # tokenizers raises bare Exception
            raise DsvlError(f"{folder / 'tokenizer.json'} cannot be read", "download the checkpoint again") from exc
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        # Control ids are put in by this module alone; the name of one in a text is only text.
        self.tokenizer.encode_special_tokens = True
        settings = read_tokenizer_settings(folder)
        self.has_chat = has_chat
        self.fingerprint = fingerprint
        self.image_token_id = image_token_id
        self.num_image_tokens = read_num_image_tokens(folder) or NUM_IMAGE_TOKENS
        self._names = {role: name for role in _TOKEN_ROLES if (name := _token_name(settings.get(role)))}
        self._control = self._control_ids()
        self._control_pattern = re.compile("|".join(map(re.escape, self._control)))
        self.bos_ids = self._ids_before_text(bool(settings.get("add_bos_token")))
        self.eos_token_id: int | None = self._control.get(self._names.get("eos_token", ""))
        self._template = ChatTemplate(find_template(folder) if has_chat else "", self._names)
        self._default_system = self._find_default_system() if has_chat else ""

    def prepare(self, conversation: Conversation) -> PreparedPrompt:
        """Write a conversation whose last message is to be answered, or to be gone on with if it is the assistant's."""
        segments = self._chat_segments(conversation) if self.has_chat else _plain_segments(conversation)
        ids: list[int] = []
        pictures: list[Picture] = []
        for segment in _join_texts(segments):
            if isinstance(segment, str):
                ids.extend(self.encode(segment))
            elif isinstance(segment, Picture):
                pictures.append(segment)
                ids.extend([self.image_token_id] * self.num_image_tokens)
            else:
                ids.extend(segment)
        if tuple(ids[: len(self.bos_ids)]) != self.bos_ids:
            ids[:0] = self.bos_ids
        return PreparedPrompt(tuple(ids), tuple(pictures), self.num_image_tokens, self.image_token_id)

    def encode(self, text: str) -> list[int]:
        """Give a text's ids; no id among them is a control token's, whatever the text says."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        if set(ids).isdisjoint(self._control.values()):
            return ids
        # A control token that the tokenizer does not mark as special is found in plain text too: break its name up.
        cuts = [0, *(match.start() + 1 for match in self._control_pattern.finditer(text)), len(text)]
        pieces = [text[start:end] for start, end in pairwise(cuts)]
        encodings = self.tokenizer.encode_batch(pieces, add_special_tokens=False)
        return [i for encoding in encodings for i in encoding.ids if i not in self._control.values()]

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of generated ids, control tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _chat_segments(self, conversation: Conversation) -> list[_Segment]:
        messages = conversation.messages
        unfinished = messages[-1:] if messages and messages[-1].role == "assistant" else []
        segments = self._render(messages[: len(messages) - len(unfinished)], generation_prompt=True)
        for answer in unfinished:
            ids = self._kept_ids(answer)
            segments.append(ids if ids is not None else f" {answer.text}")
        if conversation.system is not None:
            segments = self._replace_system(segments, conversation.system)
        return segments

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> list[_Segment]:
        """Render with a mark for each text, then split at the marks and at the control tokens."""
        contents: list[str | tuple[int, ...]] = []
        rendered = self._template.render(
            [self._marked(message, contents) for message in messages], add_generation_prompt=generation_prompt
        )
        pictures = (picture for message in messages for picture in message.pictures)
        segments: list[_Segment] = []
        for piece in re.split(rf"({_MARK}\d+{_MARK}|{self._control_pattern.pattern})", rendered):
            if piece in self._control:
                token_id = self._control[piece]
                segments.append(next(pictures) if token_id == self.image_token_id else (token_id,))
            elif piece.startswith(_MARK):
                content = contents[int(piece.strip(_MARK))]
                if isinstance(content, tuple) and segments and isinstance(segments[-1], str):
                    # The template writes a space before an answer; the ids were generated without one there.
                    segments[-1] = segments[-1].removesuffix(" ")
                segments.append(content)
            elif piece:
                segments.append(piece)
        return segments

    def _marked(self, message: Message, contents: list[str | tuple[int, ...]]) -> dict[str, Any]:
        """Give a message as templates take it, its texts put away in `contents` and marks in their place."""
        kept = self._kept_ids(message)
        parts = message.parts if kept is None else (kept,)
        content: list[dict[str, str]] = []
        for part in parts:
            if isinstance(part, Picture):
                content.append({"type": "image"})
            else:
                content.append({"type": "text", "text": f"{_MARK}{len(contents)}{_MARK}"})
                contents.append(part)
        return {"role": message.role, "content": content}

    def _kept_ids(self, message: Message) -> tuple[int, ...] | None:
        return message.token_ids if message.model == self.fingerprint else None

    def _replace_system(self, segments: list[_Segment], system: str) -> list[_Segment]:
        """Put another text where the template has its default one, as DeepSeek's own code does."""
        text = f"{system}\n\n" if system else ""
        for index, segment in enumerate(segments):
            if isinstance(segment, str):
                rest = segment.removeprefix(self._default_system)
                return [*segments[:index], text + rest, *segments[index + 1 :]]
        return [*segments, text]

    def _find_default_system(self) -> str:
        """Find the text that the template writes before the first message."""
        return self._control_pattern.sub("", self._template.render([], add_generation_prompt=False))

    def _control_ids(self) -> dict[str, int]:
        """Map every control token's name to its id: the special ones, and those that have a role."""
        control = {
            token.content: token_id
            for token_id, token in self.tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        image = self.tokenizer.id_to_token(self.image_token_id)
        if image is None:
            raise DsvlError(f"the tokenizer has no image token {self.image_token_id}", "download the checkpoint again")
        for name in (*self._names.values(), image):
            token_id = self.tokenizer.token_to_id(name)
            if token_id is not None:
                control[name] = token_id
        return control

    def _ids_before_text(self, add_bos: bool) -> tuple[int, ...]:
        """Find what the tokenizer puts before every text."""
        ids: list[int] = self.tokenizer.encode("", add_special_tokens=True).ids
        bos = self._control.get(self._names.get("bos_token", ""))
        if not ids and bos is not None and (add_bos or not self.has_chat):
            ids = [bos]
        return tuple(ids)


def _plain_segments(conversation: Conversation) -> list[_Segment]:
    """Give all pictures, then all texts: what a base checkpoint goes on with."""
    texts = [message.text for message in conversation.messages]
    return [*conversation.pictures, *([conversation.system] if conversation.system else []), *texts]


def _join_texts(segments: Iterable[_Segment]) -> Iterator[_Segment]:
    """Join neighbouring texts: a tokenizer must see them in one piece."""
    text = ""
    for segment in segments:
        if isinstance(segment, str):
            text += segment
            continue
        if text:
            yield text
        text = ""
        yield segment
    if text:
        yield text


def _token_name(value: object) -> str | None:
    """Give a token's text from `tokenizer_config.json`, where it is a string or an object."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def find_template(folder: Path) -> str:
    """Find the chat template.

    Raises:
        DsvlError: there is none.
    """
    template = find_chat_template(folder)
    if template is None:
        way = "a base checkpoint only completes text: use its chat checkpoint"
        raise DsvlError(f"{folder} has no chat template", way)
    return template
