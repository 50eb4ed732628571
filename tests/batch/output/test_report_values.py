"""What a report shows of values and probabilities, and what it offers to sort and filter by."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.batch.output.report import write_report
from dsvl_cli.batch.output.report_values import Columns, show_value
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row
from dsvl_cli.engine.samples import Sample
from tests.batch.output.test_report import ATTACK, Page

PROMPTS = {ONLY: "What?"}


def choice(**chances: float) -> Answer:
    return Answer(max(chances, key=lambda name: chances[name]), "stop", tokens=1, probabilities=chances)


def under_schema(value: Any) -> Answer:
    return Answer(json.dumps(value), "stop", tokens=9, value=value)


def flat(name: str, answer: Answer) -> Row:
    return Row(name, name, PROMPTS, {ONLY: answer}, "tiny", 96, 64)


class Tools(HTMLParser):
    """The menus of a page: their options, and the keys of the rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.labels: list[str] = []
        self.menus: list[tuple[str, list[tuple[str, str, bool]]]] = []
        self.keys: list[list[Any]] = []
        self.columns: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._attrs: dict[str, str | None] = {}
        self.feed(path.read_bytes().decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attrs = dict(attrs)
        self._open.append(tag)
        if tag == "article":
            self.keys.append(json.loads(self._attrs.get("data-keys") or "[]", parse_constant=pytest.fail))
        if tag == "select":
            self.menus.append((self.labels[-1], []))
        if tag == "option":
            self.menus[-1][1].append((self._attrs["value"] or "", "", "selected" in self._attrs))
        if "data-column" in self._attrs:
            self.columns.append((self._attrs["data-column"] or "", ""))

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "label" and data.strip():
            self.labels.append(data.strip())
        elif self._open and self._open[-1] == "option" and data.strip():
            value, text, selected = self.menus[-1][1][-1]
            self.menus[-1][1][-1] = (value, text + data.strip(), selected)

    @property
    def orders(self) -> list[str]:
        return [text for _, text, _ in self.menus[0][1]]

    @property
    def first(self) -> str:
        return next((text for _, text, selected in self.menus[0][1] if selected), "name")

    @property
    def filters(self) -> dict[str, dict[Any, str]]:
        return {
            label: {json.loads(value): text for value, text, _ in options if value} for label, options in self.menus[1:]
        }


def written(path: Path, *rows: Row) -> tuple[Page, Tools]:
    write_report(path, rows, lambda row: None)
    return Page(path), Tools(path)


def test_a_choice_with_its_probability_and_those_of_others(tmp_path: Path) -> None:
    many = {f"c{i}": 0.02 for i in range(9)} | {"c9": 0.009, "c10": 0.011}
    page, tools = written(
        tmp_path / "r.html",
        flat("a", choice(red=0.7, green=0.1, blue=0.2)),
        flat("b", choice(blue=0.55, red=0.4, green=0.05)),
        flat("c", choice(red=0.8, **many)),
        flat("d", choice(red=0.995, blue=0.005)),
    )
    assert "red" in page.cards[0]["p"]
    assert "70.0% · blue 20.0% · green 10.0%" in page.cards[0]["p"]
    assert "80.0% · c0 2.0% · c1 2.0% · c2 2.0%96 × 64" in page.cards[2]["p"]
    assert "99.5%" in page.cards[3]["p"]
    assert "blue" not in page.cards[3]["p"]
    assert tools.orders == ["name", "probability", "answer"]
    assert tools.filters == {"answer": {"blue": "blue (1)", "red": "red (3)"}}
    place = tools.orders.index("probability") - 1
    assert [keys[place] for keys in tools.keys] == [0.7, 0.55, 0.8, 0.995]


def test_the_properties_of_a_value_in_place_of_its_json(tmp_path: Path) -> None:
    value = {"shop": "A & B", "total": 3.5, "paid": True, "items": ["tea", 2], "more": {"a": [1]}, "note": None}
    page, tools = written(tmp_path / "r.html", flat("a", under_schema(value)), flat("b", under_schema({"total": 12})))
    assert page.cards[0]["dt"] == "shoptotalpaiditemsmorenote"
    assert page.cards[0]["dd"] == 'A & B3.5truetea, 2{"a": [1]}null'
    assert tools.orders == ["name", *value]
    assert tools.filters["total"] == {3.5: "3.5 (1)", 12: "12 (1)"}
    assert list(tools.filters["total"]) == [3.5, 12], "numbers are sorted as numbers"
    assert tools.filters["paid"] == {"true": "true (1)"}
    assert tools.keys == [["A & B", 3.5, "true", "tea, 2", '{"a": [1]}', "null"], [None, 12]]


@pytest.mark.parametrize("value", [[], {}, "text", 3, None, [1, 2], [{"a": 1}]], ids=repr)
def test_a_value_that_is_no_object(tmp_path: Path, value: Any) -> None:
    page, tools = written(tmp_path / "r.html", flat("a", under_schema(value)))
    assert show_value(value) in page.cards[0]["p"]
    assert tools.orders == ["name", "answer"]


def test_several_questions(tmp_path: Path) -> None:
    prompts = {"colour": "?", "big": "?", "receipt": "?", "free": "?"}
    answers = {
        "colour": choice(red=0.9, blue=0.1),
        "big": choice(yes=0.6, no=0.4),
        "receipt": under_schema({"shop": "x", "total": 2}),
        "free": Answer("A long text.", "stop"),
    }
    page, tools = written(tmp_path / "r.html", Row("a", "a", prompts, answers), Row("b", "b", prompts, answers))
    assert page.cards[0]["dt"] == "colourbigreceiptshoptotalfree"
    assert "90.0% · blue 10.0%" in page.cards[0]["dd"]
    assert tools.orders == [
        "name", "colour: probability", "colour", "big: probability", "big", "receipt.shop", "receipt.total", "free",
        "lowest probability",
    ]  # fmt: skip
    assert tools.keys[0] == [0.9, "red", 0.6, "yes", "x", 2, "A long text.", 0.6]
    assert tools.first == "name"


def test_samples_and_how_far_they_disagree_come_first(tmp_path: Path) -> None:
    samples = (Sample("red"), Sample("{}", value={"a": 1}), Sample("{", error="it ended too early"))
    answer = Answer("red", "stop", samples=samples, disagreement=0.425)
    page, tools = written(tmp_path / "r.html", flat("a", answer), flat("b", Answer("red", "stop")))
    assert page.cards[0]["summary"] == "3 samples, disagreement 0.42"
    assert page.cards[0]["li"] == 'red{"a": 1}(it ended too early)'
    assert "summary" not in page.cards[1]
    assert tools.first == "disagreement"
    both = {"one": answer, "two": Answer("x", "stop", samples=samples, disagreement=1.0)}
    _, tools = written(tmp_path / "r.html", Row("a", "a", {"one": "?", "two": "?"}, both))
    assert tools.first == "highest disagreement"
    assert tools.keys[0][tools.orders.index("highest disagreement") - 1] == 1.0


def test_free_texts_are_offered_only_if_they_repeat(tmp_path: Path) -> None:
    rows = [flat(str(n), Answer("Yes." if n % 2 else "No.", "stop")) for n in range(4)]
    assert written(tmp_path / "r.html", *rows)[1].filters == {"answer": {"No.": "No. (2)", "Yes.": "Yes. (2)"}}
    _, tools = written(tmp_path / "r.html", *rows, *(flat(f"x{n}", Answer(f"No. {n}", "stop")) for n in range(5)))
    assert (tools.orders, tools.filters) == (["name"], {})
    _, tools = written(tmp_path / "r.html", *(flat(str(n), Answer("A long text. " * 9, "stop")) for n in range(4)))
    assert (tools.orders, tools.filters) == (["name"], {})
    assert tools.keys == [[]] * 4, "long texts are not repeated for nothing"


def test_many_or_long_values_are_sorted_but_not_listed(tmp_path: Path) -> None:
    rows = [flat(str(n), under_schema({"n": n, "text": "x" * n})) for n in range(100)]
    _, tools = written(tmp_path / "r.html", *rows)
    assert (tools.orders, tools.filters) == (["name", "n", "text"], {})
    assert [keys[0] for keys in tools.keys] == list(range(100))
    assert max(len(keys[1]) for keys in tools.keys) == 80


def test_any_number_of_names_is_bounded(tmp_path: Path, chance: random.Random) -> None:
    columns = Columns()
    for n in range(500):
        columns.add(flat(str(n), under_schema({f"{chance.random()}": chance.random() for _ in range(5)})))
    assert len(list(columns)) == 60
    names = {str(n): n for n in range(100)}
    page, tools = written(tmp_path / "r.html", flat("a", under_schema(names)))
    assert len(tools.orders) == 61
    assert page.cards[0]["dt"] == "".join(names), "all are shown"


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "123456789012345678901234567890", '"\\ud800"', "0.1"])
def test_odd_numbers_and_texts(tmp_path: Path, text: str) -> None:
    value = json.loads(text)
    _, tools = written(tmp_path / "r.html", flat("a", under_schema({"n": value})))
    [[key]] = tools.keys
    assert key == value if text[0].isdigit() and value < 1e300 else isinstance(key, str)
    assert list(tools.filters["n"]) == [key]


