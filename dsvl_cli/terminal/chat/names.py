"""Finds the names of pictures in typed text: paths as terminals and people write them, and addresses.

A name is one of these:

- `@` and a path, with or without quotes: always a file;
- an address of http, https, file or data;
- a word that ends in a picture's extension, whatever punctuation or script surrounds it. Words before it belong to it
  if there is such a file: paths may have spaces;
- a word in quotes, or one with a separator, that is an existing file without such an extension: maybe a picture.
"""

from __future__ import annotations

import functools
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

Find = Callable[[str], str | None]

# A quoted word (shells write an apostrophe within quotes as '\\''), or a run in which a backslash escapes the next
# character.
_QUOTED = r""" "(?P<double>[^"\n]+)" | '(?P<single>[^'\n]+(?:'\\''[^'\n]*)*)' """
_BARE = r"(?:\\.|[^\s\\])+\\?|\\"
WORD = re.compile(rf"(?P<at>@?)(?:{_QUOTED})|(?P<bare>{_BARE})", re.VERBOSE)
_TOKEN = re.compile(_BARE)
_AT = re.compile(rf"(?<![A-Za-z0-9._%+@-])@(?:{_QUOTED}|(?P<bare>{_BARE}))", re.VERBOSE)
_ADDRESS = re.compile(
    r"@?(?<![a-z0-9])(?P<address>(?:https?://|file:///?|data:(?:image/|[^\s,]{0,100};base64,))"
    r"[^\s\"'<>“”«»。，！？；：）】」』、]+)",
    re.IGNORECASE,
)
_ESCAPE = re.compile(r"\\(.)")
_OPENERS = "([{<\"'“‘„«（「『【《"
_SEPARATORS = _OPENERS + ",;:|=，；：、"
_TRAILING = ".,;:!?)]}>\"'”’»…。，！？；：）】」』》、"
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "«": "»", "「": "」", "『": "』", "`": "`"}
_PATH_START = re.compile(r"~?[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]")
_WORDS_IN_NAME = 12  # of a name with spaces that are not escaped

