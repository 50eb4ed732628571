"""Prefill and decode: prompts -> chunks of answers, one at a time or as a batch.

A plain generator without threads: an exception surfaces where it happens, closing the generator stops the work, and
the caches stay usable. In float32 greedy answers equal `generate` of transformers token for token, alone, in a batch,
or continued from a cache (tests/engine/test_parity.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from dsvl_cli.engine.conversation import Chunk, Stats
from dsvl_cli.engine.kv_cache import GrowingCache, PrefixCache
from dsvl_cli.engine.network import Network
from dsvl_cli.engine.prompt import PreparedPrompt
from dsvl_cli.engine.sampling import Sampler, choose_all
from dsvl_cli.engine.text import Answer
from dsvl_cli.errors import ContextOverflow

RESERVE = 256  # positions of the cache kept free for an answer at first


@dataclass(slots=True)
class Row:
    """One answer in the making.

    Attributes:
        index: its place in the batch that was asked for.
        prompt: what it answers.
        sampler: chooses its tokens.
        answer: turns them into text and says when it ends.
        context_length: prompt and answer together may have so many tokens.
    """

    index: int
    prompt: PreparedPrompt
    sampler: Sampler
    answer: Answer
    context_length: int

    def accept(self, token_id: int) -> Chunk:
        """Take the token that was chosen."""
        piece = self.answer.add(token_id)
        chunk = Chunk(piece.text, piece.token_ids, piece.finish_reason)
        full = len(self.prompt) + self.answer.count >= self.context_length
        if full and piece.finish_reason == "length":
            return replace(chunk, notice=f"the context of {self.context_length:,} tokens is full")
        return chunk


def check_length(prompt: PreparedPrompt, context_length: int) -> None:
    """Refuse a prompt that leaves no room for a single token.

    Raises:
        ContextOverflow: with the counts.
    """
    if len(prompt) >= context_length:
        hint = None
        if prompt.pictures:
            tokens = len(prompt.pictures) * prompt.num_image_tokens
            hint = f"{tokens:,} of them are {len(prompt.pictures)} picture(s): use fewer, or a shorter text"
        raise ContextOverflow(len(prompt), context_length, hint)


def generate(
    network: Network, rows: Sequence[Row], prefix_cache: PrefixCache | None = None
) -> Iterator[tuple[int, Chunk]]:
    """Answer prompts together; each chunk comes with the index of its row.

    Rows that have ended leave the batch. The last chunk of a row carries its `finish_reason` and `stats`; with
    several rows, seconds are those of the batch.

    Args:
        network: the model.
        rows: prompts that fit into the context, see `check_length`.
        prefix_cache: for a single row: what was computed earlier is taken from it, and it keeps what is computed now.
    """
    start = time.perf_counter()
    active = list(rows)
    reused = 0
    if prefix_cache is not None:
        (row,) = rows
        reused = prefix_cache.reuse(row.prompt.keys)
        cache = prefix_cache.cache
        logits = _prefill_one(network, row.prompt, cache, reused)
        prefix_cache.commit(row.prompt.keys[reused:])
        padding = None
    else:
        cache = GrowingCache(network.layers, max(len(row.prompt) for row in rows) + RESERVE)
        logits, padding = _prefill_batch(network, [row.prompt for row in rows], cache)
    prefilled = 0.0
    while True:
        chosen = choose_all([row.sampler for row in active], logits)
        now = time.perf_counter()
        prefilled = prefilled or now
        going: list[int] = []
        for place, (row, token_id) in enumerate(zip(active, chosen, strict=True)):
            chunk = row.accept(token_id)
            if chunk.finish_reason is None:
                going.append(place)
            else:
                stats = Stats(
                    prompt_tokens=len(row.prompt),
                    cached_tokens=reused,
                    prompt_seconds=prefilled - start,
                    generated_tokens=row.answer.count,
                    generate_seconds=now - prefilled,
                    peak_memory_bytes=network.peak_memory(),
                )
                chunk = replace(chunk, stats=stats)
            yield row.index, chunk
        if not going:
            return
        if len(going) < len(active):
            cache.select(going)
            active = [active[place] for place in going]
            chosen = [chosen[place] for place in going]
            padding = padding[going] if padding is not None else None
        logits = _step(network, chosen, cache, padding)
        if prefix_cache is not None:
            prefix_cache.commit(chosen)


def _prefill_one(network: Network, prompt: PreparedPrompt, cache: GrowingCache, reused: int) -> torch.Tensor:
    """Compute what the cache does not hold yet of one prompt; give logits `(1, vocabulary)`."""
    ids = torch.tensor([prompt.token_ids[reused:]], device=network.device)
    mask = ids == prompt.image_token_id
    features = None
    new = int(mask.sum())
    if new:
        # The prefix may end anywhere: the features that are missing are the last ones.
        missing = -(-new // prompt.num_image_tokens)
        features = network.features(prompt.pictures[-missing:])[-new:]
    return network.forward(network.embed(ids, mask, features), cache)


def _prefill_batch(
    network: Network, prompts: Sequence[PreparedPrompt], cache: GrowingCache
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute prompts together, padded on the left; give logits `(batch, vocabulary)` and each row's padding."""
    longest = max(len(prompt) for prompt in prompts)
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=network.device)
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        row[longest - len(prompt) :] = torch.tensor(prompt.token_ids)
    ids = ids.to(network.device)
    # Padding is id 0, which is never the image's: its mask is empty there.
    mask = ids == prompts[0].image_token_id
    pictures = [picture for prompt in prompts for picture in prompt.pictures]
    embeddings = network.embed(ids, mask, network.features(pictures) if pictures else None)
    if not padding.any():
        return network.forward(embeddings, cache), None
    places = torch.arange(longest, device=network.device)
    attention = (places >= padding.unsqueeze(1)).long()
    positions = (places - padding.unsqueeze(1)).clamp(min=0)
    return network.forward(embeddings, cache, attention, positions), padding


def _step(network: Network, chosen: Sequence[int], cache: GrowingCache, padding: torch.Tensor | None) -> torch.Tensor:
    """Append one token to each row; give logits `(batch, vocabulary)`."""
    ids = torch.tensor(chosen, device=network.device).unsqueeze(1)
    embeddings = network.embed(ids, torch.zeros_like(ids, dtype=torch.bool), None)
    if padding is None:
        return network.forward(embeddings, cache)
    places = torch.arange(cache.length + 1, device=network.device)
    attention = (places >= padding.unsqueeze(1)).long()
    positions = (cache.length - padding).unsqueeze(1)
    return network.forward(embeddings, cache, attention, positions)
