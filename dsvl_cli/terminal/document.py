"""Markdown for a terminal: text -> blocks -> rows, laid out so that earlier rows stay the same as the text grows.

CommonMark with tables and strikethrough, but without constructs that make text disappear or change later:

    raw HTML, link definitions, images    remain readable text (an image as `!` and a link)
    underlined headings                   a paragraph never turns into one when a list starts below it
    single line breaks                    are kept: a model that reads a sign uses them on purpose

Links show their URL, which a terminal hyperlink would hide. A block that cannot be laid out without losing text (a
table wider than the window, lists nested too deeply, a row with too many cells) is shown as source text. So is one of
marks alone: the answer `42.` is an empty list to Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich import box
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.markdown import (
    CodeBlock,
    Heading,
    HorizontalRule,
    ListElement,
    Markdown,
    MarkdownElement,
    TableElement,
)
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from dsvl_cli.terminal.sanitize import sanitize, sanitize_line

_PARSER = (
    MarkdownIt("commonmark")
    .enable(["table", "strikethrough"])
    .disable(["reference", "image", "html_block", "html_inline", "lheading"])
)
# markdown-it drops anything nested more deeply.
_MAX_LEVEL = 18
_INDENT = {"bullet_list_open": 3, "ordered_list_open": 5, "blockquote_open": 4}
_MIN_TEXT_COLUMNS = 10
_MIN_CELL_COLUMNS = 7
# A literal mark that further text may turn into emphasis, code or a link.
_OPEN_MARK = re.compile(r"\*(?!\s)|(?<!\w)_|~~|`|\[|<\S*\Z")
# What may precede the first cell of a table row, including the border.
_CONTAINER_MARKS = re.compile(r"^[\s>*+-]*(\d+[.)]\s)?\s*\|?")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_CONTROL = re.compile(r"(\x1b\[[0-9;]*m)")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the screen: plain text, and the same with control sequences for its style."""

    text: str
    styled: str

    def without(self, characters: int) -> Row:
        """Return what follows the first characters and the spaces after them, in the same style."""
        rest = self.text[characters:]
        left = characters + len(rest) - len(rest.lstrip())
        pieces = []
        for piece in _CONTROL.split(self.styled):
            if _CONTROL.fullmatch(piece):
                pieces.append(piece)
            else:
                pieces.append(piece[left:])
                left = max(left - len(piece), 0)
        return Row(rest.lstrip(), "".join(pieces))


@dataclass(frozen=True, slots=True)
class Block:
    """A top-level block.

    Attributes:
        tokens: from markdown-it, prepared for `RowRenderer`.
        source: its lines in the Markdown text.
        start: the index of the first of these lines.
    """

    tokens: tuple[Token, ...]
    source: str
    start: int


def parse_blocks(text: str) -> list[Block]:
    """Parse sanitized Markdown into top-level blocks, whose sources together are the text."""
    groups: list[list[Token]] = []
    for token in _PARSER.parse(text):
        if token.level == 0 and token.nesting >= 0:
            groups.append([])
        groups[-1].append(token)
    lines = text.split("\n")
    starts = [group[0].map[0] if group[0].map else 0 for group in groups]
    ends = [*starts, len(lines)][1:]
    return [
        Block(tuple(map(_prepare, group)), "\n".join(lines[start:end]), start)
        for group, start, end in zip(groups, starts, ends, strict=True)
    ]


