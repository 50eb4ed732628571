"""What `dsvl batch` does: sources and questions -> rows, and what is said about them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.questions import read_questions
from dsvl_cli.batch.row import ONLY
from dsvl_cli.batch.sources.scan import ScanOptions, scan
from dsvl_cli.engine.options import DEFAULT_PROMPT, IMAGE_MARK, LoadOptions, SamplingParams
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.engine.checkpoint.find import Checkpoint

STDIO = "-"


@dataclass(frozen=True, slots=True)
class Job:
    """What the command line asks for.

    Attributes:
        values: all values of the command by name.
        load, sampling: how to load the model, and how to answer.
        given: which values stand on the command line itself.
    """

    values: Mapping[str, Any]
    load: LoadOptions
    sampling: SamplingParams
    given: frozenset[str]

    @classmethod
    def of(cls, values: Mapping[str, Any], load: LoadOptions, sampling: SamplingParams, given: frozenset[str]) -> Job:
        """Check what does not go together.

        Raises:
            UsageError: something does not.
        """
        asked = [name for name in ("prompt", "prompt_file", "ask") if name in given]
        if len(asked) > 1:
            names = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
            raise UsageError(f"{names} each say what to ask", "give one of them")
        if values["format"] == "openai" and values["ask"] is not None:
            raise UsageError("OpenAI's form has one answer for each request", "leave --ask or --format openai out")
        if not values["sources"] and values["files_from"] is None and values["check"] is None:
            raise UsageError("there is nothing to do: no SOURCE is given", "dsvl batch FOLDER -o captions.jsonl")
        return cls(values, load, sampling, given)

    @property
    def seed_drawn(self) -> bool:
        """Whether the seed was drawn by chance."""
        return self.sampling.seed is not None and self.values["seed"] is None

    @property
    def batch_size(self) -> int | None:
        """How many at a time; None leaves it to the model."""
        text = self.values["batch_size"]
        if text == "auto":
            return None
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise UsageError(f"--batch-size is {text!r}; it must be auto, or a number of at least 1")
        return int(text)

    def questions(self, *, has_chat: bool) -> dict[str, str]:
        """What is asked, by name.

        Raises:
            DsvlError: a file cannot be read, or a question is about several pictures.
        """
        if self.values["ask"] is not None:
            if any(source.lower().endswith(".jsonl") for source in self.values["sources"] or ()):
                raise UsageError("the requests of a .jsonl file ask for themselves", "leave --ask out")
            questions = read_questions(self.values["ask"])
        elif (path := self.values["prompt_file"]) is not None:
            try:
                questions = {ONLY: path.read_text("utf-8").strip()}
            except (OSError, ValueError) as exc:
                raise DsvlError(f"{path}: cannot be read as text") from exc
        elif self.values["prompt"] is not None:
            questions = {ONLY: self.values["prompt"]}
        else:
            # A base checkpoint goes on with what it is given, and gets no instruction by default.
            questions = {ONLY: DEFAULT_PROMPT if has_chat else ""}
        for question in questions.values():
            if question.count(IMAGE_MARK) > 1:
                raise UsageError(
                    f"a question has more than one {IMAGE_MARK}, and each is about one picture", "use dsvl describe"
                )
        return questions

    def settings(self, checkpoint: Checkpoint, questions: dict[str, str]) -> Settings:
        """What the rows depend on."""
        loading = {"dtype": self.load.dtype, "quantization": self.load.quantization}
        if self.load.quantization is not None:
            names = ("group_size", "include_vision", "include_head")
            loading.update((name, getattr(self.load, name)) for name in names)
        return Settings(
            checkpoint.name,
            checkpoint.fingerprint,
            questions,
            self.values["system"],
            {name: getattr(self.sampling, name) for name in SamplingParams.__dataclass_fields__},
            loading,
            column=self.values["column"],
            seed_drawn=self.seed_drawn,
        )

    def items(self, tell: Callable[[str], None]) -> Iterator[Item]:
        """Find the pictures; `tell` is told of each folder that cannot be read.

        Raises:
            DsvlError: a source is not there.
        """
        extensions = [f".{text.lower().lstrip('.')}" for each in self.values["ext"] or () for text in each.split(",")]
        found = ScanOptions(
            recursive=self.values["recursive"],
            follow_links=self.values["follow_links"],
            column=self.values["column"],
            offline=self.load.offline,
            tell=tell,
        )
        if extensions:
            found = replace(found, extensions=frozenset(extensions))
        return scan(self.values["sources"] or (), self._open_list(), found)

    def _open_list(self) -> Any:
        name = self.values["files_from"]
        if name is None:
            return None
        if name == STDIO:
            if sys.stdin is None or sys.stdin.isatty():
                raise UsageError("no names on standard input", "find . -name '*.jpg' | dsvl batch --files-from - ...")
            return sys.stdin.buffer
        try:
            return open(name, "rb")  # it is read in another thread, to its end
        except OSError as exc:
            raise DsvlError(f"{name}: cannot be read: {exc.strerror}") from exc
