from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsvl_cli.terminal.document import Row, RowRenderer, parse_blocks
from dsvl_cli.terminal.markdown import MarkdownStream
from dsvl_cli.terminal.sanitize import sanitize
from tests.terminal.escapes import ESCAPES
from tests.terminal.markdown_texts import DOCUMENTS
from tests.terminal.test_document import letters, shown_letters
from tests.terminal.window import Window

# What the stream itself sends: moving up, erasing below, wrapping, synchronized output, colours.
OWN_CONTROLS = re.compile(r"\r\n|\r?\x1b\[J|\x1b\[(\d*A|\?(7|2026)[hl]|[\d;]*m)")

COLUMNS = st.sampled_from([20, 33, 40, 80, 200])
LINES = st.sampled_from([2, 3, 7, 24])


class Clock:
    """Stands still while a frame is drawn."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def pieces_of(text: str, sizes: list[int]) -> Iterable[str]:
    start = 0
    while start < len(text):
        size = sizes[start % len(sizes)]
        yield text[start : start + size]
        start += size


def one_shot(window: Window, text: str) -> list[str]:
    width = window.console().width
    renderer = RowRenderer(window.console().renderer(width), width)
    rows: list[str] = []
    for block in parse_blocks(sanitize(text)):
        block_rows = [row.text for row in renderer.rows(block)]
        rows += ([""] if rows and block_rows else []) + block_rows
    return rows


def stream(window: Window, pieces: Iterable[str], step: float = 1.0) -> None:
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    for piece in pieces:
        answer.write(piece)
        clock.now += step
    answer.close()


@settings(max_examples=15)
@given(DOCUMENTS, COLUMNS, LINES, st.lists(st.integers(1, 60), min_size=1, max_size=5), st.sampled_from([0.01, 1.0]))
@example("1. a\n\n2", 40, 24, [1], 1.0)
@example("- a\n\n 1\n\n  b\n- c", 40, 24, [1], 1.0)
@example("a\r\nb\r\n\r\nc\r", 40, 24, [1], 1.0)
@example("```\n```\n- after an empty block", 40, 24, [3], 1.0)
@example("word " * 100 + "*open " + "word " * 20 + "close*", 20, 3, [7], 1.0)
@example("2*3 `open 2*3 " + "word " * 30 + "` end", 20, 3, [1], 1.0)
@example("> ```more than one word\n> code\n> ```", 40, 2, [1], 1.0)
@example("2*3 " + "word " * 30 + "**strong**", 20, 3, [1], 1.0)
@example("word " * 30 + "\n\n| a | b |\n|---|---|\n" + "| 1 | a longer cell |\n" * 9 + "\nend", 40, 7, [5], 1.0)
@example("```python\n" + "print(1)  # x\n" * 30, 40, 7, [5], 1.0)
@example("- - *open the first words\n  - two\n    - three levels\n      + and four\n\nend", 20, 2, [39, 26, 8], 1.0)
def test_history_and_screen_show_the_one_shot_rendering(
    text: str, columns: int, lines: int, sizes: list[int], step: float
) -> None:
    window = Window(columns, lines)
    window.console().write("before\n")
    stream(window, pieces_of(text, sizes), step)
    window.console().write("after\n")
    rows = one_shot(window, text)
    is_late = "> |" in text or any(re.match(r"\s*([-+*]|\d+[.)]) ", row) for row in rows)
    if is_late and window.rows != ["before", *rows, "after"]:
        # A quote, or a list nested too deeply for the window, may turn out to be shown as it was written when some of
        # it is written already.
        assert not shown_letters(text) - letters("".join(window.rows))
    else:
        assert window.rows == ["before", *rows, "after"]


@settings(max_examples=10)
@given(DOCUMENTS, st.lists(st.tuples(COLUMNS, LINES), min_size=1), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_nothing_is_lost_when_the_window_changes(text: str, sizes: list[tuple[int, int]], cuts: list[int]) -> None:
    window = Window(80, 24)
    window.console().write("before\n")
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    for number, piece in enumerate(pieces_of(text, cuts)):
        answer.write(piece)
        clock.now += 1
        if number % 3 == 2:
            window.resize(*sizes[number // 3 % len(sizes)])
    answer.close()
    window.console().write("after\n")
    assert window.rows[0] == "before"
    assert window.rows[-1] == "after"
    assert not shown_letters(text) - letters("".join(window.rows))


def test_nothing_is_lost_when_rows_already_written_become_the_head_of_a_table() -> None:
    window = Window(20, 3)
    stream(window, "word " * 30 + "| b |\n|---|---|\n| 1 | 2 |")
    assert "".join(window.rows).count("word") >= 30
    assert [row.split() for row in window.rows[-2:]] == [["─" * 20], ["1", "2"]]
    assert any(row.endswith(" b") for row in window.rows)


def test_a_window_that_shrinks_shows_a_long_code_block_once() -> None:
    window = Window(40, 10)
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    lines = [f"line {number}" for number in range(60)]
    answer.write("```\n")
    for number, line in enumerate(lines):
        answer.write(line + "\n")
        clock.now += 1
        if number == 30:
            window.resize(40, 5)
    answer.close()
    assert window.rows == lines


def test_a_line_of_ten_thousand_characters() -> None:
    window = Window(80, 10)
    text = "".join(chr(ord("a") + number % 26) for number in range(10_000))
    stream(window, pieces_of(text, [500]))
    assert "".join(window.rows) == text


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_no_foreign_control_character_reaches_the_terminal(escape: str) -> None:
    for text in (f"a {escape} b", f"```\n{escape}\n```", f"# `{escape}`", f"[{escape}](http://x/{escape})"):
        raw, clean = Window(), Window()
        stream(raw, [text])
        stream(clean, [sanitize(text)])
        assert raw.bytes == clean.bytes
    for cut in range(len(escape) + 1):
        window = Window(40, 5)
        stream(window, [escape[:cut], escape[cut:]])
        rest = OWN_CONTROLS.sub("", window.bytes.decode())
        assert sanitize(rest) == rest


def test_rows_that_have_scrolled_away_are_not_repainted() -> None:
    window = Window(40, 10)
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    for number in range(50):
        clock.now, before = number, len(window.bytes)
        answer.write(f"Paragraph {number}.\n\n")
        frame = window.bytes[before:].decode()
        assert not any(f"Paragraph {old}." in frame for old in range(number - 1))
    answer.close()
    assert window.rows[::2] == [f"Paragraph {number}." for number in range(50)]


def test_only_what_changed_is_drawn_again() -> None:
    window = Window(40, 24)
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    answer.write("first " * 20)
    before = len(window.bytes)
    clock.now = 1
    answer.write("next")
    assert b"next" in window.bytes[before:]
    assert window.bytes[before:].count(b"first") <= 40 // len("first ")
    before = len(window.bytes)
    clock.now = 2
    answer.write("")
    assert len(window.bytes) == before


def test_the_open_end_is_seen_while_it_grows() -> None:
    window = Window(40, 6)
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    answer.write("| a | b |\n|---|---|\n")
    for number in range(20):
        clock.now += 1
        answer.write(f"| row | {number} |\n")
        assert window.visible_rows[min(number + 2, 4)].endswith(str(number))
    answer.close()
    assert len(window.rows) == 22


def test_frames_are_few() -> None:
    window = Window()
    stream(window, ["word "] * 1000, step=0.001)
    assert 10 <= window.bytes.count(b"\x1b[?2026h") <= 20
    assert window.bytes.count(b"\x1b[?2026h") == window.bytes.count(b"\x1b[?2026l")


def test_wrapping_is_on_after_every_frame() -> None:
    window = Window(20, 5)
    stream(window, pieces_of("# Title\n\n" + "日本語 👩\u200d👩\u200d👧 " * 30, [3]))
    for frame in window.bytes.decode().split("\x1b[?2026l")[:-1]:
        assert frame.rindex("\x1b[?7h") > frame.rindex("\x1b[?7l")


def test_an_interrupted_answer_is_marked() -> None:
    window = Window()
    answer = MarkdownStream(window.console())
    answer.write("The **circle")
    window.feed(b"^C")
    answer.close(interrupted=True)
    assert window.rows == ["The **circle", "(interrupted)"]


def test_an_empty_answer_draws_nothing() -> None:
    window = Window()
    stream(window, ["", "\n"])
    assert window.rows == []
    assert window.cursor == (0, 0)


PARAGRAPH = " ".join(f"word{number:03d}" for number in range(200))


def words_of(window: Window) -> list[str]:
    return " ".join(window.rows).split()


@pytest.mark.parametrize("text", [PARAGRAPH, f"Short.\n\n{PARAGRAPH}\n\nEnd.", "- " + PARAGRAPH, "> " + PARAGRAPH])
@pytest.mark.parametrize("widths", [(60,), (100,), (60, 100, 40), (20, 80)])
def test_a_paragraph_is_not_repeated_when_the_width_changes(text: str, widths: tuple[int, ...]) -> None:
    window = Window(80, 24)
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    pending = list(widths)
    for number, piece in enumerate(re.findall(r"\S+\s*", text)):
        answer.write(piece)
        clock.now += 1
        if number % 45 == 44 and pending:
            window.resize(pending.pop(0), 24)
    answer.close()
    shown = [word.strip("•▌") for word in words_of(window)]
    assert [word for word in shown if word] == text.replace("- ", "").replace("> ", "").split()


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 199), COLUMNS), max_size=6), st.integers(1, 9))
def test_no_word_is_shown_twice_or_lost_wherever_the_width_changes(changes: list[tuple[int, int]], step: int) -> None:
    window = Window(80, 24)
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    words = PARAGRAPH.split()
    at = dict(changes)
    for number in range(0, len(words), step):
        answer.write(" ".join(words[number : number + step]) + " ")
        clock.now += 0.1
        for change in range(number, number + step):
            if change in at:
                window.resize(at[change], 24)
    answer.close()
    assert words_of(window) == words


def test_after_a_suspension_the_answer_goes_on_below_what_the_shell_has_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resumed = [0]
    monkeypatch.setattr("dsvl_cli.terminal.markdown.count_resumed", lambda: resumed[0])
    window = Window(80, 24)
    clock = Clock()
    answer = MarkdownStream(window.console(), clock)
    words = PARAGRAPH.split()
    for number, word in enumerate(words):
        answer.write(word + " ")
        clock.now += 1
        if number == 50:
            window.feed(b"^Z\r\n[1]+  Stopped\r\n$ fg\r\n")
            resumed[0] += 1
    answer.close()
    shown = words_of(window)
    assert [word for word in shown if word.startswith("word")] == [*words[:50], "word050^Z", *words[51:]]
    assert [row for row in window.rows if "fg" in row] == ["$ fg"]


def test_what_is_left_keeps_its_style() -> None:
    row = Row("one two three", "one \x1b[1mtwo\x1b[0m three")
    assert row.without(5) == Row("wo three", "\x1b[1mwo\x1b[0m three")
    assert row.without(3) == Row("two three", "\x1b[1mtwo\x1b[0m three")
    assert row.without(7) == Row("three", "\x1b[1m\x1b[0mthree")