class RowRenderer:
    """Lays out blocks in rows.

    Args:
        console: determines the colours.
        width: in columns.
    """

    def __init__(self, console: RichConsole, width: int) -> None:
        self.width = width
        self._console = console

    def rows(self, block: Block) -> list[Row]:
        """Lay out a block, without blank rows before or after it."""
        if _fits(block, self.width):
            return self._rows(_Document(block.tokens))
        return self._rows(Text(block.source.strip("\n"), overflow="fold"))

    def settled_rows(self, block: Block) -> list[Row]:
        """Return the first rows of an unfinished block, those of `rows(block)` that further text cannot change."""
        if not _fits(block, self.width):
            return []
        # The last one may still gain words.
        settled = self._rows(_Document(_settled_tokens(block.tokens)))[:-1]
        pairs = zip(settled, self.rows(block), strict=False)
        return [row for row, _ in takewhile(lambda pair: pair[0].text == pair[1].text, pairs)]

    def _rows(self, content: RenderableType) -> list[Row]:
        options = self._console.options.update(width=self.width, height=None)
        rows = [self._row(line) for line in self._console.render_lines(content, options, pad=False)]
        while rows and not rows[-1].text:
            rows.pop()
        while rows and not rows[0].text:
            rows.pop(0)
        return rows

    def _row(self, line: list[Segment]) -> Row:
        text = "".join(segment.text for segment in line).rstrip()
        kept: list[Segment] = []
        length = 0
        for segment in line:
            kept.append(Segment(segment.text[: len(text) - length], segment.style))
            length += len(segment.text)
            if length >= len(text):
                break
        with self._console.capture() as capture:
            self._console.print(Segments(kept), end="", crop=False)
        return Row(text, capture.get())


def _last_index(tokens: Sequence[Token], holds: Callable[[Token], bool]) -> int:
    return max((index for index, token in enumerate(tokens) if holds(token)), default=-1)


def _prepare(token: Token) -> Token:
    if token.type != "inline":
        return token
    return token.copy(children=list(_prepare_inline(token.children or ())))


def _prepare_inline(children: Iterable[Token]) -> Iterator[Token]:
    """Sanitize decoded entities, keep line breaks, and put URLs after the texts of links."""
    href = title = shown = ""
    for token in children:
        if token.type == "link_open":
            href, title, shown = str(token.attrs["href"]), str(token.attrs.get("title", "")), ""
            yield Token("style_open", "link", 1)
        elif token.type == "link_close":
            yield Token("style_close", "link", -1)
            yield from _address(href, title, shown)
        elif token.type == "softbreak":
            yield token.copy(type="hardbreak")
        else:
            shown += token.content
            yield token.copy(content=sanitize(token.content)) if token.type == "text" else token


def _address(href: str, title: str, shown: str) -> Iterator[Token]:
    is_shown = shown in (href, _PARSER.normalizeLinkText(href), href.removeprefix("mailto:"))
    if is_shown and not title:
        return
    yield Token("text", "", 0, content=" (")
    yield Token("style_open", "link_url", 1)
    yield Token("text", "", 0, content=sanitize_line(href))
    yield Token("style_close", "link_url", -1)
    yield Token("text", "", 0, content=sanitize_line(f' "{title}")' if title else ")"))


