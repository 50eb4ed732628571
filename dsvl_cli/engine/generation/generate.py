"""Prefill and decode: prompts -> chunks of answers, one at a time or in a batch.

Plain generators without threads: exceptions surface where they happen, closing a generator stops the work, and the
caches stay usable. In float32, greedy answers equal those of `generate` in transformers token for token, whether
computed alone, in a batch or continued from a cache (tests/engine/test_parity.py).

This is continuous batching: every answer has its own KV cache, joins the batch after its prefill and leaves when it
ends, and the next one takes its slot at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from dsvl_cli.engine.conversation import Chunk, Stats
from dsvl_cli.engine.generation.sampling import Sampler, check_numbers, choose_all
from dsvl_cli.engine.generation.scoring import CandidateAnswers, normalize, score_answers
from dsvl_cli.engine.network.kv_cache import KVCache, PrefixCache, count_common
from dsvl_cli.engine.network.network import Network
from dsvl_cli.engine.progress import OnReading
from dsvl_cli.engine.text.detokenizer import Answer
from dsvl_cli.engine.text.prompt import PreparedPrompt
from dsvl_cli.errors import ContextOverflow

RESERVE = 256  # cache positions initially reserved for an answer
_SHARED = 16  # minimum number of common positions for which a cache is forked rather than computed


@dataclass(slots=True)
class Row:
    """One answer being generated.

    Attributes:
        index: its position among the requests.
        prompt: what it answers.
        sampler: chooses its tokens.
        answer: turns the tokens into text and decides when the answer ends.
        context_length: the maximum number of tokens of prompt and answer together.
        candidates: the answer is the most likely of these, and nothing is sampled; None for a free answer.
    """

    index: int
    prompt: PreparedPrompt
    sampler: Sampler
    answer: Answer
    context_length: int
    candidates: CandidateAnswers | None = None

    def accept(self, token_id: int) -> Chunk:
        """Append a chosen token and return its chunk."""
        piece = self.answer.add(token_id)
        chunk = Chunk(piece.text, piece.token_ids, piece.finish_reason)
        if (recorder := self.sampler.recorder) is not None:
            recorder.add_text(piece.text)
            if piece.finish_reason is not None:
                chunk = replace(chunk, logprobs=recorder.finish())
        full = len(self.prompt) + self.answer.count >= self.context_length
        if full and piece.finish_reason == "length":
            return replace(chunk, notice=f"the context of {self.context_length:,} tokens is full")
        return chunk


def check_length(prompt: PreparedPrompt, context_length: int) -> None:
    """Reject a prompt that leaves no room for a single token.

    Raises:
        ContextOverflow: the prompt is too long.
    """
    if len(prompt) >= context_length:
        hint = None
        if prompt.pictures:
            tokens = len(prompt.pictures) * prompt.num_image_tokens
            hint = f"{len(prompt.pictures)} picture(s) take {tokens:,} of them: use fewer, or a shorter text"
        raise ContextOverflow(len(prompt), context_length, hint)


@dataclass(slots=True)
class _Going:
    """A row in progress: its KV cache, the token to append next, and its timings."""

    row: Row
    cache: KVCache
    token_id: int
    reused: int
    started: float
    prefilled: float


def generate(
    network: Network, row: Row, prefix_cache: PrefixCache, on_reading: OnReading | None = None
) -> Iterator[Chunk]:
    """Answer one prompt; the last chunk carries `finish_reason` and `stats`.

    Args:
        network: the model.
        row: its prompt fits into the context, see `check_length`.
        prefix_cache: reused for the common prefix, and extended with what is computed.
        on_reading: told how far the prompt has been read.
    """
    started = time.perf_counter()
    reused = prefix_cache.reuse(row.prompt.keys)
    cache = prefix_cache.cache
    logits = network.prefill(row.prompt, cache, on_reading)
    prefix_cache.commit(row.prompt.keys[reused:])
    going = _Going(row, cache, 0, reused, started, 0.0)
    if row.candidates is not None:
        yield _pick(network, going, row.candidates, logits)
        return
    while True:
        chunk = next(_choose(network, [going], logits))[1]
        yield chunk
        if chunk.finish_reason is not None:
            return
        logits = network.step([going.token_id], [cache])
        prefix_cache.commit([going.token_id])


class _Prompts:
    """Computes prompts one after the other; what one shares with the one before it is copied, not computed.

    Args:
        network: the model.
        prefix_cache: what the first prompt begins with; extended by it, and left as it is by its answer.
        on_reading: told how far the first prompt has been read.
    """

    def __init__(
        self, network: Network, prefix_cache: PrefixCache | None = None, on_reading: OnReading | None = None
    ) -> None:
        self._network = network
        self._prefix_cache = prefix_cache
        self._on_reading = on_reading
        # The previous prompt, with a cache that begins with it and the logits behind it.
        self._prompt: PreparedPrompt | None = None
        self._cache = network.new_cache()
        self._logits = torch.empty(0)

    def start(self, row: Row) -> tuple[_Going, torch.Tensor]:
        """Compute a row's prompt; return it with the logits `(1, vocabulary)` behind it, which may be changed."""
        started = time.perf_counter()
        prompt, reserve = row.prompt, len(row.prompt) + RESERVE
        if self._prompt is not None and prompt.keys == self._prompt.keys:
            # The same prompt once more, as for several samples: nothing is left to compute.
            going = _Going(row, self._cache.fork(len(prompt), reserve), 0, len(prompt), started, 0.0)
            return going, self._logits.clone()
        if self._prefix_cache is not None and self._prompt is None:
            common = self._prefix_cache.reuse(prompt.keys)
            computed = self._prefix_cache.cache
            self._logits = self._network.prefill(prompt, computed, self._on_reading)
            self._prefix_cache.commit(prompt.keys[common:])
            self._cache = computed.fork(len(prompt), reserve)
        else:
            common = count_common(self._prompt.keys, prompt.keys[:-1]) if self._prompt is not None else 0
            common = common if common >= _SHARED else 0
            self._cache = self._cache.fork(common, reserve) if common else self._network.new_cache(reserve)
            self._logits = self._network.prefill(prompt, self._cache)
        self._prompt = prompt
        return _Going(row, self._cache, 0, common, started, 0.0), self._logits.clone()


