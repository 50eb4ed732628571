"""A model for batches without torch: it answers by the picture alone, and can be slow, short of memory, or killed."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from dsvl_cli.batch.item import Item
from dsvl_cli.engine.conversation import FinishReason, Outcome, Reply, Request, Stats
from dsvl_cli.errors import DsvlError

BATCH = 4


def answer_to(request: Request) -> str:
    """What the model says: it depends on the pictures, the question and the sampling alone."""
    (message,) = request.conversation.messages
    seen = ", ".join(f"{picture.sha256[:8]} of {picture.width}x{picture.height}" for picture in message.pictures)
    warm = "" if request.sampling.temperature == 0 else f" at {request.sampling.temperature}"
    return f"{message.text} I see {seen}.{warm}"


@dataclass
class FakeBatchModel:
    """Answers in batches of four unless told otherwise; outcomes come in the opposite order of each batch.

    Attributes:
        answer: what it says.
        fails: an error instead of an answer, or None.
        before_batch: called with each batch before it is answered.
        asked: the requests it took, in order.
        sizes: of the batches that it made.
    """

    answer: Callable[[Request], str] = answer_to
    fails: Callable[[Request], DsvlError | None] = lambda _: None
    before_batch: Callable[[list[Request]], None] = lambda _: None
    name: str = "fake"
    fingerprint: str = "fake-1"
    has_chat: bool = True
    seconds: float = 0.0
    asked: list[Request] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def choose_batch_size(self) -> int:
        return BATCH

    def answer_all(self, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[Outcome]:
        waiting = iter(requests)
        while batch := list(islice(waiting, batch_size or BATCH)):
            self.asked += batch
            self.sizes.append(len(batch))
            self.before_batch(batch)
            time.sleep(self.seconds)
            for request in reversed(batch):
                error = self.fails(request)
                if error is not None:
                    yield Outcome(request.key, error=error)
                    continue
                words = self.answer(request).split(" ")
                said = words[: request.sampling.max_new_tokens]
                reason: FinishReason = "stop" if len(said) == len(words) else "length"
                stats = Stats(10, 0, 0.25, len(said), 0.5)
                yield Outcome(request.key, Reply(" ".join(said), (), reason, stats))


def png(number: int, width: int = 8, height: int = 6) -> bytes:
    """A picture of its own for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (number % 256, number // 256 % 256, number // 65536)).save(buffer, "PNG")
    return buffer.getvalue()


def item(number: int, data: bytes | None = None, name: str | None = None) -> Item:
    """An item in memory."""
    data = png(number) if data is None else data
    name = name or f"{number:03d}.png"
    return Item(name, name, lambda: [data])


def fill(folder: Path, count: int) -> list[str]:
    """Write so many pictures into a folder, some with odd names and one in a folder of its own; returns their paths."""
    odd = {
        1: "a b.png",
        2: "ünï.png",
        3: "line\nfeed.png",
        4: "-x.png",
        5: "=1+1.png",
        6: "sub/6.png",
        7: "'quote\".png",
    }
    paths = []
    for number in range(count):
        path = folder / odd.get(number, f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
        paths.append(str(path))
    return paths
