"""Markdown as models write it, and as they should not."""

from __future__ import annotations

from hypothesis import strategies as st

_LONG = "abcdefghijklmnopqrstuvwxyz" * 3
_ADDRESS = "https://example.com/a/very/long/address?that=1&never=ends"
_WORDS = st.sampled_from(
    f"the a red circle **strong** *soft* `code` _em_ ~~gone~~ [link](http://a.b/c) <{_ADDRESS}> {_ADDRESS} <b> &lt; "
    f"2*3 snake_case *open `tick [br ** __ | 日本語 {'长' * 22} ünï {_LONG} \\* ![alt](pic.png) [x]:y".split()
)


def _words(most: int) -> st.SearchStrategy[str]:
    return st.lists(_WORDS, min_size=1, max_size=most).map(" ".join)


def _lines(line: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.lists(line, min_size=1, max_size=most).map("\n".join)


@st.composite
def _tables(draw: st.DrawFn) -> str:
    columns = draw(st.integers(1, 5))
    cells = st.lists(_words(3), min_size=columns, max_size=columns).map("|".join).map("|{}|".format)
    rows = draw(st.lists(cells, min_size=1, max_size=8))
    return "\n".join([rows[0], "|" + "---|" * columns, *rows[1:]])


_SIMPLE = st.one_of(
    _words(50),
    _lines(_words(6), 4),
    st.builds("{} {}".format, st.sampled_from(["#", "##", "######"]), _words(6)),
    st.builds("```{}\n{}\n```".format, st.sampled_from(["", "python", "no such language"]), _lines(_words(9), 12)),
    _lines(st.builds("{} {}".format, st.sampled_from(["-", "*", "  -", "    +"]), _words(12)), 12),
    st.lists(_words(12), max_size=14).map(lambda items: "\n".join(f"{n}. {item}" for n, item in enumerate(items, 1))),
    st.sampled_from(["---", "***", "text\n---", "text\n===", "", "\t", "    indented code", "```", "-", "1.", ">"]),
)
BLOCKS = st.one_of(
    _SIMPLE,
    _tables(),
    st.one_of(_SIMPLE, _tables()).map(lambda text: "> " + text.replace("\n", "\n> ")),
    _SIMPLE.map(lambda text: "- " + text.replace("\n", "\n  ")),
)
DOCUMENTS = st.lists(st.tuples(BLOCKS, st.sampled_from(["\n", "\n\n", "\n\n\n", "\r\n\r\n"])), max_size=5).map(
    lambda pieces: "".join(block + end for block, end in pieces)
)