def generate_many(
    network: Network,
    rows: Iterable[Row],
    capacity: int,
    prefix_cache: PrefixCache | None = None,
    on_reading: OnReading | None = None,
) -> Iterator[tuple[Row, Chunk]]:
    """Answer many prompts, `capacity` at a time; yield each chunk with its row, a row's last one with its stats.

    Rows are taken from the iterable when there is room. A prompt that shares a prefix with the one before it copies
    that part of its KV cache, and the same prompt once more computes nothing.

    Args:
        network: the model.
        rows: their prompts fit into the context, see `check_length`.
        capacity: the maximum number of rows at a time.
        prefix_cache: what the first prompt begins with; extended by it, and left as it is by its answer.
        on_reading: told how far the first prompt has been read.
    """
    waiting = iter(rows)
    active: list[_Going] = []
    prompts = _Prompts(network, prefix_cache, on_reading)
    while True:
        while len(active) < capacity and (row := next(waiting, None)) is not None:
            going, logits = prompts.start(row)
            if row.candidates is not None:
                yield row, _pick(network, going, row.candidates, logits)
                continue
            for chosen, chunk in _choose(network, [going], logits):
                if chunk.finish_reason is None:
                    active.append(chosen)
                yield chosen.row, chunk
        if not active:
            return
        logits = network.step([going.token_id for going in active], [going.cache for going in active])
        chunks = list(_choose(network, active, logits))
        active = [going for going, chunk in chunks if chunk.finish_reason is None]
        for going, chunk in chunks:
            yield going.row, chunk


def _choose(network: Network, rows: Sequence[_Going], logits: torch.Tensor) -> Iterator[tuple[_Going, Chunk]]:
    """Choose the next token of each row from logits `(rows, vocabulary)`."""
    chosen = choose_all([going.row.sampler for going in rows], logits)
    now = time.perf_counter()
    for going, token_id in zip(rows, chosen, strict=True):
        going.token_id = token_id
        going.prefilled = going.prefilled or now
        chunk = going.row.accept(token_id)
        if chunk.finish_reason is not None:
            chunk = replace(chunk, stats=_measure(network, going, going.row.answer.count, now))
        yield going, chunk


def _pick(network: Network, going: _Going, candidates: CandidateAnswers, logits: torch.Tensor) -> Chunk:
    """Return the most likely candidate with the probabilities of all, from logits `(1, vocabulary)`."""
    check_numbers(logits)
    going.prefilled = time.perf_counter()
    scores = score_answers(network, going.cache, logits[0], candidates)
    best = max(range(len(scores)), key=scores.__getitem__)
    token_ids = candidates.token_ids[best]
    stats = _measure(network, going, len(token_ids) + 1, time.perf_counter())
    probabilities = dict(zip(candidates.texts, normalize(scores), strict=True))
    chunk = Chunk(candidates.texts[best], token_ids, "stop", stats, probabilities=probabilities)
    if (recorder := going.row.sampler.recorder) is None:
        return chunk
    recorder.record_choice(candidates, scores, best)
    recorder.add_text(chunk.text)
    return replace(chunk, logprobs=recorder.finish())


def _measure(network: Network, going: _Going, tokens: int, now: float) -> Stats:
    """Return the statistics of an answer that ended with so many tokens."""
    return Stats(
        prompt_tokens=len(going.row.prompt),
        cached_tokens=going.reused,
        prompt_seconds=going.prefilled - going.started,
        generated_tokens=tokens,
        generate_seconds=now - going.prefilled,
        peak_memory_bytes=network.peak_memory(),
    )
