"""`dsvl describe`: answers a question about each picture, or about all of them together."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from dsvl_cli.engine.constraints import JsonSchema, OneOf
from dsvl_cli.engine.conversation import Chunk, Conversation, Message, Picture, Reply, Stats, compose_parts
from dsvl_cli.engine.encodings import read_stdin
from dsvl_cli.engine.options import DEFAULT_PROMPT, IMAGE_MARK, LoadOptions, SamplingParams
from dsvl_cli.engine.pictures.addresses import shown_source
from dsvl_cli.engine.pictures.images import expand_sources, read_picture
from dsvl_cli.engine.pictures.questions import refuse_questions
from dsvl_cli.engine.samples import Samples, draw_samples, list_samplings, read_samples, samples_to_fields
from dsvl_cli.engine.schemas import add_explanation, read_constraint, read_value
from dsvl_cli.errors import ContextOverflow, ImageError, InvalidAnswer, SomeFailed, UsageError
from dsvl_cli.terminal.answers import (
    describe_cut,
    describe_stats,
    say_probabilities,
    write_line,
    write_paragraphs,
    write_value,
)
from dsvl_cli.terminal.console import Console
from dsvl_cli.terminal.deferral import deferred_signals
from dsvl_cli.terminal.plain import AnswerStream, open_answer
from dsvl_cli.terminal.progress import ConsoleListener
from dsvl_cli.terminal.waiting import CTRL_C_STOPS, ReadingWait, Wait

if TYPE_CHECKING:
    from dsvl_cli.engine.model import VisionLanguageModel


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the pictures it is about.

    Attributes:
        groups: the picture sources of each conversation: one per conversation, or all in one.
        prompt: the prompt, or None for the default.
        system: replaces the default system prompt.
    """

    groups: tuple[tuple[str, ...], ...]
    prompt: str | None
    system: str | None

    @classmethod
    def read(cls, images: Sequence[str], prompt: str | None, system: str | None, *, together: bool) -> Question:
        """Interpret the command line; reads the prompt from stdin if it is `-`.

        Raises:
            UsageError: stdin is used twice, a picture is a question, or the marks in the prompt do not match the
                pictures.
            DsvlError: a pattern matches no file.
        """
        if prompt == "-":
            if "-" in images:
                raise UsageError(
                    "the picture and the prompt cannot both come from stdin",
                    "give the picture's path, or the prompt itself",
                )
            prompt = read_stdin().strip()
            if not prompt:
                raise UsageError("the prompt on stdin is empty", "pipe the question in, or write -p 'What is it?'")
        if images.count("-") > 1:
            raise UsageError("- is given more than once, but stdin can have only one picture", "give paths")
        refuse_questions(images, "dsvl describe")
        sources = expand_sources(images)
        marks = prompt.count(IMAGE_MARK) if prompt else 0
        if marks > 1 or together:
            if marks not in (0, len(sources)):
                raise UsageError(
                    f"the prompt has {marks} {IMAGE_MARK} mark(s) for {len(sources)} picture(s)",
                    "write one mark per picture, or none to put the pictures first",
                )
            return cls((tuple(sources),), prompt, system)
        return cls(tuple((source,) for source in sources), prompt, system)


class _Run:
    """Answers one question after another; the model is loaded once a picture has been read."""

    def __init__(
        self,
        console: Console,
        load: LoadOptions,
        question: Question,
        sampling: SamplingParams,
        count: int,
        *,
        as_json: bool,
    ) -> None:
        self.console = console
        self.load = load
        self.question = question
        self.sampling = sampling
        self.count = count  # of answers
        self.as_json = as_json

    @cached_property
    def model(self) -> VisionLanguageModel:
        """The model."""
        loading = f"loading {self.load.model}"
        with self.console.working(Wait(loading, CTRL_C_STOPS, loading)):
            with deferred_signals():
                from dsvl_cli.engine.model import load_model

            return load_model(self.load, ConsoleListener(self.console))

    @property
    def prompt(self) -> str:
        """The prompt; by default none for a base model, which completes text and follows no instructions."""
        if self.question.prompt is not None:
            return self.question.prompt
        return DEFAULT_PROMPT if self.model.has_chat else ""

    @property
    def conversation_text(self) -> str:
        """The prompt with what the schema says about its fields."""
        return add_explanation(self.prompt, self.sampling.constraint)

    def read(self, sources: Sequence[str]) -> list[Picture]:
        """Read the pictures of one conversation, and report notes about them."""
        with self.console.working(Wait("opening the picture", CTRL_C_STOPS)):  # a download may be slow
            pictures = [read_picture(source, offline=self.load.offline) for source in sources]
        for picture in pictures:
            for note in picture.notes:
                self.console.status(f"{picture.name}: {note}")
        return pictures

    def _compose(self, pictures: Sequence[Picture]) -> Conversation:
        return Conversation([Message("user", compose_parts(self.conversation_text, pictures))], self.question.system)

    def chunks(self, pictures: Sequence[Picture], *, stream: bool) -> Iterator[Chunk]:
        """Stream the answer; show the wait for its first token, and for the others as well unless `stream`."""
        conversation = self._compose(pictures)
        reading = ReadingWait("reading", CTRL_C_STOPS, "reading")
        chunks = self.model.stream(conversation, self.sampling, reading.update)
        with self.console.working(reading):
            first = next(chunks)
        self.console.enter_state("answering")
        yield first
        if stream:
            yield from chunks
            return
        answering = Wait("answering", CTRL_C_STOPS)
        with ExitStack() as waiting:
            waiting.enter_context(self.console.working(answering))
            for number, chunk in enumerate(chunks, 2):
                answering.what = f"answering, {number:,} tokens"
                if chunk.finish_reason is not None:
                    waiting.close()  # the answer is written now
                yield chunk

    def samples(self, pictures: Sequence[Picture], ended: list[Reply]) -> list[Reply]:
        """Answer several times; show the wait, and add each answer to `ended` as it is complete."""
        conversation = self._compose(pictures)
        reading = ReadingWait("reading", CTRL_C_STOPS, "reading")
        each = list_samplings(self.sampling, self.count)
        received: list[list[Chunk]] = [[] for _ in each]
        chunks = self.model.stream_samples(conversation, each, reading.update)
        with self.console.working(reading):
            first = next(chunks)
        self.console.enter_state("answering")
        answering = Wait("answering", CTRL_C_STOPS)
        with self.console.working(answering):
            for index, chunk in chain([first], chunks):
                received[index].append(chunk)
                if chunk.finish_reason is not None:
                    ended.append(Reply.of(received[index]))
                answering.what = f"answering, {len(ended)} of {len(each)} done"
        return [Reply.of(found) for found in received]


