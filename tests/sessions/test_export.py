from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dsvl_cli.engine.conversation import Conversation, Message, Picture
from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions.export import export_session, media_type
from dsvl_cli.sessions.markdown import close_blocks, make_harmless, to_markdown
from dsvl_cli.sessions.page import to_page
from dsvl_cli.sessions.session import SavedSession
from tests.sessions.samples import PNG, answer, picture, question, talk

if TYPE_CHECKING:
    from pathlib import Path

JPEG = picture("b.jpg", b"\xff\xd8\xff jpeg", notes=("animated",))
CAT = picture("cat.png")


def session(*messages: Message, name: str | None = None, system: str | None = None) -> SavedSession:
    at = datetime(2026, 11, 24, 2, 11, tzinfo=UTC)
    return SavedSession("20261124-0211-k3f", name, "tiny", at, at, talk(*messages, system=system))


TALK = session(
    question(CAT, "and ", JPEG, "what <b>differs</b>?"),
    answer("The **second**:\n\n```python\nprint('hi')\n```", token_ids=(1, 2, 3), model="f" * 8),
    question("again ", CAT),
    answer("It is a c", finish_reason="interrupted"),
    name="two cats",
    system="Be kind.",
)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(attribute)) is not None]


def page_of(saved: SavedSession) -> Page:
    return Page(to_page(saved, lambda picture: picture.name, "data:"))


def read_json(path: Path) -> tuple[dict[str, Any], Conversation]:
    """Read an exported conversation back, as any other program could."""
    document = json.loads(path.read_bytes())

    def part(value: dict[str, Any]) -> str | Picture:
        if value["type"] == "text":
            return str(value["text"])
        data = (
            base64.b64decode(value["data"]) if "data" in value else (path.parent / unquote(value["file"])).read_bytes()
        )
        return Picture(value["name"], data, value["sha256"], value["width"], value["height"], tuple(value["notes"]))

    messages = [
        Message(
            each["role"],
            tuple(map(part, each["parts"])),
            None if each["token_ids"] is None else tuple(each["token_ids"]),
            each["model"],
            each["finish_reason"],
        )
        for each in document["messages"]
    ]
    return document, Conversation(messages, document["system"])


@pytest.mark.parametrize("embed", [True, False])
def test_json_keeps_everything(tmp_path: Path, embed: bool) -> None:
    path = tmp_path / "ä b.json"
    odd = session(*TALK.conversation.messages, question("总 \udcff \x1b", picture("\udce9.png", b"?")))
    export_session(odd, path, embed=embed)
    document, conversation = read_json(path)
    assert conversation == odd.conversation
    assert [each.data for each in conversation.pictures] == [each.data for each in odd.conversation.pictures]
    assert (document["schema"], document["id"], document["model"]) == ("dsvl.session/1", odd.id, "tiny")
    assert datetime.fromisoformat(document["created"]) == odd.created
    assert "总".encode() in path.read_bytes()


def test_pictures_beside_are_written_once_under_safe_names(tmp_path: Path) -> None:
    evil = picture("../../x; rm", PNG + b"evil")
    export_session(session(question(CAT, evil, CAT, JPEG)), tmp_path / "talk.md", embed=False)
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {"talk.md"} | {f"talk_pictures/{name}" for name in ("1.png", "2.png", "4.jpg")}
    assert (tmp_path / "talk_pictures" / "2.png").read_bytes() == evil.data


def test_without_pictures_there_is_no_folder(tmp_path: Path) -> None:
    export_session(session(question("hi")), tmp_path / "talk.html", embed=False)
    assert [file.name for file in tmp_path.iterdir()] == ["talk.html"]


def test_addresses_beside_lead_to_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a b#?%&.html"
    export_session(TALK, path, embed=False)
    addresses = Page(path.read_text(encoding="utf-8")).values("src")
    assert [(tmp_path / unquote(each)).read_bytes() for each in addresses] == [CAT.data, JPEG.data, CAT.data]
    export_session(TALK, path.with_suffix(".md"), embed=False, overwrite=True)
    rendered = MarkdownIt("commonmark").render(path.with_suffix(".md").read_text(encoding="utf-8"))
    addresses = Page(rendered).values("src")
    assert [(tmp_path / unquote(each)).read_bytes() for each in addresses] == [CAT.data, JPEG.data, CAT.data]


