"""How far a quantized model's answers are from those of its source.

The source answers greedily, and the quantized model is forced along the same tokens: their distributions are compared
at each token, so one early difference does not change everything after it.
"""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil
import torch

from dsvl_cli.engine.conversation import Conversation, Message, Picture, compose_parts
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import DEFAULT_PROMPT, LoadOptions
from dsvl_cli.engine.pictures.images import picture_from_bytes
from dsvl_cli.engine.progress import Listener

ANSWER_TOKENS = 64
_LARGEST = 1e6
_SIDE = 384  # pixels of the drawn pictures


@dataclass(frozen=True, slots=True)
class Run:
    """The answers of one model and what they cost.

    Attributes:
        token_ids: the answers, one per picture.
        log_probs: per picture `(tokens, vocabulary)` in float32: the distribution before each token.
        tokens_per_second: of decoding.
        memory_bytes: approximate growth of the process while the model was loaded and answered.
    """

    token_ids: tuple[tuple[int, ...], ...]
    log_probs: tuple[torch.Tensor, ...]
    tokens_per_second: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the answers of two models differ.

    Attributes:
        pictures: the number of pictures.
        same_answers: the number of pictures with identical greedy answers.
        tokens: the number of tokens in the source's answers.
        agreement: the share of tokens for which both models find the same token most likely.
        mean_kl, p99_kl: mean and 99th percentile of the KL divergence per token, in nats.
    """

    pictures: int
    same_answers: int
    tokens: int
    agreement: float
    mean_kl: float
    p99_kl: float


def run_model(
    options: LoadOptions, pictures: Sequence[Picture], listener: Listener, paths: Sequence[Sequence[int]] | None = None
) -> Run:
    """Load a model, let it describe pictures, and release it; see `follow`.

    Raises:
        DsvlError: it cannot be loaded.
        ContextOverflow: a prompt does not fit.
        ImageError: a picture cannot be decoded.
    """
    gc.collect()
    before = psutil.Process().memory_info().rss
    run = follow(load_model(options, listener), pictures, paths)
    grown = psutil.Process().memory_info().rss - before
    return replace(run, memory_bytes=max(grown, 0))


def follow(model: VisionLanguageModel, pictures: Sequence[Picture], paths: Sequence[Sequence[int]] | None) -> Run:
    """Let a model describe pictures, greedily or along given answers.

    Args:
        model: describes one picture after the other.
        pictures: the pictures.
        paths: the token ids of each answer; None decodes greedily.
    """
    answers, distributions = [], []
    seconds = 0.0
    question = DEFAULT_PROMPT if model.has_chat else ""
    for index, picture in enumerate(pictures):
        conversation = Conversation([Message("user", compose_parts(question, [picture]))])
        path = None if paths is None else paths[index]
        ids, log_probs, spent = _follow_one(model, conversation, path)
        answers.append(ids)
        distributions.append(log_probs)
        seconds += spent
    steps = sum(len(ids) - 1 for ids in answers)
    return Run(tuple(answers), tuple(distributions), steps / seconds if seconds else 0.0, 0)


def _follow_one(
    model: VisionLanguageModel, conversation: Conversation, path: Sequence[int] | None
) -> tuple[tuple[int, ...], torch.Tensor, float]:
    network = model.network
    prompt = model.prepare(conversation)
    limit = min(ANSWER_TOKENS if path is None else len(path), model.context_length - len(prompt))
    cache = network.new_cache(len(prompt) + limit)
    logits = network.prefill(prompt, cache)
    chosen: list[int] = []
    distributions: list[torch.Tensor] = []
    start = time.perf_counter()
    while True:
        distributions.append(logits[0].log_softmax(-1).cpu())
        chosen.append(int(logits.argmax()) if path is None else path[len(chosen)])
        if len(chosen) == limit or (path is None and chosen[-1] in model.end_ids):
            break
        logits = network.step(chosen[-1:], [cache])
    return tuple(chosen), torch.stack(distributions), time.perf_counter() - start


def compare_answers(source: Run, quantized: Run) -> Comparison:
    """Compare the distributions of two models along the same answers."""
    agreements = [
        ours.argmax(-1) == theirs.argmax(-1) for ours, theirs in zip(source.log_probs, quantized.log_probs, strict=True)
    ]
    divergences = torch.cat(
        [
            (ours.exp() * (ours - theirs)).sum(-1)
            for ours, theirs in zip(source.log_probs, quantized.log_probs, strict=True)
        ]
    )
    together = torch.cat(agreements)
    return Comparison(
        pictures=len(agreements),
        same_answers=sum(bool(agreement.all()) for agreement in agreements),
        tokens=len(together),
        agreement=float(together.float().mean()),
        mean_kl=bounded(float(divergences.mean())),
        p99_kl=bounded(float(divergences.quantile(0.99))),
    )


def bounded(error: float) -> float:
    """Limit an error to a million; NaN becomes a million too."""
    return min(_LARGEST, error)  # in this order: NaN compares as false


def draw_pictures() -> list[Picture]:
    """Draw three simple pictures, used if none is given: a disc, two squares, a number."""
    from PIL import Image, ImageDraw, ImageFont

    pictures = []
    for name in ("disc", "squares", "number"):
        image = Image.new("RGB", (_SIDE, _SIDE), "white")
        pen = ImageDraw.Draw(image)
        if name == "disc":
            pen.ellipse((92, 92, 292, 292), fill="red")
        elif name == "squares":
            pen.rectangle((40, 130, 160, 250), fill="blue")
            pen.rectangle((220, 130, 340, 250), fill="green")
        else:
            pen.text((_SIDE / 2, _SIDE / 2), "42", "black", ImageFont.load_default(200), anchor="mm")
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        pictures.append(picture_from_bytes(buffer.getvalue(), f"drawn {name}"))
    return pictures