def answer_all(
    console: Console,
    images: Sequence[str],
    load: LoadOptions,
    sampling: SamplingParams,
    *,
    prompt: str | None,
    system: str | None,
    together: bool,
    choices: str | None,
    yes_no: bool,
    schema: str | None,
    samples: int,
    as_json: bool,
    stream: bool,
    show_stats: bool,
) -> None:
    """Answer about each picture, or once about all of them.

    Args:
        console: answers go to its stdout.
        images: paths, URLs and globs; `-` is a picture on stdin.
        load: which model to load, and how.
        sampling: the sampling parameters.
        prompt: the prompt; `-` reads it from stdin, None is the default.
        system: replaces the checkpoint's default system prompt.
        together: ask once about all pictures.
        choices: a list, or a file of one, that the answer is from.
        yes_no: whether the answer is Yes or No.
        schema: the JSON Schema of the answer, its file, or its short form.
        samples: how many answers to give to each question.
        as_json: print each answer as one JSON object.
        stream: print each answer as it is generated.
        show_stats: print the statistics of each answer.

    Raises:
        UsageError: the pictures do not match the prompt, or the schema or the list of choices is wrong.
        SomeFailed: some pictures could not be read or did not fit, or their answers are not complete; each error was
            reported, the others were answered.
        DsvlError: a pattern matches no file, or the model cannot be loaded.
    """
    question = Question.read(images, prompt, system, together=together)
    sampling = replace(sampling, constraint=read_constraint(choices, yes_no, schema))
    run = _Run(console, load, question, sampling, samples, as_json=as_json)
    failed = cut = 0
    for sources in question.groups:
        try:
            pictures = run.read(sources)
            if len(question.groups) > 1 and not as_json:
                console.heading(pictures[0].name)
            reply = _tell(run, pictures, stream=stream) if samples == 1 else _tell_samples(run, pictures)
        except (ImageError, ContextOverflow, InvalidAnswer) as error:
            failed += 1
            console.error(error)
            if as_json:
                console.write(_to_json({**_subject(map(shown_source, sources)), "error": error.message}))
            continue
        if len(question.groups) > 1 and not as_json and sources is not question.groups[-1]:
            console.write("\n")
        if reply.finish_reason == "length" and not as_json:  # there, `finish_reason` says so
            cut += 1
            if len(question.groups) == 1 and samples == 1:
                console.status(f"the answer was {describe_cut(reply, sampling.max_new_tokens)}")
        if reply.notice:
            console.status(reply.notice)
        if show_stats and reply.stats:
            console.status(describe_stats(reply.stats))
    if cut and len(question.groups) > 1:
        limit = f"{sampling.max_new_tokens:,} tokens or where the context is full: --max-new-tokens N changes the limit"
        console.status(f"{cut} of {len(question.groups)} answers were cut off at {limit}")
    if failed:
        raise SomeFailed(f"{failed} of {len(question.groups)} failed")