@pytest.mark.parametrize("name", ["talk", "talk.pdf", "talk.md.zip"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DsvlError) as caught:
        export_session(TALK, tmp_path / name)
    assert caught.value.hint == "use a name ending in .md, .html or .json"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["talk.md", "talk.HTML", "talk.json"])
def test_what_is_there_is_only_replaced_on_demand(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"mine")
    with pytest.raises(DsvlError, match="already exists"):
        export_session(TALK, path)
    assert path.read_bytes() == b"mine"
    export_session(TALK, path, overwrite=True)
    assert b"Be kind." in path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_pictures_that_is_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "talk_pictures").mkdir()
    with pytest.raises(DsvlError, match="talk_pictures already exists"):
        export_session(TALK, tmp_path / "talk.md", embed=False)
    export_session(TALK, tmp_path / "talk.md", embed=True)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DsvlError, match="cannot be written"):
        export_session(TALK, tmp_path / "nowhere" / "talk.md")


def test_markdown_reads_as_it_was_said(tmp_path: Path) -> None:
    export_session(TALK, tmp_path / "talk.md")
    text = (tmp_path / "talk.md").read_text(encoding="utf-8")
    assert "\n\nThe **second**:\n\n```python\nprint('hi')\n```\n\n" in text
    assert r"what \<b>differs\</b>?" in text
    assert re.findall(r"^#+ .*", text, re.MULTILINE) == [
        "# two cats",
        "## System",
        "## You",
        "## Model",
        "## You",
        "## Model",
    ]
    assert text.endswith("It is a c\n\n*(interrupted)*\n")
    assert f"![cat.png](data:image/png;base64,{base64.b64encode(CAT.data).decode()})" in text


def test_a_conversation_that_is_not_kept_is_exported_too() -> None:
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    for said, heading in ((talk(question("why?")), "why?"), (talk(), "Conversation")):
        document = to_markdown(SavedSession("", None, "tiny", at, at, said), lambda picture: picture.name)
        assert document.startswith(f"# {heading}\n\ntiny, 2026-11-2")


def test_markdown_names_are_no_markup(tmp_path: Path) -> None:
    name = "a](http://x)[b\n\n# c`<img src=x>*_&amp;\\.png"
    export_session(session(question(picture(name))), tmp_path / "talk.md")
    page = Page(MarkdownIt("commonmark").render((tmp_path / "talk.md").read_text(encoding="utf-8")))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == [" ".join(name.split())]
    assert all(image["src"] and image["src"].startswith("data:image/png;") for image in images)


pieces = [
    "```",
    "````",
    "~~~",
    "```py",
    "  ```",
    "    ```",
    "- ```",
    "> ~~~",
    "``` `",
    "<!--",
    "-->",
    "<pre>",
    "<?",
    "a",
    "",
]


@given(st.lists(st.lists(st.sampled_from(pieces), max_size=6).map("\n".join), min_size=1, max_size=3))
def test_no_text_swallows_the_next_turn(texts: list[str]) -> None:
    document = to_markdown(session(*map(question, texts), name="n"), lambda picture: picture.name)
    tokens = MarkdownIt("commonmark").parse(document)
    headings = [tokens[n + 1].content for n, token in enumerate(tokens) if token.tag == "h2" and token.nesting == 1]
    assert headings == ["You"] * len(texts)
    assert all(close_blocks(text).startswith(text.strip("\n")) for text in texts)


markup = st.sampled_from(
    ["<img src=http://h/a.png>", "<b>", "</b>", "<!-- a", "-->", "<script>", "![a](http://h/a.png)", "![a][b]", "\\",
     "`", "``", "```", "    ", "\n", "\n\n", "[b]: http://h/a.png", "a", "- ", "> ", "<?", "<!A", "<https://h/>",
     "!", "["]
)  # fmt: skip


