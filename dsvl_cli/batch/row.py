"""What a row is: the one outcome of one item, and its JSON. No torch here.

With one question a row is flat, and its only answer is called `text`:

    {"id", "path", "status", "prompt", "text", "finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion",
     "width", "height", "sha256", "model", "error_type", "error"}

With several, each answer's text is a field of the question's own name, and the rest of it lies below:

    {"id", "path", "status", NAME: text..., "prompts": {NAME: prompt...},
     "answers": {NAME: {"finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion"}...},
     "width", "height", "sha256", "model", "error_type", "error"}

Every field is there in every row; what is not known is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dsvl_cli.engine.conversation import FinishReason

Status = Literal["answered", "suspect", "error"]

ONLY = "text"  # the name of a question that is the only one
FIELDS = (
    "id", "path", "status", "prompt", "text", "finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion",
    "width", "height", "sha256", "model", "error_type", "error",
)  # fmt: skip
_DETAILS = ("finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion")
_ABOUT = ("width", "height", "sha256", "model")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one question.

    Attributes:
        text: exactly what it said.
        finish_reason: `stop`, or `length` where it was cut at the limit.
        prompt_tokens: the length of the prompt.
        tokens: how many were generated.
        seconds: from the question to the last token; in a batch others were answered meanwhile.
        suspicion: why it is probably no good answer, such as `repeats itself`; None where nothing is.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    suspicion: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer.

    Attributes:
        type: the name of the error's class: `ImageError`, `ContextOverflow`, `DsvlError`, ...
        message: one line, in our own words, but with names in it that are not ours.
    """

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one item: an answer to each question, or an error.

    Attributes:
        id, path: of the item.
        prompts: what was asked, by the question's name; `{ONLY: prompt}` where there is one question.
        answers: what was said, by the same names. Where a question failed, it is missing, and `error` says why.
        model: what the user calls the model.
        width, height: of the (first) picture, upright, in pixels; None where it could not be decoded, or there is none.
        sha256: of the picture's bytes, hexadecimal; of several pictures, of their hexadecimal digests, one after the
            other; None where they could not be read, or there is none.
        error: why answers are missing; None where none is.
    """

    id: str
    path: str
    prompts: Mapping[str, str]
    answers: Mapping[str, Answer] = field(default_factory=dict)
    model: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    error: Failure | None = None

    @property
    def status(self) -> Status:
        """What the row counts as."""
        if self.error is not None:
            return "error"
        return "suspect" if self.suspicion is not None else "answered"

    @property
    def suspicion(self) -> str | None:
        """Why the answers are suspect, of several with the question's name; None where none is."""
        found = [(name, answer.suspicion) for name, answer in self.answers.items() if answer.suspicion]
        if not found:
            return None
        return "; ".join(why if name == ONLY else f"{name}: {why}" for name, why in found)

    @property
    def text(self) -> str:
        """What was said, of several answers one a line; "" where nothing was."""
        return "\n".join(answer.text for answer in self.answers.values())

    @property
    def is_flat(self) -> bool:
        """Whether there is one question, without a name of its own."""
        return tuple(self.prompts) == (ONLY,)

    def to_fields(self) -> dict[str, Any]:
        """The row as its JSON has it."""
        fields: dict[str, Any] = {"id": self.id, "path": self.path, "status": self.status}
        if self.is_flat:
            answer = self.answers.get(ONLY)
            fields["prompt"] = self.prompts[ONLY]
            fields["text"] = answer.text if answer else None
            fields.update((name, getattr(answer, name) if answer else None) for name in _DETAILS)
        else:
            fields.update((name, self.answers[name].text if name in self.answers else None) for name in self.prompts)
            fields["prompts"] = dict(self.prompts)
            fields["answers"] = {
                name: {detail: getattr(answer, detail) for detail in _DETAILS} for name, answer in self.answers.items()
            }
        fields.update((name, getattr(self, name)) for name in _ABOUT)
        fields["error_type"] = self.error.type if self.error else None
        fields["error"] = self.error.message if self.error else None
        return fields

    def to_line(self) -> bytes:
        """The row as one line of JSON; see `encode`."""
        return encode(self.to_fields()) + b"\n"

    @classmethod
    def from_json(cls, line: str | bytes) -> Row:
        """Read a row that `to_line` wrote.

        Raises:
            ValueError: it is not a row.
        """
        fields = json.loads(line)
        try:
            return cls._from_fields(fields)
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError("not a row of a batch") from exc

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> Row:
        if "answers" in fields:
            prompts = dict(fields["prompts"])
            answers = {name: Answer(fields[name], **details) for name, details in fields["answers"].items()}
        else:
            prompts = {ONLY: fields["prompt"]}
            details = {name: fields[name] for name in _DETAILS}
            answers = {} if fields["text"] is None else {ONLY: Answer(fields["text"], **details)}
        message = fields["error"]
        return cls(
            id=fields["id"] + "",  # a TypeError where it is no text
            path=fields["path"],
            prompts=prompts,
            answers=answers,
            error=None if message is None else Failure(fields["error_type"], message),
            **{name: fields[name] for name in _ABOUT},
        )


def encode(fields: Mapping[str, Any]) -> bytes:
    """Write the fields of a row as one line of UTF-8, without a line feed.

    A path that is not UTF-8 makes the line ASCII: its odd bytes become escapes of lone surrogates, as Python reads
    them back.
    """
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(fields).encode()
