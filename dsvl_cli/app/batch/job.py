"""A batch as given on the command line: its pictures, its questions, and the settings its rows depend on."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.path_set import PathSet
from dsvl_cli.batch.questions import Questions, read_questions
from dsvl_cli.batch.row import ONLY
from dsvl_cli.batch.sources.leftovers import Exclusion, Skipped
from dsvl_cli.batch.sources.scan import ScanOptions, scan
from dsvl_cli.batch.templates import find_variables
from dsvl_cli.engine.constraints import Constraint, to_json
from dsvl_cli.engine.encodings import read_text
from dsvl_cli.engine.options import DEFAULT_PROMPT, IMAGE_MARK, OF_A_QUESTION, LoadOptions, SamplingParams
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS
from dsvl_cli.engine.schemas import read_constraint
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.app.batch.options import BatchOptions
    from dsvl_cli.engine.checkpoint.find import Checkpoint

STDIO = "-"
_EXTENSION = re.compile(r"(\.[\w-]{1,20}){1,3}", re.ASCII)
_NO_TEXTS = frozenset({*PICTURE_EXTENSIONS, ".parquet", ".tar", ".tgz", ".jsonl", ".toml", ".py"})


@dataclass(frozen=True)  # without slots, for the cached property
class Job:
    """A batch to run.

    Attributes:
        options: the options that only `dsvl batch` has.
        load, sampling: how to load the model, and how to sample.

    Raises:
        UsageError: options conflict.
    """

    options: BatchOptions
    load: LoadOptions
    sampling: SamplingParams

    def __post_init__(self) -> None:
        options = self.options
        asked = [name for name in ("prompt", "prompt_file", "ask") if name in options.given]
        if len(asked) > 1:
            names = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
            raise UsageError(f"{names} cannot be used together", "use one of them")
        if options.format == "openai" and options.ask is not None:
            raise UsageError("--format openai allows only one answer per picture", "leave out --ask or --format openai")
        if not options.sources and options.files_from is None and options.check is None:
            raise UsageError("no pictures are given", "dsvl batch FOLDER -o captions.jsonl")

    @property
    def seed_drawn(self) -> bool:
        """Whether the seed was drawn at random."""
        return self.sampling.seed is not None and self.options.seed is None

    @property
    def batch_size(self) -> int | None:
        """The batch size, or None for an automatic one.

        Raises:
            UsageError: the value is neither `auto` nor a positive integer.
        """
        text = self.options.batch_size
        if text == "auto":
            return None
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise UsageError(f"--batch-size is {text!r}; it must be auto or a whole number of at least 1")
        return int(text)

    @property
    def sidecar(self) -> str:
        """The extension of text files.

        Raises:
            UsageError: it cannot be one.
        """
        extension = f".{self.options.sidecar.lstrip('.')}"
        if not _EXTENSION.fullmatch(extension) or extension.lower() in _NO_TEXTS:
            raise UsageError(f"--sidecar is {self.options.sidecar!r}; it must be an extension such as .txt or .caption")
        return extension

    def questions(self, *, has_chat: bool) -> Questions:
        """Return the questions by name.

        Raises:
            DsvlError: a file cannot be read, or a question is about several pictures.
        """
        if self._asked.prompts:
            return self._asked
        # A base model completes text and follows no instructions, so it gets no prompt by default.
        return replace(self._asked, prompts={ONLY: DEFAULT_PROMPT if has_chat else ""})

    @cached_property
    def _asked(self) -> Questions:
        """The questions, without a prompt if none is given. They are read once: their file may be a pipe."""
        questions = self._read_questions()
        questions.check_columns(self.options.samples)
        for question in questions.prompts.values():
            find_variables(question)
            if question.count(IMAGE_MARK) > 1:
                raise UsageError(
                    f"a question has more than one {IMAGE_MARK}, but is about one picture", "use dsvl describe"
                )
        return questions

    def _read_questions(self) -> Questions:
        options = self.options
        constraint = read_constraint(options.choices, options.yes_no, options.schema)
        only: dict[str, Constraint] = {} if constraint is None else {ONLY: constraint}
        if options.ask is not None:
            if any(source.lower().endswith(".jsonl") for source in options.sources):
                raise UsageError(
                    "--ask cannot be used with requests: a .jsonl file has its own questions", "leave out --ask"
                )
            if constraint is not None:
                raise UsageError(
                    "--choices, --yes-no and --schema cannot be used with --ask",
                    f"say it for each question in {options.ask}",
                )
            return read_questions(options.ask)
        if options.prompt_file is not None:
            return Questions({ONLY: read_text(options.prompt_file).strip()}, only)
        return Questions({} if options.prompt is None else {ONLY: options.prompt}, only)

    def settings(self, checkpoint: Checkpoint, questions: Questions) -> Settings:
        """Return the settings that the rows depend on."""
        loading: dict[str, Any] = {"dtype": self.load.dtype, "quantization": self.load.quantization}
        if self.load.quantization is not None:
            names = ("group_size", "include_vision", "include_head")
            loading.update((name, getattr(self.load, name)) for name in names)
        return Settings(
            checkpoint.name,
            checkpoint.fingerprint,
            questions.prompts,
            self.options.system,
            # What belongs to a question is kept beside it, and older settings know nothing of it.
            {
                name: getattr(self.sampling, name)
                for name in SamplingParams.__dataclass_fields__
                if name not in OF_A_QUESTION
            },
            loading,
            column=self.options.column,
            seed_drawn=self.seed_drawn,
            sidecar=self.sidecar,
            prefix=self.options.prefix or "",
            suffix=self.options.suffix or "",
            constraints={name: to_json(constraint) for name, constraint in questions.constraints.items()},
            least_probability=self.options.min_probability or 0.0,
            samples=self.options.samples,
            separator=self.options.separator if self.options.prefix or self.options.suffix else "",
        )

    def items(
        self, tell: Callable[[str], None], outputs: PathSet | None = None, skipped: Skipped | None = None
    ) -> Iterator[Item]:
        """Return the pictures.

        Args:
            tell: called for each folder that cannot be read.
            outputs: files that are passed over.
            skipped: counts what is left out.

        Raises:
            DsvlError: a source does not exist.
        """
        options = self.options
        skipped = skipped or Skipped()
        skipped.exclusion = Exclusion(options.exclude)
        extensions = [f".{text.lower().lstrip('.')}" for each in options.extensions for text in each.split(",")]
        found = ScanOptions(
            recursive=options.recursive,
            follow_links=options.follow_links,
            column=options.column,
            access=Access(self.load.offline, options.allow_private_addresses, options.allow_outside_paths),
            tell=tell,
            outputs=outputs or PathSet(),
            every=options.every,
            exclusion=skipped.exclusion,
            skipped=skipped,
        )
        if extensions:
            found = replace(found, extensions=frozenset(extensions))
        names = self._open_list()
        try:
            items = scan(options.sources, names, found)
        except BaseException:
            _close(names)
            raise
        return items if names is None else _close_after(items, names)

    def _open_list(self) -> BinaryIO | None:
        name = self.options.files_from
        if name is None:
            return None
        if name == STDIO:
            if sys.stdin is None or sys.stdin.isatty():
                raise UsageError("no paths on stdin", "find . -name '*.jpg' | dsvl batch --files-from - ...")
            return sys.stdin.buffer
        try:
            return open(name, "rb")  # another thread reads it to the end
        except OSError as exc:
            raise DsvlError(f"{name}: cannot be read: {exc.strerror}") from exc


def _close_after(items: Iterator[Item], names: BinaryIO) -> Iterator[Item]:
    try:
        yield from items
    finally:
        _close(names)


def _close(names: BinaryIO | None) -> None:
    if names is not None and (sys.stdin is None or names is not sys.stdin.buffer):
        names.close()
