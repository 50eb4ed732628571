"""Rows as one HTML page that needs no other file and fetches nothing. No torch here.

The filters by outcome are plain HTML and CSS; only the search for words needs the page's own script. The page is made
for ten thousand rows: browsers lay out those cards only that are near the window.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import BinaryIO

from dsvl_cli.batch.output.disk import explained, new_file
from dsvl_cli.batch.row import ONLY, Row, Status
from dsvl_cli.engine.pictures.images import decode, picture_from_bytes
from dsvl_cli.errors import ImageError

THUMBNAIL_PIXELS = 160
_QUALITY = 60
_CHUNK_BYTES = 2**20
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NAMES: dict[Status, str] = {"answered": "answered", "suspect": "suspect", "error": "errors"}

_STYLE = """
:root {
  color-scheme: light dark; --ground: #fff; --ink: #16181c; --card: #f6f7f9; --line: #d8dce2; --soft: #5a6270;
  --suspect: #8a5a00; --error: #b3261e;
}
@media (prefers-color-scheme: dark) { :root {
  --ground: #16181c; --ink: #eceef2; --card: #1f2228; --line: #363b45; --soft: #a0a8b5;
  --suspect: #f0b849; --error: #ff8a80;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 100rem; padding: 1.5rem 1.25rem 3rem; background: var(--ground); color: var(--ink);
  font: .95rem/1.5 system-ui, sans-serif;
}
h1 { font-size: 1.35rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
.about { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.asked { white-space: pre-wrap; margin: .3rem 0 0; overflow-wrap: anywhere; }
.asked span, dt { color: var(--soft); }
.filters {
  display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; position: sticky; top: 0; z-index: 1;
  margin: .8rem 0; padding: .6rem 0; background: var(--ground); border-bottom: 1px solid var(--line);
}
.choice { position: absolute; opacity: 0; pointer-events: none; }
.filters label { border: 1px solid var(--line); border-radius: 2rem; padding: .2rem .8rem; cursor: pointer; }
.filters label b { font-weight: 600; font-variant-numeric: tabular-nums; }
#all:checked ~ .filters [for=all], #answered:checked ~ .filters [for=answered],
#suspect:checked ~ .filters [for=suspect], #error:checked ~ .filters [for=error] {
  background: var(--ink); color: var(--ground);
}
.choice:focus-visible ~ .filters { outline: 2px solid Highlight; }
.filters input {
  flex: 1 1 14rem; max-width: 28rem; font: inherit; padding: .25rem .8rem; border: 1px solid var(--line);
  border-radius: 2rem; background: var(--card); color: inherit;
}
#answered:checked ~ main > :not(.answered), #suspect:checked ~ main > :not(.suspect),
#error:checked ~ main > :not(.error), main > [hidden] { display: none; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: .75rem; }
article {
  display: flex; gap: .9rem; background: var(--card); border: 1px solid var(--line); border-left-width: 4px;
  border-radius: .5rem; padding: .7rem; content-visibility: auto; contain-intrinsic-size: auto 11.4rem;
}
article > img, .none { flex: none; width: 10rem; height: 10rem; object-fit: contain; object-position: top; }
.none { display: grid; place-items: center; border: 1px dashed var(--line); color: var(--soft); font-size: .8rem; }
article > div { flex: 1; min-width: 0; overflow-wrap: anywhere; }
h2 { font: 600 .82rem/1.4 ui-monospace, monospace; margin: 0 0 .3rem; }
h2 span { font-weight: 400; color: var(--soft); }
.text { white-space: pre-wrap; margin: 0; unicode-bidi: isolate; }
dl, dd { margin: 0; } dt { font-size: .82rem; margin-top: .3rem; }
.why { font-weight: 600; margin: 0 0 .3rem; }
.suspect { border-left-color: var(--suspect); } .suspect .why { color: var(--suspect); }
.error { border-left-color: var(--error); } .error .why { color: var(--error); }
.facts { font-size: .78rem; color: var(--soft); margin: .4rem 0 0; }
@media (max-width: 30rem) { article > img, .none { width: 6rem; height: 6rem; } }
@media print {
  .filters { display: none; } main { display: block; }
  article { break-inside: avoid; content-visibility: visible; margin-bottom: .5rem; }
  article > img, .none { width: 6rem; height: 6rem; }
}
"""

_SCRIPT = """
const box = document.getElementById("search"), found = document.getElementById("found");
const cards = Array.from(document.querySelectorAll("main > article"));
let texts = null, timer = 0;
function search() {
  texts ??= cards.map(card => card.textContent.toLowerCase());
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  cards.forEach((card, n) => {
    card.hidden = !words.every(word => texts[n].includes(word));
    count += !card.hidden;
  });
  found.textContent = words.length ? `${count.toLocaleString("en")} with these words` : "";
}
box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 120); });
box.hidden = false;
"""


def write_report(
    path: Path,
    rows: Iterable[Row],
    thumbnail_of: Callable[[Row], bytes | None],
    *,
    title: str = "dsvl batch",
    about: str = "",
) -> None:
    """Write the page; a report that stands there already is replaced when the new one is whole.

    Args:
        path: of the page.
        rows: in the order in which they are shown; each is let go of when it is written.
        thumbnail_of: gives a row's small picture, such as `make_thumbnail` makes it, or None where there is none.
        title: stands at the top.
        about: stands below it: when, where, with which settings.

    Raises:
        DsvlError: it cannot be written.
    """
    # How many there are of each kind is only known at the end, but stands at the top.
    with explained(path), tempfile.TemporaryFile(dir=path.parent) as cards, new_file(path) as page:
        counts, first = _write_cards(cards, rows, thumbnail_of)
        page.write(_encode(_head(title, about, counts, first)))
        cards.seek(0)
        shutil.copyfileobj(cards, page, _CHUNK_BYTES)
        page.write(_encode(_foot()))


def make_thumbnail(data: bytes) -> bytes | None:
    """Make a WebP of at most 160 x 160 pixels from an encoded picture; None where it cannot be decoded."""
    try:
        image = decode(picture_from_bytes(data, "")).copy()
    except ImageError:
        return None
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _write_cards(
    file: BinaryIO, rows: Iterable[Row], thumbnail_of: Callable[[Row], bytes | None]
) -> tuple[Counter[Status], Row | None]:
    """Write the rows; returns how many there are of each kind, and the first."""
    counts: Counter[Status] = Counter()
    first = None
    for row in rows:
        first = first or row
        counts[row.status] += 1
        file.write(_encode(_card(row, thumbnail_of(row), first)))
    return counts, first


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _shown(text: str) -> str:
    """Escape what is foreign; what no page may hold is made visible."""
    return escape(_UNSEEN.sub(_visible, text))


def _shown_name(name: str) -> str:
    """Escape a name, in which line feeds and tabs are no space."""
    return _shown(name.replace("\n", "\u240a").replace("\t", "\u2409"))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def _head(title: str, about: str, counts: Counter[Status], first: Row | None) -> str:
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT))
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )
    asked = "".join(_asked(name, prompt) for name, prompt in first.prompts.items()) if first else ""
    model = f"model {first.model}" if first and first.model else ""
    facts = " · ".join(filter(None, (model, about)))
    choices = [("all", "all", counts.total()), *((kind, name, counts[kind]) for kind, name in _NAMES.items())]
    checked = {"all": " checked"}
    inputs = "".join(
        f'<input class="choice" type="radio" name="shown" id="{kind}"{checked.get(kind, "")}>\n'
        for kind, _, _ in choices
    )
    labels = "".join(f'<label for="{kind}">{name} <b>{count:,}</b></label>\n' for kind, name, count in choices)
    return f"""<!doctype html>