def _settled_tokens(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """Return the part of an unfinished block whose rows, except the last, cannot change, with its containers closed.

    From the last paragraph that is the text before the first mark that may still open something; from a table it is
    nothing, since every row can change the column widths.
    """
    leaf = _last_index(tokens, lambda token: token.nesting == 0)
    if leaf < 0:
        return ()
    table_end = _last_index(tokens, lambda token: token.type == "table_close")
    if table_end > leaf:
        table = _last_index(tokens, lambda token: token.type == "table_open")
        return (*tokens[:table], *tokens[table_end + 1 :])
    if tokens[leaf].type != "inline":
        return tuple(tokens)
    children = _before_open_mark(_before_table_head(tokens[leaf].children or ()))
    return (*tokens[:leaf], tokens[leaf].copy(children=children), *tokens[leaf + 1 :])


def _before_table_head(children: Sequence[Token]) -> Sequence[Token]:
    """Leave out the last lines if they may turn out to be a table's head and delimiter row."""
    starts = [0, *(index + 1 for index, token in enumerate(children) if token.type == "hardbreak")]
    for start in starts[-2:]:
        if any("|" in token.content for token in children[start:]):
            return children[:start]
    return children


def _before_open_mark(children: Iterable[Token]) -> list[Token]:
    """Leave out everything from a mark that may still open something, and any style around it.

    Code and links take precedence over emphasis: `*a [b*` may become `*a [b*](c)`, without any emphasis.
    """
    kept: list[Token] = []
    opened: list[int] = []
    for token in children:
        mark = _OPEN_MARK.search(token.content) if token.type == "text" else None
        if mark:
            if opened:
                return kept[: opened[0]]
            return [*kept, token.copy(content=token.content[: mark.start()])]
        if token.nesting == 1:
            opened.append(len(kept))
        elif token.nesting == -1:
            opened.pop()
        kept.append(token)
    closing = [Token(kept[index].type.replace("_open", "_close"), kept[index].tag, -1) for index in reversed(opened)]
    return kept + closing


def _fits(block: Block, width: int) -> bool:
    """Whether a block can be laid out without losing text."""
    if not any(token.content or token.type in ("hr", "fence") for token in block.tokens if token.nesting == 0):
        return False  # marks alone
    lines = block.source.split("\n")
    columns = 0
    room = [width]
    for token in block.tokens:
        if token.type in _INDENT:
            room.append(room[-1] - _INDENT[token.type])
        elif token.type in ("bullet_list_close", "ordered_list_close", "blockquote_close"):
            room.pop()
        elif token.type == "table_open":
            columns = 0
        elif token.type == "th_open":
            columns += 1
        elif token.type == "tr_close" and columns * _MIN_CELL_COLUMNS > room[-1]:
            return False
        elif token.type == "tr_open" and token.map and columns:
            # The table extension drops cells to the right of the last heading.
            row = _CONTAINER_MARKS.sub("", lines[token.map[0] - block.start]).rstrip().removesuffix("|")
            if len(_CELL_BORDER.split(row)) > columns:
                return False
        if token.level > _MAX_LEVEL or room[-1] < min(_MIN_TEXT_COLUMNS, width):
            return False
    return True


class _Code(CodeBlock):
    """Code in the terminal's colours, not indented, for easy copying."""

    def __init__(self, info: str) -> None:
        super().__init__(info.partition(" ")[0] or "text", "ansi_dark")
        self._info = info

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> _Code:  # noqa: ARG003
        return cls(token.info.strip())

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        if " " in self._info:
            # More than a language name: ordinary text after a fence.
            yield Text(sanitize_line(self._info), style="dim", overflow="fold")
        code = str(self.text).rstrip()
        if not code:
            return
        highlighted = Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True).highlight(code)
        highlighted.rstrip()  # lexers add a newline at the end
        yield highlighted


class _Heading(Heading):
    """A left-aligned heading, whose rows do not move as it grows."""

    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = {}


class _List(ListElement):
    """A list whose numbers are indented individually, so the tenth item does not move the first."""

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        if self.list_type == "bullet_list_open":
            yield from super().__rich_console__(console, options)
            return
        for number, item in enumerate(self.items, 1 if self.list_start is None else self.list_start):
            if list(item.elements.__iter__()):  # rich declares its result as an Iterable, so `for` has no type
                yield from item.render_number(console, options, number, number)
            else:
                yield Text(f" {number}", style="markdown.item.number")  # rich leaves out what has no text


class _Rule(HorizontalRule):
    """A line across the window."""

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        yield Rule(style="markdown.hr")


class _Table(TableElement):
    """A table whose cells wrap long words instead of truncating them."""

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, style="markdown.table.border")
        header = self.header.row.cells if self.header and self.header.row else []
        for cell in header:
            heading = cell.content.copy()
            heading.stylize("markdown.table.header")
            table.add_column(heading, overflow="fold", justify=cell.justify)
        for row in self.body.rows if self.body else []:
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class _Document(Markdown):
    """Tokens from `parse_blocks`, rendered by rich."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "heading_open": _Heading,
        "bullet_list_open": _List,
        "ordered_list_open": _List,
        "hr": _Rule,
        "table_open": _Table,
    }

    def __init__(self, tokens: Sequence[Token]) -> None:
        super().__init__("", hyperlinks=False)
        self.inlines = {*Markdown.inlines, "link", "link_url"}
        self.parsed = list(tokens)
