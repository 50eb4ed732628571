"""load_model(LoadOptions) -> VisionLanguageModel: a checkpoint in memory, ready to answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from dsvl_cli.engine.chatter import import_backend, mute_libraries
from dsvl_cli.engine.checkpoint import Checkpoint, find_checkpoint
from dsvl_cli.engine.conversation import Chunk, Conversation, Outcome, Picture, Reply, Request
from dsvl_cli.engine.generate import Row, check_length, generate
from dsvl_cli.engine.hardware import DTYPE_BYTES, Plan, check_forecast, forecast_memory, make_plan
from dsvl_cli.engine.images import decode
from dsvl_cli.engine.kv_cache import PrefixCache
from dsvl_cli.engine.layers import (
    cast_unquantized,
    count_stored_bytes,
    find_model_class,
    make_quantization_config,
    make_skeleton,
    report_selection,
    select_layers,
)
from dsvl_cli.engine.machine import detect_machine
from dsvl_cli.engine.network import Network
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.pixels import read_image_processor
from dsvl_cli.engine.progress import Listener, Silence
from dsvl_cli.engine.prompt import PreparedPrompt, PromptFormat
from dsvl_cli.engine.quantization import (
    FORMATS,
    Recipe,
    check_stored_format,
    find_stored_format,
    resolve_recipe,
)
from dsvl_cli.engine.sampling import Sampler
from dsvl_cli.engine.text import Answer
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_BATCH_SIZE = 8


class VisionLanguageModel:
    """A loaded DeepSeek-VL. It is a `ChatModel`, and answers batches too.

    One conversation at a time is kept in its cache: asking about the same conversation again, with more said, costs
    only what is new.
    """

    def __init__(self, checkpoint: Checkpoint, network: Network, prompt_format: PromptFormat, plan: Plan) -> None:
        self.checkpoint = checkpoint
        self.network = network
        self.format = prompt_format
        self.plan = plan
        text_config = network.module.config.text_config
        self._context_length: int = text_config.max_position_embeddings
        self.end_ids = _end_ids(network.module, prompt_format)
        self._prefix_cache = PrefixCache(network.layers)

    @property
    def name(self) -> str:
        """What the user calls the model."""
        return self.checkpoint.name

    @property
    def fingerprint(self) -> str:
        """Identifies the owner of token ids."""
        return self.checkpoint.fingerprint

    @property
    def context_length(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self._context_length

    @property
    def has_chat(self) -> bool:
        """Whether it answers; a base checkpoint only completes text."""
        return self.checkpoint.has_chat

    @property
    def dtype(self) -> str:
        """Of weights and computation, such as `bfloat16`."""
        return self.plan.dtype

    @property
    def device(self) -> str:
        """Where it computes, such as `cpu` or `cuda:0`."""
        return self.plan.device

    def image_tokens(self) -> int:
        """How many tokens one picture takes."""
        return self.format.num_image_tokens

    def prepare(self, conversation: Conversation) -> PreparedPrompt:
        """Write the conversation as the model reads it."""
        return self.format.prepare(conversation)

    def count_tokens(self, conversation: Conversation) -> int:
        """The length in tokens of the prompt that `stream` would make of the conversation."""
        return len(self.prepare(conversation))

    def view(self, picture: Picture) -> Image:
        """The picture as the model gets it: resized and padded, RGB, `(side, side)` pixels."""
        return self.network.image_processor.view(decode(picture))

    def stream(self, conversation: Conversation, sampling: SamplingParams) -> Iterator[Chunk]:
        """Answer the last message, or go on with the last answer, piece by piece.

        Closing the iterator stops the work; the conversation is not changed. In float32 the answer is the one that a
        fresh model would give to the same token ids.

        Raises:
            ContextOverflow: before any work, when the prompt does not fit.
            ImageError: a picture cannot be decoded.
        """
        row = self._row(0, conversation, sampling)
        for _, chunk in generate(self.network, [row], self._prefix_cache):
            yield chunk

    def stream_batch(
        self, conversations: Sequence[Conversation], sampling: SamplingParams | Sequence[SamplingParams]
    ) -> Iterator[tuple[int, Chunk]]:
        """Answer several conversations together; each chunk comes with the index of its conversation.

        Raises:
            ContextOverflow: before any work, when one prompt does not fit.
            ImageError: a picture cannot be decoded.
        """
        params = [sampling] * len(conversations) if isinstance(sampling, SamplingParams) else list(sampling)
        rows = [self._row(i, talk, p) for i, (talk, p) in enumerate(zip(conversations, params, strict=True))]
        if rows:
            yield from generate(self.network, rows)

    def answer_all(self, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[Outcome]:
        """Answer many requests, several at a time; see `BatchModel`."""
        waiting = iter(requests)
        while batch := list(islice(waiting, batch_size or DEFAULT_BATCH_SIZE)):
            rows: list[Row] = []
            for index, request in enumerate(batch):
                try:
                    rows.append(self._row(index, request.conversation, request.sampling))
                except DsvlError as error:
                    yield Outcome(request.key, error=error)
            chunks: dict[int, list[Chunk]] = {row.index: [] for row in rows}
            for index, chunk in generate(self.network, rows) if rows else ():
                chunks[index].append(chunk)
                if chunk.finish_reason is not None:
                    yield Outcome(batch[index].key, Reply.of(chunks.pop(index)))

    def forget(self) -> None:
        """Drop the cache of the conversation and the features of pictures: the next turn computes everything."""
        self._prefix_cache = PrefixCache(self.network.layers)
        self.network.forget()

    def _row(self, index: int, conversation: Conversation, sampling: SamplingParams) -> Row:
        prompt = self.prepare(conversation)
        check_length(prompt, self.context_length)
        goes_on = bool(conversation.messages) and conversation.messages[-1].role == "assistant"
        answer = Answer(
            self.format.tokenizer,
            self.end_ids,
            sampling.stop,
            min(sampling.max_new_tokens, self.context_length - len(prompt)),
            strip_space=self.has_chat and not goes_on,
        )
        return Row(index, prompt, Sampler(sampling, prompt.token_ids), answer, self.context_length)


def load_model(options: LoadOptions, listener: Listener | None = None) -> VisionLanguageModel:
    """Find a checkpoint, fetch it if need be, choose device and dtype, and load it.

    Args:
        options: what to load, and how.
        listener: is told what is fetched, what was chosen and why.

    Raises:
        DsvlError: there is no such model, it is of another kind, it will not fit, or a choice cannot work.
    """
    listener = listener or Silence()
    machine = detect_machine()
    recipe = resolve_recipe(options, machine, listener)
    checkpoint = find_checkpoint(options, listener)
    plan = make_plan(options, checkpoint.model_type, listener, machine)
    check_stored_format(checkpoint, recipe, plan.device, plan.dtype)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    image_token_id = checkpoint.config.get("image_token_id", 100015)
    prompt_format = PromptFormat(
        checkpoint.path, image_token_id, has_chat=checkpoint.has_chat, fingerprint=checkpoint.fingerprint
    )
    image_processor = read_image_processor(checkpoint.path, checkpoint.model_type)
    stored = find_stored_format(checkpoint)
    if stored is not None:
        import_backend(FORMATS[stored].package)
        recipe = None
    with mute_libraries():
        if recipe is None:
            check_forecast(forecast_memory(checkpoint, plan), force=options.force)
            module = _load_module(checkpoint, plan)
            if stored is not None:
                cast_unquantized(module, getattr(torch, plan.dtype))
        else:
            module = _load_quantized(checkpoint, plan, recipe, listener, force=options.force)
        network = Network(module, image_processor)
    return VisionLanguageModel(checkpoint, network, prompt_format, plan)


def _load_quantized(checkpoint: Checkpoint, plan: Plan, recipe: Recipe, listener: Listener, *, force: bool) -> Any:
    import_backend(recipe.format.package)
    skeleton = make_skeleton(checkpoint)
    selection = select_layers(skeleton, recipe)
    report_selection(selection, recipe, listener)
    weights_bytes = count_stored_bytes(skeleton, selection, recipe, DTYPE_BYTES[plan.dtype])
    check_forecast(forecast_memory(checkpoint, plan, weights_bytes), force=force)
    return _load_module(checkpoint, plan, make_quantization_config(recipe, selection, plan.device))


def _load_module(checkpoint: Checkpoint, plan: Plan, quantization_config: Any = None) -> Any:
    # transformers takes the presence of the argument for a request.
    quantizing = {} if quantization_config is None else {"quantization_config": quantization_config}
    try:
        module = find_model_class(checkpoint.model_type).from_pretrained(
            checkpoint.path,
            dtype=getattr(torch, plan.dtype),
            attn_implementation=plan.attention,
            device_map=plan.device_map,
            max_memory=plan.max_memory,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **quantizing,
        )
    except (RuntimeError, OSError, ValueError, KeyError) as exc:
        if isinstance(exc, torch.OutOfMemoryError):
            raise DsvlError(f"out of memory on {plan.device}", "use a smaller dtype or model, or --device cpu") from exc
        raise DsvlError(
            f"{checkpoint.name} cannot be loaded: its files do not fit together", "download it again"
        ) from exc
    return module.eval()


def _end_ids(module: Any, prompt_format: PromptFormat) -> frozenset[int]:
    """Join the ends of the tokenizer and of the generation config: either alone is wrong for some checkpoints.

    The text config's is left out: the converted checkpoints have LlamaConfig's default there, which is another token.
    """
    configured = module.generation_config.eos_token_id if module.generation_config is not None else None
    ends = set(configured if isinstance(configured, list) else [configured]) | {prompt_format.eos_token_id}
    return frozenset(end for end in ends if end is not None)