<html lang="">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_shown(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1 dir="auto">{_shown(title)}</h1>
<p class="about">{_shown(facts)}</p>
{asked}</header>
{inputs}<div class="filters">
{labels}<input id="search" type="search" placeholder="search names and answers" aria-label="search" hidden>
<span id="found" class="about" role="status"></span>
</div>
<main>
"""


def _foot() -> str:
    return f"</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _asked(name: str, prompt: str) -> str:
    label = "prompt" if name == ONLY else name
    return f'<p class="asked" dir="auto"><span>{_shown(label)}:</span> {_shown(prompt)}</p>\n'


def _card(row: Row, thumbnail: bytes | None, first: Row) -> str:
    if thumbnail:
        address = f"data:image/webp;base64,{base64.b64encode(thumbnail).decode()}"
        picture = f'<img src="{address}" alt="" loading="lazy" decoding="async">'
    else:
        picture = '<span class="none">no picture</span>'
    return f'<article class="{row.status}">\n{picture}\n<div>\n{"".join(_content(row, first))}</div>\n</article>\n'


def _content(row: Row, first: Row) -> Iterator[str]:
    folder, slash, name = row.path.rpartition("/")
    yield f'<h2 dir="auto"><span>{_shown_name(folder + slash)}</span>{_shown_name(name)}</h2>\n'
    if row.error:
        message = row.error.message.removeprefix(f"{row.path}: ")
        yield f'<p class="why" dir="auto">{_shown(row.error.type)}: {_shown(message)}</p>\n'
    elif row.suspicion:
        yield f'<p class="why">suspect: {_shown(row.suspicion)}</p>\n'
    if row.is_flat:
        if row.prompts != first.prompts:
            yield from (_asked(name, prompt) for name, prompt in row.prompts.items())
        for answer in row.answers.values():
            yield f'<p class="text" dir="auto">{_shown(answer.text)}</p>\n'
    else:
        yield "<dl>\n"
        for name, answer in row.answers.items():
            yield f'<dt>{_shown(name)}</dt><dd class="text" dir="auto">{_shown(answer.text)}</dd>\n'
        yield "</dl>\n"
    size = f"{row.width} × {row.height}" if row.width else ""
    tokens = sum(answer.tokens or 0 for answer in row.answers.values())
    facts = " · ".join(filter(None, (size, f"{tokens:,} tokens" if tokens else "")))
    if facts:
        yield f'<p class="facts">{facts}</p>\n'