def test_errors_have_no_values(tmp_path: Path) -> None:
    failed = Row("b", "b", PROMPTS, error=Failure("ImageError", "b: damaged"))
    _, tools = written(tmp_path / "r.html", failed, flat("a", choice(red=0.9, blue=0.1)))
    assert tools.keys == [[], [0.9, "red"]]


def test_hostile_values_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    hostile = Answer(
        ATTACK, "stop", value={ATTACK: ATTACK, "": {ATTACK: [ATTACK]}}, samples=(Sample(ATTACK),), disagreement=1.0
    )
    several = {ATTACK: choice(**{ATTACK: 0.9, "x": 0.1}), "b": hostile}
    page, tools = written(path, flat("a", hostile), Row("b", "b", {ATTACK: "?", "b": "?"}, several))
    assert len(page.named("script")) == 1
    assert page.named("img") == []
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert [f"{ATTACK} (1)"] == [*tools.filters[ATTACK].values()][-1:]
    assert ATTACK in tools.keys[0]
    assert ATTACK in page.cards[0]["li"]
    assert ATTACK in page.cards[0]["dt"]


def test_what_needs_the_script_is_hidden_without_it(tmp_path: Path) -> None:
    page, _ = written(tmp_path / "r.html", flat("a", choice(red=0.9, blue=0.1)))
    assert ["hidden" in attrs for attrs in page.named("div") if attrs.get("id") == "tools"] == [True]
    assert ["hidden" in attrs for attrs in page.named("button") if attrs.get("id") == "more"] == [True]
    controls = [attrs for tag in ("select", "button") for attrs in page.named(tag)]
    assert all("tabindex" not in attrs and "disabled" not in attrs for attrs in controls), "reached by keyboard"
