"""Shows an answer, from the first chunk to the last or to Ctrl-C."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError, is_out_of_memory
from dsvl_cli.terminal.chat.interrupts import Interrupts
from dsvl_cli.terminal.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dsvl_cli.engine.conversation import Chunk
    from dsvl_cli.terminal.console import Console
    from dsvl_cli.terminal.plain import AnswerStream


def explained(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the chunks of an answer; whatever a model raises becomes an error that a chat can survive.

    Raises:
        DsvlError: the model failed.
    """
    try:
        yield from chunks
    except DsvlError:
        raise
    except Exception as exc:
        if is_out_of_memory(exc):
            raise DsvlError(
                "out of memory", "use fewer or smaller pictures, /drop N, /new, or a smaller model"
            ) from exc
        raise DsvlError(f"the answer failed: {type(exc).__name__}: {exc}", "/retry tries again") from exc


def show_answer(
    chunks: Iterator[Chunk],
    open_answer: Callable[[], AnswerStream],
    console: Console,
    ctrl_c: Interrupts,
    received: list[Chunk],
    reading: Wait | None = None,
) -> bool:
    """Show an answer as it is generated; return whether Ctrl-C interrupted it.

    Every chunk is added to `received` before it is shown, so a partial answer is known whatever goes wrong. If an error
    or Ctrl-C comes before any text, nothing is written.

    Args:
        chunks: the answer.
        open_answer: starts its display.
        console: shows the wait for its first chunk.
        ctrl_c: lets Ctrl-C through between the chunks.
        received: gets the chunks.
        reading: the wait for the first chunk.
    """
    answer: AnswerStream | None = None
    complete = interrupted = is_ended = False
    with ExitStack() as waiting:
        waiting.enter_context(console.working(reading or Wait("reading")))
        try:
            while True:
                with ctrl_c.listening():
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                received.append(chunk)
                if chunk.text:
                    waiting.close()
                    if answer is None:
                        console.enter_state("answering")
                        answer = open_answer()
                    answer.write(chunk.text)
                if chunk.finish_reason is not None and answer is not None:
                    # The last one, but the model may still have to save something.
                    is_ended = True
                    answer.close()
            complete = True
        except KeyboardInterrupt:
            interrupted = True
        finally:
            # Closing a generator stops the work; other iterators have nothing to stop.
            getattr(chunks, "close", lambda: None)()
            waiting.close()
            if answer is None and complete:
                answer = open_answer()
            if answer is not None and not is_ended:
                answer.close(interrupted)
    return interrupted
