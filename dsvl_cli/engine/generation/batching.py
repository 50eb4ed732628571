"""Many requests -> outcomes, as many at a time as fit into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from dsvl_cli.engine.conversation import Chunk, Outcome, Reply, Request
from dsvl_cli.engine.generation.generate import Row, generate_many
from dsvl_cli.engine.network.network import Network
from dsvl_cli.errors import DsvlError, MemoryShortage, is_out_of_memory

LARGEST_BATCH = 16
_MEMORY_SHARE = 0.5  # the share of the free memory that a batch's KV caches may use


def choose_batch_size(free_bytes: int, bytes_per_token: int, tokens: int) -> int:
    """Estimate how many answers can be generated together.

    Args:
        free_bytes: free memory once the model is loaded.
        bytes_per_token: of a KV cache.
        tokens: the length of a prompt with its answer.
    """
    return max(1, min(LARGEST_BATCH, int(free_bytes * _MEMORY_SHARE) // max(1, bytes_per_token * tokens)))


def answer_requests(
    network: Network, requests: Iterable[Request], make_row: Callable[[int, Request], Row], batch_size: int
) -> Iterator[Outcome]:
    """Answer requests; see `BatchModel.answer_all`.

    Args:
        network: the model.
        requests: taken when there is room for them.
        make_row: prepares a request; a `DsvlError` that it raises becomes the outcome.
        batch_size: the maximum number to answer at a time; halved when memory runs out.
    """
    arriving = iter(requests)
    again: deque[Request] = deque()  # requests that were in flight when memory ran out
    flying: dict[int, tuple[Request, list[Chunk]]] = {}
    failed: deque[Outcome] = deque()
    number = 0

    def rows() -> Iterator[Row]:
        nonlocal number
        while (request := again.popleft() if again else next(arriving, None)) is not None:
            number += 1
            flying[number] = (request, [])
            try:
                row = make_row(number, request)
                # Any of its pictures that cannot be decoded is this request's error, and must not end the others.
                if row.prompt.pictures:
                    network.features(row.prompt.pictures)
            except DsvlError as error:
                failed.append(Outcome(flying.pop(number)[0].key, error=error))
            else:
                yield row

    while True:
        try:
            for row, chunk in generate_many(network, rows(), batch_size):
                yield from _drain(failed)
                request, chunks = flying[row.index]
                chunks.append(chunk)
                if chunk.finish_reason is not None:
                    del flying[row.index]
                    yield Outcome(request.key, Reply.of(chunks))
            yield from _drain(failed)
            return
        except Exception as exc:
            if not is_out_of_memory(exc):
                raise
            network.forget()
            if batch_size == 1 or len(flying) == 1:
                for request, _ in flying.values():
                    yield Outcome(request.key, error=MemoryShortage("not enough memory even for this one alone"))
            else:
                again.extendleft(request for request, _ in reversed(flying.values()))
                batch_size = max(1, min(batch_size, len(flying)) // 2)
            flying.clear()


def _drain(failed: deque[Outcome]) -> Iterator[Outcome]:
    while failed:
        yield failed.popleft()
