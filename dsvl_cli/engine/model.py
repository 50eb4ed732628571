"""load_model(LoadOptions) -> VisionLanguageModel: a loaded checkpoint, ready to answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, Checkpoint, find_checkpoint, list_weights
from dsvl_cli.engine.checkpoint.layouts import read_end_ids, vision_settings
from dsvl_cli.engine.checkpoint.watch import Watch
from dsvl_cli.engine.constraints import JsonSchema, OneOf
from dsvl_cli.engine.conversation import Chunk, Conversation, Outcome, Picture, Request
from dsvl_cli.engine.generation.batching import answer_requests, choose_batch_size
from dsvl_cli.engine.generation.generate import RESERVE, Row, check_length, generate, generate_many
from dsvl_cli.engine.generation.grammar import GrammarCompiler
from dsvl_cli.engine.generation.logprobs import LogprobRecorder
from dsvl_cli.engine.generation.prefix_store import PrefixStore, StoredPrefixCache, identify
from dsvl_cli.engine.generation.sampling import Sampler
from dsvl_cli.engine.generation.scoring import CandidateAnswers
from dsvl_cli.engine.machine.detect import detect_machine
from dsvl_cli.engine.machine.plan import DTYPE_BYTES, Plan, make_plan
from dsvl_cli.engine.network.kv_cache import PrefixCache
from dsvl_cli.engine.network.loading import load_network
from dsvl_cli.engine.network.network import Network
from dsvl_cli.engine.network.soundness import check_once
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.pictures.images import decode
from dsvl_cli.engine.progress import Listener, OnReading, Silence
from dsvl_cli.engine.quantization.formats import (
    can_map,
    check_stored_format,
    resolve_recipe,
)
from dsvl_cli.engine.storage.daily import is_due
from dsvl_cli.engine.text.detokenizer import Answer
from dsvl_cli.engine.text.prompt import PreparedPrompt, PromptFormat
from dsvl_cli.engine.text.token_bytes import TokenBytes
from dsvl_cli.errors import DsvlError, MemoryShortage, is_out_of_memory

if TYPE_CHECKING:
    from PIL.Image import Image

TYPICAL_TOKENS = 1024  # of a picture, a question and its answer


class VisionLanguageModel:
    """A loaded DeepSeek-VL model. Implements `ChatModel` and `BatchModel`.

    The KV cache holds one conversation: a further turn of the same conversation only computes what is new.

    Args:
        checkpoint: what it was loaded from.
        network: runs the computation.
        prompt_format: turns conversations into prompts.
        plan: how it was loaded.
        prefix_store: where `stream` loads and saves the KV caches of prompts on disk; None disables it.
        watch: notices changes of the files; made before they were read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: Network,
        prompt_format: PromptFormat,
        plan: Plan,
        prefix_store: PrefixStore | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.network = network
        self.format = prompt_format
        self.plan = plan
        self._context_length = network.decoder.config.context_length
        self.end_ids = _end_ids(checkpoint, prompt_format)
        self._banned = torch.tensor(
            prompt_format.list_banned(network.decoder.config.vocab_size, self.end_ids), dtype=torch.long
        )
        # The prompt format puts a space after `Assistant:`, which is not part of the answer.
        self._answer_prefix = " " if self.has_chat else ""
        self._grammars = GrammarCompiler(
            prompt_format.tokenizer, network.decoder.config.vocab_size, self.end_ids, self._answer_prefix
        )
        self._vocabulary = TokenBytes(prompt_format.tokenizer, prompt_format.control_ids)
        self._prefix_store = prefix_store
        self._watch = watch or Watch(list_weights(checkpoint.path))
        self._prefix_cache = self._new_prefix_cache()

    @property
    def name(self) -> str:
        """What the user calls the model."""
        return self.checkpoint.name

    @property
    def fingerprint(self) -> str:
        """Identifies the model that token ids belong to."""
        return self.checkpoint.fingerprint

    @property
    def context_length(self) -> int:
        """The maximum number of tokens of prompt and answer together."""
        return self._context_length

    @property
    def has_chat(self) -> bool:
        """Whether this is a chat model; a base checkpoint only completes text."""
        return self.checkpoint.has_chat

    @property
    def dtype(self) -> str:
        """The dtype of weights and computation, such as `bfloat16`."""
        return self.plan.dtype

    @property
    def device(self) -> str:
        """The device that it runs on, such as `cpu` or `cuda:0`."""
        return self.plan.device

    @property
    def held_bytes(self) -> int:
        """About how much memory becomes free when the model is released; 0 if its weights are memory-mapped."""
        if self.network.module is None:
            is_mapped = self.checkpoint.is_quantized or self.checkpoint.stored_dtype == self.plan.dtype
            return 0 if is_mapped else self.checkpoint.parameters * DTYPE_BYTES[self.plan.dtype]
        return sum(tensor.nbytes for tensor in (*self.network.module.parameters(), *self.network.module.buffers()))

    def image_tokens(self) -> int:
        """The number of tokens per picture."""
        return self.format.num_image_tokens

    def prepare(self, conversation: Conversation) -> PreparedPrompt:
        """Convert a conversation into the prompt that the model reads."""
        return self.format.prepare(conversation)

    def count_tokens(self, conversation: Conversation) -> int:
        """The length in tokens of the prompt that `stream` would use for the conversation."""
        return len(self.prepare(conversation))

    def view(self, picture: Picture) -> Image:
        """The picture as the model sees it: resized and padded, RGB, `(side, side)` pixels."""
        return self.network.image_processor.view(decode(picture))

    def stream(
        self, conversation: Conversation, sampling: SamplingParams, on_reading: OnReading | None = None
    ) -> Iterator[Chunk]:
        """Stream the answer to the last message, or the continuation of the last answer.

        Closing the iterator stops the work; the conversation is not changed. In float32 the answer is the same as
        that of a freshly loaded model for the same token ids.

        Args:
            conversation: ends with what to answer or to continue.
            sampling: how to choose the tokens.
            on_reading: told how far the prompt has been read, before the first token.

        Raises:
            ContextOverflow: before any work, if the prompt does not fit.
            ImageError: a picture cannot be decoded.
            MemoryShortage: memory ran out; what was cached is freed.
            DsvlError: the files of the model were changed.
        """
        self._watch.check()
        row = self._row(0, conversation, sampling)
        what = f"a prompt of {len(row.prompt):,} tokens and its answer"
        with self._freed_memory(what, "use fewer pictures, a shorter conversation, or close other programs"):
            yield from generate(self.network, row, self._prefix_cache, on_reading)
        self._save_prefix(row, conversation)

    def stream_batch(
        self, conversations: Sequence[Conversation], sampling: SamplingParams | Sequence[SamplingParams]
    ) -> Iterator[tuple[int, Chunk]]:
        """Answer several conversations together; each chunk comes with the index of its conversation.

        Raises:
            ContextOverflow: before any work, if one of the prompts does not fit.
            ImageError: a picture cannot be decoded.
        """
        self._watch.check()
        params = [sampling] * len(conversations) if isinstance(sampling, SamplingParams) else list(sampling)
        rows = [self._row(i, talk, p) for i, (talk, p) in enumerate(zip(conversations, params, strict=True))]
        for row, chunk in generate_many(self.network, rows, max(1, len(rows))):
            yield row.index, chunk

    def stream_samples(
        self, conversation: Conversation, samplings: Sequence[SamplingParams], on_reading: OnReading | None = None
    ) -> Iterator[tuple[int, Chunk]]:
        """Answer the last message several times; each chunk comes with the index of its sample.

        The prompt is computed once, as by `stream`, and the answers are generated together, as many as fit into
        memory: `cached_tokens` of all but the first are the whole prompt. In float32 each is what `stream` answers.

        Args:
            conversation: ends with what to answer.
            samplings: how to choose the tokens of each answer.
            on_reading: told how far the prompt has been read, before the first token.

        Raises:
            ContextOverflow: before any work, if the prompt does not fit.
            ImageError: a picture cannot be decoded.
            MemoryShortage: memory ran out; what was cached is freed.
            DsvlError: the files of the model were changed.
        """
        self._watch.check()
        rows = [self._row(index, conversation, sampling) for index, sampling in enumerate(samplings)]
        with self._freed_memory(f"{len(rows)} answers at a time", "use fewer --samples, or close other programs"):
            capacity = self.choose_batch_size(max((TYPICAL_TOKENS, *(len(row.prompt) + RESERVE for row in rows))))
            for row, chunk in generate_many(self.network, rows, capacity, self._prefix_cache, on_reading):
                yield row.index, chunk
        for row in rows[:1]:  # they have the same prompt
            self._save_prefix(row, conversation)

    @contextmanager
    def _freed_memory(self, what: str, hint: str) -> Iterator[None]:
        """Free what is cached if memory runs out, and say for what there was not enough."""
        try:
            yield
        except Exception as exc:
            if not is_out_of_memory(exc):
                raise
            self.forget()
            raise MemoryShortage(f"not enough memory for {what}", hint) from exc

    def _save_prefix(self, row: Row, conversation: Conversation) -> None:
        """Save what was computed of a prompt: after the answer, which need not wait for the disk."""
        if self._prefix_store is not None and not conversation.is_excerpt:
            self._prefix_store.save(row.prompt, self._prefix_cache.cache)

    def answer_all(self, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[Outcome]:
        """Answer many requests, several at a time; see `BatchModel`."""

        def make_row(index: int, request: Request) -> Row:
            return self._row(index, request.conversation, request.sampling)

        def watched() -> Iterator[Request]:
            for request in requests:
                self._watch.check()  # here it ends the whole job: all further rows would be wrong
                yield request

        size = batch_size or self.choose_batch_size()
        return answer_requests(self.network, watched(), make_row, size)

    def choose_batch_size(self, tokens: int = TYPICAL_TOKENS) -> int:
        """Estimate how many rows fit into memory together, at `tokens` for each prompt and its answer."""
        free = detect_machine().free_bytes(self.device)
        return choose_batch_size(free, self.network.decoder.bytes_per_token, tokens)

    def forget(self) -> None:
        """Clear the KV cache and the cached picture features, so that the next turn starts from scratch.

        The prefix store on disk is not affected.
        """
        self._prefix_cache = self._new_prefix_cache()
        self.network.forget()

    def _new_prefix_cache(self) -> PrefixCache:
        cache = self.network.new_cache()
        return PrefixCache(cache) if self._prefix_store is None else StoredPrefixCache(cache, self._prefix_store)

    def _row(self, index: int, conversation: Conversation, sampling: SamplingParams) -> Row:
        prompt = self.prepare(conversation)
        check_length(prompt, self.context_length)
        last = conversation.messages[-1] if conversation.messages else None
        continues = last is not None and last.role == "assistant" and bool(last.text)
        answer = Answer(
            self.format.tokenizer,
            self.end_ids,
            sampling.stop,
            min(sampling.max_new_tokens, self.context_length - len(prompt)),
            strip_space=self.has_chat and not continues,
        )
        constraint = sampling.constraint
        matcher = self._grammars.compile(constraint) if isinstance(constraint, JsonSchema) else None
        recorder = None
        if sampling.logprobs is not None:
            strip_space = self.has_chat and not continues
            recorder = LogprobRecorder(sampling.logprobs, self._vocabulary, self.end_ids, strip_space=strip_space)
        sampler = Sampler(sampling, prompt.token_ids, self._banned, matcher, recorder)
        candidates = self._candidates(constraint, prompt) if isinstance(constraint, OneOf) else None
        return Row(index, prompt, sampler, answer, self.context_length, candidates)

    def _candidates(self, constraint: OneOf, prompt: PreparedPrompt) -> CandidateAnswers:
        """Encode the answers of a list.

        Raises:
            DsvlError: one of them contains a control token, or does not fit into the context.
        """
        texts = constraint.choices
        for text in texts:
            if name := self.format.find_control(text):
                raise DsvlError(f"the choice {text!r} contains {name}, which has a meaning of its own to the model")
        ids = tuple(tuple(self.format.encode(self._answer_prefix + text)) for text in texts)
        candidates = CandidateAnswers(texts, ids, self.end_ids)
        if len(prompt) + candidates.longest >= self.context_length:
            raise DsvlError(
                f"a choice has {candidates.longest:,} tokens, but {self.context_length - len(prompt):,} are left "
                f"of the context of {self.context_length:,}",
                "use shorter choices",
            )
        return candidates


def load_model(
    options: LoadOptions, listener: Listener | None = None, checkpoint: Checkpoint | None = None
) -> VisionLanguageModel:
    """Find a checkpoint, fetch it if need be, choose device and dtype, and load it.

    Args:
        options: what to load, and how.
        listener: is told what is fetched, what was chosen and why.
        checkpoint: the model's files, where `find_checkpoint` has found them already.

    Raises:
        DsvlError: the model does not exist, is not supported or does not fit, or an option cannot work.
    """
    listener = listener or Silence()
    machine = detect_machine()
    recipe = resolve_recipe(options, machine, listener)
    checkpoint = checkpoint or find_checkpoint(options, listener)
    watch = Watch(list_weights(checkpoint.path))
    stored_dtype = checkpoint.stored_dtype if can_map(checkpoint, recipe) else None
    plan = make_plan(options, checkpoint.model_type, listener, machine, stored_dtype)
    check_stored_format(checkpoint, recipe, plan.device, plan.dtype)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    image_token_id = checkpoint.config.get("image_token_id", 100015)
    prompt_format = PromptFormat(
        checkpoint.path, image_token_id, has_chat=checkpoint.has_chat, fingerprint=checkpoint.fingerprint
    )
    network = load_network(checkpoint, plan, recipe, machine, listener, force=options.force)
    _check_parts(checkpoint, prompt_format, network)
    prefix_store = None
    if options.cache:
        prefix_store = PrefixStore(identify(checkpoint, plan, recipe, network.decoder), network.decoder, listener)
    if checkpoint.path == EMBEDDED_FOLDER and is_due("tiny"):  # last, so that no error comes after it
        listener.note("tiny is a demo model: it knows drawn shapes and numbers, not photographs")
    return VisionLanguageModel(checkpoint, network, prompt_format, plan, prefix_store, watch)


def _check_parts(checkpoint: Checkpoint, prompt_format: PromptFormat, network: Network) -> None:
    """Refuse a checkpoint whose tokenizer, processor and networks do not fit each other.

    Raises:
        DsvlError: a token would have no embedding, or a picture another size than the network reads.
    """
    vocabulary = network.decoder.config.vocab_size
    check_once(checkpoint, "ids", lambda: prompt_format.check_ids(vocabulary))  # to list 100,000 takes 0.1 s
    processor = network.image_processor
    low = vision_settings(checkpoint.config)
    patches = (low["image_size"] // low["patch_size"]) ** 2
    high = checkpoint.config.get("high_res_vision_config") or {}
    obstacle = None
    if processor.low.side != low["image_size"]:
        obstacle = (
            f"its processor makes pictures of {processor.low.side} pixels, but the model reads {low['image_size']}"
        )
    elif processor.high is not None and processor.high.side != high.get("image_size", processor.high.side):
        obstacle = (
            f"its processor makes pictures of {processor.high.side} pixels, but the model reads {high['image_size']}"
        )
    elif any(size is not None and size.min_size > size.side for size in (processor.low, processor.high)):
        obstacle = "its processor makes the edges of pictures longer than the model reads"
    elif prompt_format.num_image_tokens != patches:
        obstacle = (
            f"its processor takes {prompt_format.num_image_tokens:,} tokens for a picture, but the model {patches:,}"
        )
    if obstacle is not None:
        raise DsvlError(f"{checkpoint.name} is damaged: {obstacle}", "download it again")


def _end_ids(checkpoint: Checkpoint, prompt_format: PromptFormat) -> frozenset[int]:
    """Combine the end tokens of tokenizer and generation config: each alone is wrong for some checkpoints.

    The text config is ignored: converted checkpoints have LlamaConfig's default there, which is a different token.
    """
    ends = read_end_ids(checkpoint.path, prompt_format.control_ids)
    return ends if prompt_format.eos_token_id is None else ends | {prompt_format.eos_token_id}
