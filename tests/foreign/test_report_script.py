"""The script of a report in a page of the npm package `jsdom`: `.ci/run` installs it apart.

python -m pytest tests/foreign --jsdom FOLDER     # where npm has installed it
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.batch.output.report import write_report
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row

# Reads steps, one a line: a selector, what is done there, and a value. Writes what the page shows after each.
_DRIVE = """
const { JSDOM } = require("jsdom");
const [path] = process.argv.slice(1);
(async () => {
  const errors = [], console_ = new (require("jsdom").VirtualConsole)();
  console_.on("jsdomError", error => errors.push(String(error)));
  const dom = await JSDOM.fromFile(path, { runScripts: "dangerously", virtualConsole: console_ });
  const { document, Event } = dom.window, shown = [];
  const steps = JSON.parse(require("fs").readFileSync(0, "utf-8"));
  for (const [selector, action, value] of [[null, "look", null], ...steps]) {
    const target = selector && document.querySelector(selector);
    if (selector && !target) throw new Error(`nothing is ${selector}`);
    if (action === "click") target.click();
    if (action === "choose") {
      const option = Array.from(target.options).find(each => each.textContent === value);
      if (!option) throw new Error(`${selector} has no ${value}`);
      target.value = option.value;
      target.dispatchEvent(new Event("change"));
    }
    if (action === "type") {
      target.value = value;
      target.dispatchEvent(new Event("input"));
      await new Promise(resolve => setTimeout(resolve, 400));
    }
    shown.push({
      names: Array.from(document.querySelectorAll("main > article h2"), name => name.textContent),
      found: document.getElementById("found").textContent,
      more: document.getElementById("more").hidden ? "" : document.getElementById("more").textContent,
      direction: document.getElementById("direction").textContent,
      tools: !document.getElementById("tools").hidden,
      picks: document.querySelectorAll("main .picks").length,
    });
  }
  console.log(JSON.stringify({ shown, errors }));
})().catch(error => { console.error(error); process.exit(1); });
"""

Drive = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def drive(request: pytest.FixtureRequest, tmp_path: Path) -> Drive:
    folder = request.config.getoption("--jsdom")
    if folder is None:
        pytest.skip("--jsdom names no folder that has the package jsdom")

    def run(rows: list[Row], *steps: tuple[str, str, str | None]) -> list[dict[str, Any]]:
        path = tmp_path / "r.html"
        write_report(path, rows, lambda row: None)
        done = subprocess.run(
            ["node", "-e", _DRIVE, "--", str(path)], input=json.dumps(steps), check=True, stdout=subprocess.PIPE,
            text=True, cwd=folder,
        )  # fmt: skip
        result = json.loads(done.stdout)
        assert result["errors"] == []
        shown: list[dict[str, Any]] = result["shown"]
        return shown

    return run


def row(name: str, answer: Answer | None) -> Row:
    error = Failure("ImageError", f"{name}: damaged") if answer is None else None
    return Row(name, name, {ONLY: "?"}, {} if answer is None else {ONLY: answer}, error=error)


def names(shown: dict[str, Any]) -> str:
    return "".join(shown["names"])


def valued(value: Any) -> Answer:
    return Answer(json.dumps(value), "stop", value=value)


def chosen(text: str, chance: float, suspicion: str | None = None) -> Answer:
    return Answer(text, "stop", suspicion=suspicion, probabilities={text: chance, "other": 1 - chance})


def test_rows_are_sorted_by_numbers_and_texts(drive: Drive) -> None:
    values = {"a": {"n": 10, "t": "b"}, "b": {"n": 9.5, "t": "a10"}, "c": {"t": "a9"}, "d": {"n": "x"}, "e": {"n": -1}}
    rows = [*(row(name, valued(value)) for name, value in values.items()), row("f", None)]
    by_n, falling, by_t, by_name, back = drive(
        rows,
        ("#order", "choose", "n"),
        ("#direction", "click", None),
        ("#order", "choose", "t"),
        ("#order", "choose", "name"),
        ("#direction", "click", None),
    )[1:]
    assert names(by_n) == "ebadcf", "numbers, then texts, then rows without one"
    assert names(falling) == "dabecf", "those without one are last again"
    assert names(by_t) == "cbadef", "9 comes before 10 in texts too"
    assert (names(by_name), names(back)) == ("abcdef", "fedcba")
    assert (by_n["direction"], falling["direction"]) == ("↑ ascending", "↓ descending")


def test_rows_are_filtered_by_values_words_and_status_together(drive: Drive) -> None:
    rows = [
        row("a", chosen("red", 0.9)), row("b", chosen("blue", 0.8)), row("c", chosen("red", 0.5, "unsure")),
        row("d", None), row("e", chosen("red", 0.7)),
    ]  # fmt: skip
    start, red, answered, word, cleared, least, clicked, again = drive(
        rows,
        ("select.value", "choose", "red (3)"),
        ("#answered", "click", None),
        ("#search", "type", "E"),
        ("#clear", "click", None),
        ("#order", "choose", "probability"),
        ("main > article p.text", "click", None),
        ("main > article p.text", "click", None),
    )
    assert (names(start), start["found"], start["tools"], start["picks"]) == ("abcde", "", True, 4)
    assert (names(red), red["found"]) == ("ace", "3 found")
    assert names(answered) == "ae"
    assert names(word) == "ae", "all words of a card count, in any case"
    assert (names(cleared), cleared["found"]) == ("abcde", "")
    assert names(least) == "cebad"
    assert names(clicked) == "cea", "a click on a value shows its rows"
    assert names(again) == "cebad"


def test_samples_that_disagree_most_come_first(drive: Drive) -> None:
    rows = [row(name, Answer(name, "stop", disagreement=gap)) for name, gap in (("a", 0.1), ("b", 0.9), ("c", 0.5))]
    assert names(drive(rows)[0]) == "bca"


def test_many_rows_are_shown_in_parts(drive: Drive) -> None:
    rows = [row(f"{n:05d}", valued({"n": n % 7})) for n in range(1700)]
    start, more, last, filtered = drive(
        rows, ("#more", "click", None), ("#more", "click", None), ("select.value", "choose", "3 (243)")
    )
    assert (len(start["names"]), start["more"]) == (500, "show 500 more of 1,200")
    assert (len(more["names"]), more["more"]) == (1000, "show 700 more of 700")
    assert (len(last["names"]), last["more"]) == (1700, "")
    assert (len(filtered["names"]), filtered["found"], filtered["more"]) == (243, "243 found", "")


def test_hostile_values_are_filtered_like_others(drive: Drive) -> None:
    from tests.batch.output.test_report import ATTACK

    rows = [row("a", valued({ATTACK: ATTACK})), row("b", valued({ATTACK: 'x"y'})), row("c", valued({ATTACK: "\ud800"}))]
    shown = drive(rows, ("select.value", "choose", f"{ATTACK} (1)"), ("select.value", "choose", 'x"y (1)'))
    assert [names(each) for each in shown] == ["abc", "a", "b"]


def test_an_empty_report(drive: Drive) -> None:
    [start] = drive([])
    assert (start["names"], start["tools"], start["more"]) == ([], False, "")