@pytest.mark.fault("markup in an export")
@given(st.lists(markup, max_size=12).map("".join))
@settings(max_examples=150)
def test_no_text_brings_pictures_or_tags_into_markdown(text: str) -> None:
    document = to_markdown(session(question(text), name="n"), lambda picture: picture.name)
    tokens = [each for token in MarkdownIt("commonmark").parse(document) for each in (token, *(token.children or ()))]
    assert not [token for token in tokens if token.type in ("image", "html_block", "html_inline")]
    assert make_harmless(make_harmless(text)) == make_harmless(text)


@pytest.mark.parametrize(
    "text",
    ["a < b, x<3", "`<b>` and ``a ` <i>``", "```html\n<img src=x>\n```", "    <b>", "<https://example.org/a?b=1>",
     "a \\<b>", "wow! [a](b)", "- list\n\n  ```\n  ![a](b)\n  ```"],
)  # fmt: skip
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert make_harmless(text) == text


def test_page_shows_everything_and_allows_nothing(tmp_path: Path) -> None:
    export_session(TALK, tmp_path / "talk.html")
    page = Page((tmp_path / "talk.html").read_text(encoding="utf-8"))
    assert page.values("class") == [
        "system",
        "plain",
        "user",
        "plain",
        "plain",
        "assistant",
        "language-python",
        "user",
        "plain",
        "assistant",
        "ending",
    ]
    for shown in ("two cats", "Be kind.", "what <b>differs</b>?", "print('hi')", "(interrupted)", "b.jpg", "tiny"):
        assert shown in page.text
    assert [tag for tag, _ in page.tags if tag in ("strong", "pre", "b", "script")] == ["strong", "pre"]
    assert {address.partition(",")[0] for address in page.values("src")} == {
        "data:image/png;base64",
        "data:image/jpeg;base64",
    }
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes) or ""
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "foreign",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onload='x",
        "[x](javascript:alert(1))",
        "![x](https://example.com/seen.png)",
        '<https://example.com/"onclick=x>',
        "</style><svg onload=x>",
        "`</code></pre><iframe>`",
    ],
)
def test_nothing_foreign_becomes_markup(foreign: str) -> None:
    saved = session(question(foreign, picture(foreign)), answer(foreign), name=foreign, system=foreign)
    page = page_of(saved)
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "h1", "p", "main", "section", "h2", "figure"}
    assert {tag for tag, _ in page.tags} - allowed <= {"img", "figcaption", "a", "code"}
    assert [value for tag, attributes in page.tags for value in attributes if value.startswith("on")] == []
    assert all(not value.startswith("javascript:") for value in page.values("href"))
    assert page.values("src") == page.values("alt") == [foreign]
    assert page.text.count(foreign) >= 4


def test_lone_surrogates_do_not_stop_an_export(tmp_path: Path) -> None:
    odd = session(question("a\udcffb", picture("\udcff")), answer("\ud800"))
    for suffix in ("md", "html"):
        export_session(odd, tmp_path / f"talk.{suffix}", embed=True)
        assert "a?b" in (tmp_path / f"talk.{suffix}").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\n\0\0\0WEBPVP8 ", "image/webp"),
        (b"BM\0\0", "image/bmp"),
        (b"II*\0", "image/tiff"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
        (b"\0\0\0\x1cftypheic", "image/heic"),
        (b"", "application/octet-stream"),
        (b"<svg>", "application/octet-stream"),
    ],
)
def test_media_type(data: bytes, kind: str) -> None:
    assert media_type(picture(data=data)) == kind


def test_pictures_keep_their_numbers_where_others_were_dropped(tmp_path: Path) -> None:
    conversation = talk(question(CAT, JPEG))
    conversation.dropped = {1, 3}
    saved = replace(session(), conversation=conversation)
    export_session(saved, tmp_path / "talk.json", embed=False)
    parts = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["messages"][0]["parts"]
    assert [(part["number"], part["file"].rpartition("/")[2]) for part in parts] == [(2, "2.png"), (4, "4.jpg")]