def _tell(run: _Run, pictures: Sequence[Picture], *, stream: bool) -> Reply:
    constraint = run.sampling.constraint
    if run.as_json or constraint is not None:
        reply = Reply.of(run.chunks(pictures, stream=False))
        if run.as_json:
            run.console.write(_to_json(_row(run, pictures, reply)))
        elif isinstance(constraint, JsonSchema):
            write_value(run.console, read_value(constraint, reply.text, reply.finish_reason))
        else:
            write_line(run.console, reply.text)
            say_probabilities(run.console, reply.probabilities or {})
        return reply
    received: list[Chunk] = []
    answer: AnswerStream | None = None

    def end(answer: AnswerStream, reply: Reply) -> None:
        if not stream:
            answer.write(reply.text)
        answer.close(interrupted=reply.finish_reason == "interrupted")

    is_ended = False
    try:
        for chunk in run.chunks(pictures, stream=stream):
            # Only now: without an answer, nothing is written.
            answer = answer or open_answer(run.console, plain=run.console.plain)
            received.append(chunk)
            if stream:
                answer.write(chunk.text)
            if (
                chunk.finish_reason is not None
            ):  # the last one: the model may still have to save something, and to say so
                is_ended = True
                end(answer, Reply.of(received))
    finally:
        reply = Reply.of(received)
        if answer is not None and not is_ended:
            end(answer, reply)
    return reply


def _tell_samples(run: _Run, pictures: Sequence[Picture]) -> Reply:
    """Answer several times and write all answers; return one that has the statistics of all."""
    console, constraint = run.console, run.sampling.constraint
    if isinstance(constraint, OneOf):
        reply = Reply.of(run.chunks(pictures, stream=False))
        samples = draw_samples(reply.text, reply.probabilities or {}, run.sampling, run.count)
    else:
        ended: list[Reply] = []
        started = time.perf_counter()
        try:
            replies = run.samples(pictures, ended)
        except KeyboardInterrupt:
            if constraint is None and not run.as_json:
                write_paragraphs(console, [each.text for each in ended])
            console.status(f"(interrupted: {len(ended)} of {run.count} samples were complete)")
            raise
        samples = read_samples(replies, constraint)
        reply = replace(replies[samples.best], stats=_add_up(replies, time.perf_counter() - started))
    if run.as_json:
        console.write(_to_json(_row(run, pictures, reply, samples)))
    elif constraint is None:
        write_paragraphs(console, [each.text for each in samples.each])
    else:
        for each in samples.each:
            if each.error is None:
                write_line(
                    console, each.text if isinstance(constraint, OneOf) else json.dumps(each.value, ensure_ascii=False)
                )
        say_probabilities(console, reply.probabilities or {})
    _say_about(run, pictures, samples)
    return replace(reply, finish_reason="stop")  # what was cut has been said


def _say_about(run: _Run, pictures: Sequence[Picture], samples: Samples) -> None:
    """Say what was cut or is not valid, and how far the samples disagree."""
    name = f"{pictures[0].name}: " if len(run.question.groups) > 1 else ""
    for error, count in Counter(each.error for each in samples.each if each.error is not None).items():
        run.console.warn(f"{name}{count} of {run.count} samples {'is' if count == 1 else 'are'} not valid: {error}")
    cut = sum(each.finish_reason == "length" and each.error is None for each in samples.each)
    if cut and not run.as_json:
        limit = run.sampling.max_new_tokens
        at = f"at {limit:,} tokens or where the context is full: --max-new-tokens N changes the limit"
        run.console.status(f"{name}{cut} of {run.count} samples were cut off {at}")
    run.console.status(f"{name}disagreement {samples.disagreement:.2f} between {run.count} samples")


def _add_up(replies: Sequence[Reply], seconds: float) -> Stats | None:
    """Return the statistics of all answers together: the prompt was computed for the first."""
    each = [reply.stats for reply in replies if reply.stats is not None]
    if not each:
        return None
    first = each[0]
    return replace(
        first,
        generated_tokens=sum(stats.generated_tokens for stats in each),
        generate_seconds=max(0.0, seconds - first.prompt_seconds),
        peak_memory_bytes=each[-1].peak_memory_bytes,
    )


def _row(run: _Run, pictures: Sequence[Picture], reply: Reply, samples: Samples | None = None) -> dict[str, object]:
    """Return the `--json` object of one answer, or of several to one question."""
    model, constraint = run.model, run.sampling.constraint
    found: dict[str, object] = {}
    if isinstance(constraint, JsonSchema):
        found["value"] = read_value(constraint, reply.text, reply.finish_reason)
    elif reply.probabilities is not None:
        found["probabilities"] = dict(reply.probabilities)
    if samples is not None:
        found |= {"disagreement": samples.disagreement, **samples_to_fields(samples.each)}
    return {
        **_subject([picture.name for picture in pictures]),
        "prompt": run.prompt,
        "text": reply.text,
        **found,
        "finish_reason": reply.finish_reason,
        "model": model.name,
        "dtype": model.dtype,
        "device": model.device,
        "seed": run.sampling.seed,
        "stats": asdict(reply.stats) if reply.stats else None,
    }


def _subject(names: Iterable[str]) -> dict[str, object]:
    paths = list(names)
    return {"path": paths[0]} if len(paths) == 1 else {"paths": paths}


def _to_json(row: dict[str, object]) -> str:
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8 has lone surrogates
        text = json.dumps(row)
    return text + "\n"
