"""A row: the outcome of one item, and its JSON form. Does not import torch.

With a single question the row is flat, and the answer is in `text`:

    {"id", "path", "status", "prompt", "text", "finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion",
     "width", "height", "sha256", "model", "error_type", "error"}

With several questions each answer's text is in a field named after the question, and its details are nested:

    {"id", "path", "status", NAME: text..., "prompts": {NAME: prompt...},
     "answers": {NAME: {"finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion"}...},
     "width", "height", "sha256", "model", "error_type", "error"}

Every row has every field; unknown values are null. Answers of a given form have more: `value` is the JSON of a schema,
`probability` and `probabilities` are those of the choices. With several questions, a question's field holds the value
of a schema instead of its text, which is in `answers` then, and NAME_probability is beside a choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dsvl_cli.engine.conversation import FinishReason

Status = Literal["answered", "suspect", "error"]

ONLY = "text"  # the name of the question when there is only one
FIELDS = (
    "id", "path", "status", "prompt", "text", "finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion",
    "width", "height", "sha256", "model", "error_type", "error",
)  # fmt: skip
_DETAILS = ("finish_reason", "prompt_tokens", "tokens", "seconds", "suspicion")
_FORMS = ("value", "probability", "probabilities")
_ABOUT = ("width", "height", "sha256", "model")


class _NoValue:
    """Stands for an answer without JSON, whose value may be anything, null too."""

    def __repr__(self) -> str:
        return "NO_VALUE"

    def __reduce__(self) -> str:  # in another process, it is the one that is there
        return "NO_VALUE"


NO_VALUE = _NoValue()


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to one question.

    Attributes:
        text: the unmodified output.
        finish_reason: `stop`, or `length` if the answer was cut off at the limit.
        prompt_tokens: the length of the prompt.
        tokens: the number of generated tokens.
        seconds: from the question to the last token; within a batch this includes work on other requests.
        suspicion: why the answer is probably degenerate, such as `repeats itself`; None if it looks fine.
        value: the JSON of an answer under a schema.
        probabilities: of an answer from a list: that of each choice.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    suspicion: str | None = None
    value: Any = NO_VALUE
    probabilities: Mapping[str, float] | None = None

    @property
    def probability(self) -> float | None:
        """The probability of the choice."""
        return None if self.probabilities is None else self.probabilities.get(self.text)

    @property
    def result(self) -> Any:
        """The value if there is one, else the text."""
        return self.text if self.value is NO_VALUE else self.value

    def forms(self) -> dict[str, Any]:
        """Return the fields that only an answer of a given form has."""
        if self.probabilities is not None:
            return {"probability": self.probability, "probabilities": dict(self.probabilities)}
        return {} if self.value is NO_VALUE else {"value": self.value}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer.

    Attributes:
        type: the name of the error class: `ImageError`, `ContextOverflow`, `DsvlError`, ...
        message: one line of our own wording, which may contain untrusted names.
    """

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one item: an answer to each question, or an error.

    Attributes:
        id, path: those of the item.
        prompts: the prompts by question name; `{ONLY: prompt}` if there is one question.
        answers: the answers by question name. Failed questions are missing, and `error` says why.
        model: the model as the user named it.
        width, height: size of the (first) picture in pixels, upright; None if it was not decoded or there is none.
        sha256: hexadecimal digest of the picture's bytes; for several pictures, the digest of their concatenated
            hexadecimal digests; None if they could not be read or there are none.
        error: why answers are missing; None if all are there.
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
        """The status of the row."""
        if self.error is not None:
            return "error"
        return "suspect" if self.suspicion is not None else "answered"

    @property
    def suspicion(self) -> str | None:
        """Why answers are suspect, prefixed with the question's name if it has one; None if none are."""
        found = [(name, answer.suspicion) for name, answer in self.answers.items() if answer.suspicion]
        if not found:
            return None
        return "; ".join(why if name == ONLY else f"{name}: {why}" for name, why in found)

    @property
    def text(self) -> str:
        """The answers joined by line feeds; "" if there are none."""
        return "\n".join(answer.text for answer in self.answers.values())

    @property
    def is_flat(self) -> bool:
        """Whether there is a single, unnamed question."""
        return tuple(self.prompts) == (ONLY,)

    def to_fields(self) -> dict[str, Any]:
        """Return the fields of the row's JSON form."""
        fields: dict[str, Any] = {"id": self.id, "path": self.path, "status": self.status}
        if self.is_flat:
            answer = self.answers.get(ONLY)
            fields["prompt"] = self.prompts[ONLY]
            fields["text"] = answer.text if answer else None
            fields.update((name, getattr(answer, name) if answer else None) for name in _DETAILS)
            fields.update(answer.forms() if answer else {})
        else:
            for name in self.prompts:
                answer = self.answers.get(name)
                fields[name] = answer.result if answer else None
                if answer is not None and answer.probabilities is not None:
                    fields[probability_column(name)] = answer.probability
            fields["prompts"] = dict(self.prompts)
            fields["answers"] = {name: _to_details(answer) for name, answer in self.answers.items()}
        fields.update((name, getattr(self, name)) for name in _ABOUT)
        fields["error_type"] = self.error.type if self.error else None
        fields["error"] = self.error.message if self.error else None
        return fields

    def to_line(self) -> bytes:
        """Return the row as one line of JSON; see `encode`."""
        return encode(self.to_fields()) + b"\n"

    @classmethod
    def from_json(cls, line: str | bytes) -> Row:
        """Parse a row written by `to_line`.

        Raises:
            ValueError: the line is not a row.
        """
        return cls.from_fields(json.loads(line))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Row:
        """Make a row from its JSON form.

        Raises:
            ValueError: it is not that of a row.
        """
        try:
            row = cls._from_fields(fields)
            texts = [row.id, row.path, *row.prompts.values(), *(answer.text for answer in row.answers.values())]
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError("not a row of a batch") from exc
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("not a row of a batch")
        return row

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> Row:
        if "answers" in fields:
            prompts = dict(fields["prompts"])
            answers = {name: _to_answer(fields[name], details) for name, details in fields["answers"].items()}
        else:
            prompts = {ONLY: fields["prompt"]}
            details = {name: fields[name] for name in _DETAILS}
            details.update((name, fields[name]) for name in _FORMS if name in fields)
            answers = {} if fields["text"] is None else {ONLY: _to_answer(fields["text"], details)}
        message = fields["error"]
        return cls(
            id=fields["id"],
            path=fields["path"],
            prompts=prompts,
            answers=answers,
            error=None if message is None else Failure(fields["error_type"], message),
            **{name: fields[name] for name in _ABOUT},
        )


def _to_details(answer: Answer) -> dict[str, Any]:
    details = {detail: getattr(answer, detail) for detail in _DETAILS} | answer.forms()
    return details if answer.value is NO_VALUE else {**details, "text": answer.text}


def _to_answer(text: Any, details: Mapping[str, Any]) -> Answer:
    rest = {name: value for name, value in details.items() if name not in ("text", "probability")}
    return Answer(details.get("text", text), **rest)


def probability_column(name: str) -> str:
    """Return the field beside a question's that holds the probability of its choice."""
    return f"{name}_probability"


def encode(fields: Mapping[str, Any]) -> bytes:
    """Encode the fields of a row as one line of UTF-8 JSON, without a line feed.

    If a path is not valid UTF-8, the line is ASCII: the invalid bytes become escaped lone surrogates, which Python
    reads back.
    """
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(fields).encode()
