"""How far a quantized model's answers are from its source's.

The source answers greedily, and the other model is led along that answer: at each token its distribution is compared
with the source's, so that one early difference does not make everything after it different.
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
_SIDE = 384  # of the drawn pictures, in pixels


@dataclass(frozen=True, slots=True)
class Run:
    """What one model did.

    Attributes:
        token_ids: the answers that were followed, one a picture.
        log_probs: for each picture `(tokens, vocabulary)` in float32: before each token, what may come.
        tokens_per_second: of decoding.
        memory_bytes: what the process grew by while the model was loaded and answered, about.
    """

    token_ids: tuple[tuple[int, ...], ...]
    log_probs: tuple[torch.Tensor, ...]
    tokens_per_second: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two models' answers differ.

    Attributes:
        pictures: how many were asked about.
        same_answers: about how many both answer greedily with the same tokens.
        tokens: of the source's answers, together.
        agreement: the share of these for which both find the same token likeliest.
        mean_kl, p99_kl: mean and 99th percentile of the divergence of the distributions, in nats.
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
    """Load a model, let it describe pictures, and let it go; see `follow`.

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
        model: asked about one picture after the other.
        pictures: what about.
        paths: the token ids of each answer; None lets the model choose.
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
    """Compare what two models expect along the same answers."""
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
    """Give an error as it is up to a million; what is larger, or no number at all, counts as a million."""
    return min(_LARGEST, error)  # in this order: NaN is never less


def draw_pictures() -> list[Picture]:
    """Draw three simple pictures, for when none is given: a disc, two squares, a number."""
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
