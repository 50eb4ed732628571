"""An answer is complete on the screen before anything that follows its last chunk."""

from __future__ import annotations

import io
from collections.abc import Iterator

from dsvl_cli.engine.conversation import Chunk
from dsvl_cli.terminal.chat.interrupts import Interrupts
from dsvl_cli.terminal.chat.turn import show_answer
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.plain import open_answer


def test_what_the_model_says_after_its_answer_comes_after_it() -> None:
    screen = io.StringIO()
    console = Console(Environment(io.StringIO(), screen, screen, {}))

    def chunks() -> Iterator[Chunk]:
        yield Chunk("a red")
        yield Chunk(" circle", finish_reason="stop")
        console.status("not saved")

    received: list[Chunk] = []
    assert not show_answer(chunks(), lambda: open_answer(console), console, Interrupts(), received)
    assert screen.getvalue() == "a red circle\nnot saved\n"
    assert len(received) == 2