# Files that people take for pictures, or that show some: always an error, as no model sees them.
_NOT_READ = (
    ".svg", ".pdf", ".psd", ".eps", ".xcf", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".jxl",
    ".exr", ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a text.

    Attributes:
        start, end: where it is, with its quotes and `@`.
        source: the path or address.
        is_certain: whether it can mean nothing but a picture, and it is an error if there is none.
    """

    start: int
    end: int
    source: str
    is_certain: bool = True

    @property
    def label(self) -> str:
        """The name without its folders, for use in a sentence; "" if it has none."""
        if self.source[:5].lower() == "data:":
            return ""
        path = urlsplit(self.source).path if _is_web(self.source) else self.source
        return re.split(r"[/\\]" if os.name == "nt" else "/", path)[-1]


def find_names(text: str, find: Find, extensions: frozenset[str]) -> list[Name]:
    """Return the names in a text, in order.

    Args:
        text: one or more lines; no name spans two.
        find: returns the path of the existing file that a path means, or None.
        extensions: lower-case extensions of pictures, with the dot.
    """
    names: list[Name] = []
    start = 0
    for line in text.splitlines(keepends=True):
        end = start + len(line.rstrip())
        names += _Line(text, start, end, find, extensions).names()
        start += len(line)
    return names


class _Line:
    """One line of a text, from `start` to `end`."""

    def __init__(self, text: str, start: int, end: int, find: Find, extensions: frozenset[str]) -> None:
        self._text = text
        self._start = start
        self._end = end
        self._find = find
        self._extensions = extensions
        self._found: list[Name] = []

    def names(self) -> list[Name]:
        """Return the names in order."""
        for search in (self._whole, self._quoted, self._addresses, self._after_at, self._words, self._with_extension):
            # Each takes what those before it have left.
            for name in search():
                if self._is_free(name.start, name.end):
                    self._found.append(name)
        return sorted(self._found, key=lambda name: name.start)

    def _is_free(self, start: int, end: int) -> bool:
        return all(end <= name.start or start >= name.end for name in self._found)

    def _whole(self) -> Iterator[Name]:
        """A path that takes up the line: a file dropped by a terminal that escapes no spaces."""
        line = self._text[self._start : self._end]
        path = line.strip()
        if path and not WORD.fullmatch(path) and (self._has_extension(path) or _is_like_a_path(path)):
            located = self._locate(path)
            if located is not None:
                start = self._start + len(line) - len(line.lstrip())
                yield Name(start, self._end, located, self._has_extension(path))

    def _quoted(self) -> Iterator[Name]:
        for match in WORD.finditer(self._text, self._start, self._end):
            content = unquoted(match)
            if match["bare"] or content is None:
                continue
            is_file_address = content[:7].lower() == "file://"
            located = content if is_file_address else self._locate(content)
            if is_file_address:
                yield Name(*match.span(), _plain_address(content))
            elif located is not None:
                yield Name(*match.span(), located, bool(match["at"]) or self._has_extension(content))
            elif match["at"]:
                yield Name(*match.span(), content)

    def _addresses(self) -> Iterator[Name]:
        for match in _ADDRESS.finditer(self._text, self._start, self._end):
            address = match["address"]
            if extension := re.search(rf"{_any_of(self._extensions)}(?=[^\x00-\x7f])", address, re.IGNORECASE):
                address = address[: extension.end()]
            address = _strip_end(address)
            yield Name(match.start(), match.start("address") + len(address), _plain_address(address))

    def _after_at(self) -> Iterator[Name]:
        for match in _AT.finditer(self._text, self._start, self._end):
            content = unquoted(match)
            if content is not None and not match["bare"]:
                yield Name(*match.span(), self._locate(content) or content)
            elif _strip_end(match["bare"]) and self._is_free(*match.span()):
                yield self._bare_after_at(match.start(), match.start("bare"), match.end("bare"))

    def _bare_after_at(self, at: int, start: int, end: int) -> Name:
        stripped = start + len(_strip_end(self._text[start:end]))
        inner = [found.end() for found in self._extension_ends(start, end)]
        # Spaces that are not escaped: the name may go on up to an extension.
        following = _TOKEN.finditer(self._text, end, self._end)
        limit = max((token.end() for token, _ in zip(following, range(_WORDS_IN_NAME), strict=False)), default=end)
        further = [found.end() for found in self._extension_ends(end, limit)]
        for stop in sorted({end, stripped, *inner, *further}, reverse=True):
            located = self._locate(self._text[start:stop])
            if located is not None:
                return Name(at, stop, located)
        stop = inner[-1] if inner else stripped
        return Name(at, stop, _plain(self._text[start:stop]))

    def _words(self) -> Iterator[Name]:
        """Words with a separator that are files, without a picture's extension."""
        for match in _TOKEN.finditer(self._text, self._start, self._end):
            word = match.group()
            start = match.start() + len(word) - len(word.lstrip(_OPENERS))
            word = self._text[start : match.end()]
            if not _is_like_a_path(word) or self._has_extension(_strip_end(word)):
                continue
            for path in dict.fromkeys((word, _strip_end(word))):
                located = self._locate(path) if path else None
                if located is not None:
                    yield Name(start, start + len(path), located, is_certain=False)
                    break

    def _with_extension(self) -> Iterator[Name]:
        """Words that end in the extension of a picture, with the words before them that belong to the name."""
        tokens = [match.span() for match in _TOKEN.finditer(self._text, self._start, self._end)]
        for extension in reversed([*self._extension_ends(self._start, self._end)]):
            end = extension.end()
            index = bisect_left(tokens, (end, 0)) - 1
            first = tokens[index][0]
            floor = max((name.end for name in self._found if name.end <= extension.start()), default=self._start)
            if not self._is_free(extension.start(), end):
                continue
            name = self._existing(tokens[max(0, index - _WORDS_IN_NAME) : index + 1], floor, end)
            if name is None and self._has_stem(first, extension.start()):
                name = self._missing(tokens[max(0, index - _WORDS_IN_NAME) : index], max(first, floor), floor, end)
            if name is not None:
                yield name

    def _existing(self, tokens: list[tuple[int, int]], floor: int, end: int) -> Name | None:
        """Return the longest name that ends there and is a file."""
        starts: set[int] = set()
        for start, stop in tokens:
            token = self._text[start : min(stop, end)]
            starts |= {start, *(start + match.end() for match in _BOUNDARY.finditer(token))}
        for start in sorted(starts):
            if start < floor or start >= end:
                continue
            located = self._locate(self._text[start:end])
            if located is not None:
                return self._with_quotes(start, end, located)
        return None

    def _missing(self, before: list[tuple[int, int]], first: int, floor: int, end: int) -> Name:
        """Return the name of no file that ends there: its word, or from where a path or a quotation begins."""
        token = self._text[first:end]
        start = first + len(token) - len(token.lstrip(_OPENERS))
        closer = self._text[end : end + 1]
        for earlier, stop in reversed(before):
            word = self._text[earlier:stop]
            if earlier < floor or next(self._extension_ends(earlier, start), None):
                break
            opener = self._text[earlier]
            if closer and _QUOTES.get(opener) == closer:
                start = earlier + 1
                break
            if _PATH_START.match(self._text, earlier) and not os.path.lexists(os.path.expanduser(word)):
                start = earlier
                break
        return self._with_quotes(start, end, _plain(self._text[start:end]))

    def _with_quotes(self, start: int, end: int, source: str) -> Name:
        opener, closer = self._text[max(start - 1, 0) : start], self._text[end : end + 1]
        if start > self._start and closer and _QUOTES.get(opener) == closer:
            return Name(start - 1, end + 1, source)
        return Name(start, end, source)

    def _has_stem(self, first: int, dot: int) -> bool:
        return dot > first and self._text[dot - 1] not in "/\\." + _SEPARATORS

    def _extension_ends(self, start: int, end: int) -> Iterator[re.Match[str]]:
        return _ends(self._text, start, end, _any_of(self._extensions.union(_NOT_READ)))

    def _has_extension(self, path: str) -> bool:
        return os.path.splitext(path)[1].lower() in self._extensions

    def _locate(self, text: str) -> str | None:
        return next((found for path in candidate_paths(text) if (found := self._find(path)) is not None), None)


# Within a word, where a name may begin: after a separator, and between scripts written without spaces.
_BOUNDARY = re.compile(rf"[{re.escape(_SEPARATORS)}]|[^\x00-\x7f](?=[\x00-\x7f])")
_LONGER = re.compile(r"[./\\:@~-][A-Za-z0-9_]|[A-Za-z0-9_]")


@functools.lru_cache(maxsize=8)
def _any_of(extensions: Iterable[str]) -> str:
    return rf"\.(?:{'|'.join(re.escape(extension[1:]) for extension in sorted(extensions, reverse=True))})"


def _ends(text: str, start: int, end: int, pattern: str) -> Iterator[re.Match[str]]:
    """Yield where extensions end that end a name: `photo.png.zip` and `a.png/b` have none there."""
    for match in re.compile(pattern, re.IGNORECASE).finditer(text, start, end):
        if not _LONGER.match(text, match.end(), end):
            yield match


def _is_like_a_path(text: str) -> bool:
    return "/" in text or "\\" in text


def _is_web(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


def _strip_end(text: str) -> str:
    """Remove punctuation that ends a sentence or closes a bracket; not a bracket that was opened within the text."""
    while text and text[-1] in _TRAILING:
        opener = {")": "(", "]": "[", "}": "{"}.get(text[-1])
        if opener and text.count(opener) >= text.count(text[-1]):
            break
        text = text[:-1]
    return text


def candidate_paths(text: str) -> Iterator[str]:
    r"""Yield the paths that a word may mean: as is (a Windows path), or without escapes, `file://` or `@`."""
    word = text.removeprefix("@")
    if word.lower().startswith("file://"):
        yield _path_of_address(word)
        return
    yield os.path.expanduser(word)
    if "\\" in word:
        yield os.path.expanduser(_ESCAPE.sub(r"\1", word))


def unquoted(match: re.Match[str]) -> str | None:
    """Return what is in the quotes of a match of `WORD`, or None for a bare word."""
    if match["bare"]:
        return None
    return match["double"] or match["single"].replace("'\\''", "'")


def _plain(text: str) -> str:
    """Return the path that a missing name most likely means: backslashes before letters are those of Windows."""
    paths = [*candidate_paths(text)]
    return paths[0] if re.search(r"\\[A-Za-z0-9_]", text) else paths[-1]


def _plain_address(address: str) -> str:
    return _path_of_address(address) if address[:7].lower() == "file://" else address


def _path_of_address(address: str) -> str:
    path = unquote(address[len("file://") :].removeprefix("localhost"), errors="surrogateescape")
    # file:///C:/x names C:/x
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path
