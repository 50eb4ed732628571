"""Items -> rows: one each, whatever happens to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from dsvl_cli.batch.captioner import Captioner, _Task, hash_pictures
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.quality import find_suspicion
from dsvl_cli.batch.row import ONLY, Row
from dsvl_cli.engine.conversation import Message, Picture, Request, compose_parts
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.pictures.bounded import BoundedDecoder
from dsvl_cli.engine.pictures.images import picture_from_bytes
from dsvl_cli.errors import ContextOverflow, DsvlError, ImageError
from tests.batch.fakes import BATCH, FakeBatchModel, item, png

ONE = {ONLY: "What is it?"}


def caption(
    items: list[Item | None], model: FakeBatchModel | None = None, questions: dict[str, str] | None = None
) -> list[Row]:
    model = model or FakeBatchModel()
    return list(Captioner(model, questions or ONE, None, SamplingParams(), None, find_suspicion)(items))


def test_every_item_becomes_one_row_about_its_own_picture() -> None:
    items = [item(number) for number in range(50)]
    rows = {row.id: row for row in caption([*items])}
    assert len(rows) == 50
    for each in items:
        row = rows[each.id]
        sha256 = hash_pictures(each.read())
        assert row.sha256 == sha256
        assert row.text == f"What is it? I see {str(sha256)[:8]} of 8x6."
        assert (row.status, row.width, row.height, row.model) == ("answered", 8, 6, "fake")
        assert row.answers[ONLY].finish_reason == "stop"


def test_what_cannot_be_read_becomes_an_error_row() -> None:
    def vanish() -> list[bytes]:
        raise ImageError("gone.png: no such file")

    def refuse() -> list[bytes]:
        raise PermissionError(13, "Permission denied")

    broken = [item(1, b"no picture", "broken.png"), Item("gone.png", "gone.png", vanish), Item("p", "p", refuse)]
    rows = {row.id: row for row in caption([item(0), *broken, item(2)])}
    assert {name: row.status for name, row in rows.items()} == {
        "000.png": "answered", "broken.png": "error", "gone.png": "error", "p": "error", "002.png": "answered",
    }  # fmt: skip
    assert rows["broken.png"].sha256 == hash_pictures([b"no picture"])
    assert rows["gone.png"].error is not None
    assert (rows["gone.png"].error.type, rows["gone.png"].error.message) == ("ImageError", "gone.png: no such file")
    assert rows["p"].error is not None
    assert "Permission denied" in rows["p"].error.message


@pytest.mark.fault("exceptions while an item is read or asked about")
@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), ValueError("x"), KeyError("x"), TypeError(),
        AssertionError(), RecursionError(), OverflowError(), ZeroDivisionError(), AttributeError("x"), MemoryError(),
        OSError(5, "Input/output error"), EOFError(), RuntimeError("a secret of the library\nin two lines"),
    ],
)  # fmt: skip
def test_whatever_reading_an_item_raises_is_its_own_row(error: Exception) -> None:
    def read() -> list[bytes]:
        raise error

    rows = {row.id: row for row in caption([item(0), Item("bad", "bad", read), item(2)])}
    assert {name: row.status for name, row in rows.items()} == {
        "000.png": "answered", "bad": "error", "002.png": "answered",
    }  # fmt: skip
    found = rows["bad"].error
    assert found is not None
    assert found.message.startswith("bad: ")
    assert "secret" not in found.message


@pytest.mark.fault("exceptions while an item is read or asked about")
@pytest.mark.parametrize("sampling", [{"temperature": 10**400}, {"temperature": "x"}, {"seed": [1]}, {"stop": 5}])
def test_whatever_preparing_an_item_raises_is_its_own_row(sampling: dict[str, object]) -> None:
    bad, good = caption([replace(item(1), sampling=sampling), item(2)])
    assert (bad.status, good.status) == ("error", "answered")


@pytest.mark.fault("exceptions while an item is read or asked about")
def test_an_unforeseen_exception_while_an_item_is_prepared_is_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_for_the_first(task: _Task, prompt: str, _: object) -> list[Message]:
        if task.item.id == "001.png":
            raise KeyError("x")
        return [Message("user", compose_parts(prompt, task.pictures))]

    monkeypatch.setattr("dsvl_cli.batch.captioner._compose", fail_for_the_first)
    bad, good = caption([item(1), item(2)])
    assert (bad.status, good.status) == ("error", "answered")


def test_an_item_that_takes_long_is_overtaken_and_rows_come_meanwhile() -> None:
    released = threading.Event()

    def slow() -> list[bytes]:
        released.wait(60)
        return [png(5)]

    items = [item(0), Item("slow", "slow", slow), *(item(number) for number in range(6, 60))]
    found = []
    for row in Captioner(FakeBatchModel(), ONE, None, SamplingParams())(items):
        found.append(row.id)
        if len(found) == len(items) - 1:
            released.set()
    assert sorted(found) == sorted(each.id for each in items)
    assert found[-1] == "slow"


def test_stopping_waits_for_no_item_that_takes_long() -> None:
    released = threading.Event()

    def slow() -> list[bytes]:
        released.wait(60)
        return [png(5)]

    captioner = Captioner(FakeBatchModel(), ONE, None, SamplingParams())
    rows = captioner([item(0), Item("slow", "slow", slow)])
    assert next(rows).id == "000.png"
    captioner.stop()
    assert list(rows) == []
    assert not released.is_set()
    released.set()


def test_what_is_read_in_advance_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsvl_cli.batch.captioner._AHEAD_BYTES", 100_000)
    data = png(1) + bytes(60_000)
    read = 0
    lock = threading.Lock()

    def reading() -> list[bytes]:
        nonlocal read
        with lock:
            read += 1
        return [data]

    most, answered = 0, 0
    for _ in Captioner(FakeBatchModel(), ONE, None, SamplingParams(), 1)(
        Item(str(number), str(number), reading) for number in range(40)
    ):
        answered += 1
        most = max(most, read - answered)
    assert answered == 40
    assert most <= 1 + 4 + 2  # what waits, what was read and finds no room, and what the model has


class _Trials:
    def __init__(self, **ended: int) -> None:
        self.times = ended
        self.during: list[str] = []

    def ended(self, id: str) -> int:  # noqa: A002
        return self.times.get(id, 0)

    @contextmanager
    def attempt(self, id: str) -> Iterator[None]:  # noqa: A002
        self.during.append(id)
        yield
        self.during.remove(id)


def test_an_item_is_noted_for_as_long_as_it_is_read() -> None:
    trials = _Trials()
    seen = []

    def read() -> list[bytes]:
        seen.extend(trials.during)
        return [png(1)]

    captioner = Captioner(FakeBatchModel(), ONE, None, SamplingParams(), trials=trials)
    assert [row.status for row in captioner([Item("a", "a", read)])] == ["answered"]
    assert (seen, trials.during) == (["a"], [])


@pytest.mark.fault("runs killed while they read a picture")
def test_an_item_that_ended_runs_is_read_with_care_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    careful: list[str] = []

    def read(_: object, data: bytes, name: str, *, careful: bool = False, careful_of: list[str] = careful) -> Picture:
        careful_of.extend([name] * careful)
        return picture_from_bytes(data, name)

    monkeypatch.setattr(BoundedDecoder, "read", read)
    items = [Item(name, name, lambda: [png(1)]) for name in "abc"]
    captioner = Captioner(FakeBatchModel(), ONE, None, SamplingParams(), trials=_Trials(b=2, c=3))
    rows = {row.id: row for row in captioner(items)}
    assert careful == ["b"]
    assert {name: row.status for name, row in rows.items()} == {"a": "answered", "b": "answered", "c": "error"}


def test_errors_come_out_while_others_are_still_to_be_read() -> None:
    """A hundred thousand broken files are neither kept in memory nor told at the end."""
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        while True:
            taken += 1
            yield item(taken, b"broken")

    rows = Captioner(FakeBatchModel(), ONE, None, SamplingParams())(endless())
    assert [next(rows).status for _ in range(100)] == ["error"] * 100
    assert taken < 200
    rows.close()  # type: ignore[attr-defined]


def test_several_questions_about_a_picture_follow_each_other_and_make_one_row() -> None:
    model = FakeBatchModel()
    rows = caption([item(1), item(2)], model, {"colour": "Which colour?", "kind": "Which kind?"})
    asked = [request.conversation.messages[0] for request in model.asked]
    assert [message.text for message in asked] == ["Which colour?", "Which kind?"] * 2
    assert [message.pictures[0].sha256 for message in asked[:2]] == [hash_pictures([png(1)])] * 2
    for row in rows:
        assert {name: answer.text.split(" I see")[0] for name, answer in row.answers.items()} == {
            "colour": "Which colour?", "kind": "Which kind?",
        }  # fmt: skip
        assert Row.from_json(row.to_line()) == row


def test_one_failed_question_makes_an_error_row_that_keeps_the_other_answer() -> None:
    def fails(request: Request) -> DsvlError | None:
        return ContextOverflow(700, 600) if request.conversation.messages[0].text == "Which kind?" else None

    (row,) = caption([item(1)], FakeBatchModel(fails=fails), {"colour": "Which colour?", "kind": "Which kind?"})
    assert row.status == "error"
    assert row.error is not None
    assert row.error.type == "ContextOverflow"
    assert list(row.answers) == ["colour"]
    assert Row.from_json(row.to_line()) == row


def test_an_item_may_ask_for_itself() -> None:
    model = FakeBatchModel()
    own = replace(item(1), parts=(None, " against ", None, "?"), system="Be brief.", sampling={"temperature": 0.5})
    own = replace(own, read=lambda: [png(1), png(2)])
    (row,) = caption([own], model)
    assert row.prompts == {ONLY: "<image> against <image>?"}
    assert model.asked[0].conversation.system == "Be brief."
    assert model.asked[0].sampling == SamplingParams(temperature=0.5)
    assert len(model.asked[0].conversation.pictures) == 2
    assert row.sha256 == hash_pictures([png(1), png(2)])


def test_a_mark_counts_in_the_run_s_question_and_not_in_an_item_s_own_text() -> None:
    model = FakeBatchModel()
    own = replace(item(1), parts=("Is <image> a tag, ", None))
    row, marked = sorted(caption([own, item(2)], model, {ONLY: "What is <image>?"}), key=lambda row: row.id)
    first, second = (request.conversation.messages[0] for request in model.asked)
    assert [part if isinstance(part, str) else part.sha256 for part in first.parts] == [
        "Is <image> a tag, ", hash_pictures([png(1)]),
    ]  # fmt: skip
    assert [part if isinstance(part, str) else part.sha256 for part in second.parts] == [
        "What is ", hash_pictures([png(2)]), "?",
    ]  # fmt: skip
    assert (row.prompts, marked.prompts) == ({ONLY: "Is <image> a tag, <image>"}, {ONLY: "What is <image>?"})
    assert (row.status, marked.status) == ("answered", "answered")


@pytest.mark.parametrize("parts", [("no place",), (None, None, "two places")])
def test_other_pictures_than_places_are_an_error(parts: tuple[str | None, ...]) -> None:
    bad, good = caption([replace(item(1), parts=parts), item(2)])
    assert bad.error is not None
    assert (bad.error.type, bad.prompts) == ("ImageError", {ONLY: parts[-1]})
    assert good.status == "answered"


@pytest.mark.parametrize("sampling", [{"temperature": -1.0}, {"unheard_of": 1}])
def test_wrong_sampling_of_an_item_is_its_own_error(sampling: dict[str, float]) -> None:
    bad, good = caption([replace(item(1), sampling=sampling), item(2)])
    assert bad.error is not None
    assert bad.error.type == "UsageError"
    assert good.status == "answered"


def test_answers_that_are_no_good_are_suspect() -> None:
    (row,) = caption([item(1)], FakeBatchModel(answer=lambda _: "a cat " * 100))
    assert row.status == "suspect"
    assert row.suspicion
    (cut,) = Captioner(FakeBatchModel(), ONE, None, SamplingParams(max_new_tokens=3), None, find_suspicion)([item(1)])
    assert cut.answers[ONLY].finish_reason == "length"
    assert cut.status == "suspect"


def test_nothing_to_take_ends_the_batch_in_flight_early() -> None:
    """Rows of a slow list come out although the batch is not full."""
    model = FakeBatchModel()
    released = threading.Event()

    def slow() -> Iterator[Item | None]:
        yield item(1)
        while not released.is_set():
            yield None
        yield item(2)

    rows = Captioner(model, ONE, None, SamplingParams())(slow())
    assert next(rows).id == "001.png"
    released.set()
    assert [row.id for row in rows] == ["002.png"]
    assert model.sizes == [1, 1]


def test_stop_lets_the_batch_in_flight_end_and_takes_no_other() -> None:
    model = FakeBatchModel()
    captioner = Captioner(model, ONE, None, SamplingParams())
    model.before_batch = lambda _: captioner.stop()
    rows = list(captioner([item(number) for number in range(100)]))
    assert len(rows) == BATCH
    assert model.sizes == [BATCH]


def sampled(items: list[Item], model: FakeBatchModel, samples: int, **more: Any) -> dict[str, Row]:
    warm = SamplingParams(temperature=0.7, seed=1)
    return {row.id: row for row in Captioner(model, ONE, None, warm, samples=samples, **more)(items)}


def test_the_samples_of_a_question_follow_each_other_with_their_own_seeds() -> None:
    model = FakeBatchModel(answer=lambda request: f"seed {request.sampling.seed}")
    rows = sampled([item(number) for number in range(5)], model, 3)
    assert len(rows) == 5
    for row in rows.values():
        answer = row.answers[ONLY]
        assert [sample.text for sample in answer.samples] == ["seed 1", "seed 2", "seed 3"]
        assert row.disagreement == answer.disagreement == 0.5
        assert answer.tokens == 6
    asked = [request.conversation for request in model.asked]
    assert all(asked[start] is asked[start + 1] is asked[start + 2] for start in range(0, 15, 3))


def test_an_item_has_its_own_number_of_samples_and_equal_ones_are_asked_for_once() -> None:
    cold = replace(item(1), sampling={"temperature": 0.0}, samples=4)
    model = FakeBatchModel(answer=lambda request: f"seed {request.sampling.seed}")
    captioner = Captioner(model, ONE, None, SamplingParams(temperature=0.7, seed=1), samples=2)
    rows = {row.id: row for row in captioner([item(0), cold, replace(item(2), samples=1)])}
    assert len(model.asked) == 2 + 1 + 1
    assert [len(row.answers[ONLY].samples) for row in rows.values()].count(0) == 1
    answer = rows[cold.id].answers[ONLY]
    assert [sample.text for sample in answer.samples] == ["seed 1"] * 4
    assert (answer.disagreement, answer.tokens) == (0, 8)
    assert rows["002.png"].disagreement is None
    assert captioner.notes.lines() == ["001.png: its 4 answers are equal at a temperature of 0"]


def test_one_failed_request_of_several_samples_fails_the_row() -> None:
    error = ContextOverflow(10, 5)
    model = FakeBatchModel(fails=lambda request: error if request.sampling.seed == 2 else None)
    (row,) = sampled([item(0)], model, 3).values()
    assert row.error is not None
    assert (row.error.type, row.answers) == ("ContextOverflow", {})


def test_a_stopped_run_completes_the_samples_of_the_items_in_progress() -> None:
    model = FakeBatchModel(answer=lambda request: f"seed {request.sampling.seed}")
    captioner = Captioner(model, ONE, None, SamplingParams(temperature=0.7, seed=1), samples=BATCH + 1)
    model.before_batch = lambda _: captioner.stop()
    rows = list(captioner([item(number) for number in range(9)]))
    assert rows
    assert all(len(row.answers[ONLY].samples) == BATCH + 1 for row in rows)
    assert len(model.asked) == len(rows) * (BATCH + 1)


def test_suspicion_is_that_of_the_sample_that_stands_for_all() -> None:
    model = FakeBatchModel(answer=lambda request: "" if request.sampling.seed == 2 else "A red circle.")
    (row,) = sampled([item(0)], model, 3, judge=find_suspicion).values()
    assert (row.text, row.suspicion) == ("A red circle.", None)
    assert [sample.text for sample in row.answers[ONLY].samples] == ["A red circle.", "", "A red circle."]
