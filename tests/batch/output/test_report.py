from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dsvl_cli.batch.output.report import make_thumbnail, write_report
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row
from dsvl_cli.engine.storage.files import NewFile
from dsvl_cli.errors import DsvlError
from tests.pictures import draw_picture

ATTACK = "</p><script>alert(1)</script><img src=x onerror=alert(1)> &amp; \"'"
PROMPTS = {ONLY: "Describe this image."}


def answered(name: str, text: str, suspicion: str | None = None) -> Row:
    return Row(name, name, PROMPTS, {ONLY: Answer(text, "stop", 600, 7, 1.0, suspicion)}, "tiny", 96, 64)


def failed(name: str, message: str) -> Row:
    return Row(name, name, PROMPTS, error=Failure("ImageError", f"{name}: {message}"))


class Page(HTMLParser):
    """What a reader of the page gets: the tags with their attributes, and the text below each."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.cards: list[dict[str, str]] = []
        self.raw: dict[str, str] = {}
        self.feed(path.read_bytes().decode("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "article":
            self.cards.append({"class": dict(attrs)["class"] or ""})
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            self.raw[self.open[-1]] = data
        elif "article" in self.open:
            self.cards[-1][self.open[-1]] = self.cards[-1].get(self.open[-1], "") + data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def written(path: Path, *rows: Row, thumbnail: bytes | None = None) -> Page:
    write_report(path, rows, lambda row: thumbnail, title="out.jsonl", about="today")
    return Page(path)


def test_rows_with_their_outcomes_in_order(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    page = written(
        path,
        answered("in/a.png", "A red circle."),
        failed("in/b.png", "damaged"),
        answered("c.png", "so so so", "repeats itself"),
    )
    assert [card["class"] for card in page.cards] == ["answered", "error", "suspect"]
    assert [card["h2"].strip() for card in page.cards] == ["a.png", "b.png", "c.png"]
    assert page.cards[0]["span"].endswith("in/")
    assert "A red circle." in page.cards[0]["p"]
    assert "96 × 64 · 7 tokens" in page.cards[0]["p"]
    assert page.cards[1]["p"] == "ImageError: damaged"
    assert "suspect: repeats itself" in page.cards[2]["p"]
    text = path.read_text()
    for label in ("all <b>3", "answered <b>1", "suspect <b>1", "errors <b>1"):
        assert label in text
    assert "prompt:</span> Describe this image." in text


def test_several_questions(tmp_path: Path) -> None:
    prompts = {"colour": "Which colour?", "count": "How many?"}
    answers = {"colour": Answer("red", "stop", tokens=1), "count": Answer("3", "stop", tokens=1, suspicion="empty")}
    page = written(tmp_path / "r.html", Row("a", "a", prompts, answers))
    assert (page.cards[0]["dt"], page.cards[0]["dd"]) == ("colourcount", "red3")
    assert "count: empty" in page.cards[0]["p"]
    assert "Which colour?" in (tmp_path / "r.html").read_text()


def test_nothing_foreign_becomes_markup(tmp_path: Path) -> None:
    row = Row(ATTACK, ATTACK, {ONLY: ATTACK}, {ONLY: Answer(ATTACK, "stop")}, ATTACK)
    several = Row(ATTACK, ATTACK, {ATTACK: ATTACK, "b": ""}, {ATTACK: Answer(ATTACK, "stop", suspicion=ATTACK)})
    error = Row(ATTACK, ATTACK, PROMPTS, error=Failure(ATTACK, ATTACK))
    path = tmp_path / "r.html"
    for rows in ((row, several, error), (several, row, error)):
        write_report(path, rows, lambda row: None, title=ATTACK, about=ATTACK)
        page = Page(path)
        assert len(page.named("script")) == 1
        assert page.named("img") == []
        assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
        assert ATTACK in page.cards[0].get("p", "") + page.cards[0].get("dd", "")


def test_the_policy_lets_nothing_else_run_or_be_fetched(tmp_path: Path) -> None:
    page = written(tmp_path / "r.html", answered("a", "b"), thumbnail=make_thumbnail(draw_picture().data))
    policy = next(
        attrs["content"] for attrs in page.named("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    [image] = page.named("img")
    head, _, data = (image["src"] or "").partition(",")
    assert head == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 96)
    for attrs in (attrs for _, attrs in page.tags):
        assert not {"href", "action", "style"} & attrs.keys()


def test_without_its_script_the_page_filters_and_offers_no_search(tmp_path: Path) -> None:
    page = written(tmp_path / "r.html", answered("a", "b"))
    choices = {attrs["id"]: "checked" in attrs for attrs in page.named("input") if attrs["type"] == "radio"}
    assert choices == {"all": True, "answered": False, "suspect": False, "error": False}
    assert {attrs["for"] for attrs in page.named("label") if "for" in attrs} == choices.keys()
    assert [("hidden" in attrs) for attrs in page.named("input") if attrs["type"] == "search"] == [True]
    for kind in ("answered", "suspect", "error"):
        assert f"#{kind}:checked ~ main > :not(.{kind})" in page.raw["style"]


def test_odd_names_and_texts_are_shown(tmp_path: Path) -> None:
    page = written(
        tmp_path / "r.html", answered("two\nlines\t\udcff\x1b.png", "a\x00b\ud800c\n  d"), failed("x", "\udc80")
    )
    assert page.cards[0]["h2"].strip() == "two␊lines␉\\xff␛.png"
    assert "a␀b\ufffdc\n  d" in page.cards[0]["p"]
    assert page.cards[1]["p"] == "ImageError: \\x80"


def test_an_empty_run(tmp_path: Path) -> None:
    assert written(tmp_path / "r.html").cards == []


def test_rows_are_written_as_they_come(tmp_path: Path, chance: random.Random) -> None:
    thumbnail = chance.randbytes(3000)

    def rows() -> Iterator[Row]:
        for n in range(5000):
            yield answered(f"{n}.png", "A red circle on a white ground. " * 10)

    tracemalloc.start()
    write_report(tmp_path / "r.html", rows(), lambda row: thumbnail)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert len(re.findall(rb"<article", (tmp_path / "r.html").read_bytes())) == 5000


def test_it_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("<!doctype html>the one before")

    def fail(row: Row) -> bytes | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(path, [answered("a", "b")], fail)
    assert path.read_text() == "<!doctype html>the one before"
    NewFile(path).close()  # what a killed run leaves
    written(path, answered("a", "b"))
    assert os.listdir(tmp_path) == ["r.html"]
    with pytest.raises(DsvlError, match="cannot be written"):
        write_report(tmp_path / "no" / "r.html", [], lambda row: None)


def test_a_thumbnail_is_small_and_shows_the_picture() -> None:
    data = make_thumbnail(draw_picture(3, (900, 300)).data)
    assert data is not None
    assert Image.open(io.BytesIO(data)).size == (160, 53)
    assert len(data) < 5000
    assert make_thumbnail(b"no picture") is None
