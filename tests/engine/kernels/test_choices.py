"""Choosing among implementations of a product, with planted ones and a clock that only they move."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from dsvl_cli.engine.kernels.choice_table import ChoiceTable, identify, measure, recall
from dsvl_cli.engine.kernels.choices import SECONDS, Budget, choose
from dsvl_cli.engine.kernels.questions import REFERENCE, Candidate, Measured, Question

SIZES = (64, 256, 1024)
IDENTITY = {"cpu": "a CPU", "torch": "2.13.0", "threads": "2", "kernels": "abc"}


class Clock:
    """Stands still until something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def expect(size: int) -> torch.Tensor:
    return torch.arange(1.0, size + 1).view(1, size)


class Planted:
    """A candidate of a given speed, in seconds for the largest size; counts its runs by size."""

    def __init__(
        self,
        clock: Clock,
        name: str,
        seconds: float = 1e-3,
        result: Callable[[int], object] = expect,
        *,
        overhead: float = 0.0,
        first: float = 0.0,
    ) -> None:
        self.runs: list[int] = []
        self.threads: set[int] = set()
        self._clock, self._seconds, self._result = clock, seconds, result
        self._overhead, self._first = overhead, first
        self.candidate = Candidate(name, self.prepare, 0.01)

    def prepare(self, size: int) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            self._clock.wait(self._seconds * (size / SIZES[-1]) ** 2 + self._overhead)
            self._clock.wait(0 if self.runs else self._first)
            self.runs.append(size)
            self.threads.add(torch.get_num_threads())
            return self._result(size)  # type: ignore[return-value]

        return run


def ask(*planted: Planted, reference: Callable[[int], torch.Tensor] = expect, name: str = "int8 prompts") -> Question:
    return Question(name, tuple(one.candidate for one in planted), reference, SIZES)


def budget(clock: Clock, seconds: float = SECONDS, gauge: Callable[[], object] = lambda: None) -> Budget:
    return Budget(seconds, clock, gauge)


def give(value: object) -> Callable[[int], object]:
    return lambda _: value


def fail(_: int) -> torch.Tensor:
    raise RuntimeError("could not create a primitive\nand more")


def test_the_fastest_is_chosen_and_the_reason_compares(clock: Clock) -> None:
    found = choose(ask(Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3)), budget(clock))
    assert (found.chosen, found.complete, found.size, found.dropped) == ("native", True, 1024, {})
    assert found.reason == "time 0.50 of float32"
    assert found.seconds == pytest.approx({"float32": 2e-3, "native": 1e-3})


@pytest.mark.parametrize(("seconds", "chosen"), [(0.95e-3, "float32"), (0.85e-3, "native")])
def test_the_default_candidate_gives_way_only_to_a_clear_gain(clock: Clock, seconds: float, chosen: str) -> None:
    found = choose(ask(Planted(clock, "float32", 1e-3), Planted(clock, "native", seconds)), budget(clock))
    assert found.chosen == chosen
    assert ("too close" in found.reason) == (chosen == "float32")


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (fail, "raises RuntimeError: could not create a primitive"),
        (lambda size: expect(size) * 1.1, "is wrong: off by 0.1, 0.01 allowed"),
        (lambda size: expect(size).index_fill(1, torch.tensor(3), float("nan")), "returns NaN or infinity"),
        (lambda size: expect(size).index_fill(1, torch.tensor(3), float("inf")), "returns NaN or infinity"),
        (lambda size: expect(size).T, "returns the shape (64, 1) instead of (1, 64)"),
        (lambda size: expect(size).half(), "returns torch.float16 instead of torch.float32"),
        (give(None), "returns NoneType, not a tensor"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_candidate_is_dropped_with_the_reason(
    clock: Clock, result: Callable[[int], object], reason: str, place: int
) -> None:
    bad = Planted(clock, "bad", 1e-6, result)
    planted = [Planted(clock, "slower", 2e-3), Planted(clock, "faster", 1e-3)]
    planted.insert(place, bad)
    found = choose(ask(*planted), budget(clock))
    assert found.chosen == "faster"
    assert found.complete
    assert found.dropped == {"bad": reason}
    assert found.reason == f"time 0.50 of slower; bad {reason}"
    assert bad.runs in ([64], [])


def test_what_is_wrong_only_for_larger_products_is_dropped_too(clock: Clock) -> None:
    late = Planted(clock, "late", 1e-4, lambda size: expect(size) * (1 if size < 1024 else 2))
    found = choose(ask(late, Planted(clock, "float32")), budget(clock))
    assert (found.chosen, [*found.dropped]) == ("float32", ["late"])


def test_what_fails_in_a_later_run_is_dropped(clock: Clock) -> None:
    moody = Planted(clock, "moody", 1e-4, lambda size: fail(size) if moody.runs.count(1024) > 3 else expect(size))
    found = choose(ask(moody, Planted(clock, "float32")), budget(clock))
    assert (found.chosen, [*found.dropped]) == ("float32", ["moody"])


def test_preparing_may_fail(clock: Clock) -> None:
    found = choose(
        Question("int8 prompts", (Candidate("bad", fail, 0.01), Planted(clock, "good").candidate), expect, SIZES),  # type: ignore[arg-type]
        budget(clock),
    )
    assert (found.chosen, found.complete) == ("good", True)
    assert found.dropped["bad"].startswith("raises RuntimeError")


def test_a_slow_candidate_never_sees_a_large_product(clock: Clock) -> None:
    slow = Planted(clock, "slow", 300.0)  # 1.2 s for the smallest product
    found = choose(ask(Planted(clock, "float32", 1e-4), slow), budget(clock))
    assert (found.chosen, found.complete) == ("float32", True)
    assert found.dropped["slow"] == "is slow: 1.2 s for the first product, 64 x 64 weights"
    assert slow.runs == [64]


def test_a_candidate_that_is_much_slower_for_a_small_product_is_not_tried_with_larger_ones(clock: Clock) -> None:
    slow = Planted(clock, "slow", 1.0)
    found = choose(ask(slow, Planted(clock, "float32", 1e-3)), budget(clock))
    assert found.chosen == "float32"
    assert found.dropped["slow"] == "is slow: 1000 times float32, 64 x 64 weights"
    assert set(slow.runs) == {64}
    assert clock.now < SECONDS


def test_overhead_of_a_call_does_not_make_a_candidate_slow(clock: Clock) -> None:
    fast = Planted(clock, "fast", 1e-3, overhead=2e-4)  # far slower than the other for 64 x 64
    found = choose(ask(Planted(clock, "float32", 5e-3), fast), budget(clock))
    assert (found.chosen, found.dropped) == ("fast", {})


def test_the_first_run_is_not_timed(clock: Clock) -> None:
    found = choose(ask(Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3, first=0.1)), budget(clock))
    assert (found.chosen, found.dropped) == ("native", {})


def test_without_any_usable_candidate_the_reference_remains(clock: Clock) -> None:
    found = choose(ask(Planted(clock, "a", result=fail), Planted(clock, "b", result=give(None))), budget(clock))
    assert (found.chosen, found.complete) == (REFERENCE, True)
    expected = "no candidate is usable; a raises RuntimeError: could not create a primitive; b returns NoneType"
    assert found.reason.startswith(expected)


def test_a_broken_reference_concludes_nothing(clock: Clock) -> None:
    found = choose(ask(Planted(clock, "a"), Planted(clock, "b", 1e-6), reference=fail), budget(clock))
    assert (found.chosen, found.complete) == ("a", False)
    assert "not measured yet: the reference raises RuntimeError" in found.reason


def test_a_slow_machine_compares_smaller_products(clock: Clock) -> None:
    first, second = Planted(clock, "float32", 0.2), Planted(clock, "native", 0.1)
    found = choose(ask(first, second), budget(clock))
    assert (found.chosen, found.complete, found.size) == ("native", True, 256)
    assert clock.now <= SECONDS


def test_a_question_that_had_the_whole_budget_is_not_put_off_again(clock: Clock) -> None:
    stuck = Planted(clock, "stuck", 1e-3, first=0.35)
    late = Planted(clock, "late", 1e-3, first=0.2)
    found = choose(ask(Planted(clock, "float32"), stuck, late), budget(clock))
    assert (found.chosen, found.complete) == ("float32", True)
    assert found.dropped["stuck"].startswith("is slow: 0.35 s for the first product")


def test_half_a_second_is_the_limit_of_all_questions_together(clock: Clock, tmp_path: Path) -> None:
    planted = [(Planted(clock, "float32", 4e-3), Planted(clock, "native", 2e-3)) for _ in range(20)]
    questions = [ask(*both, name=f"question {number}") for number, both in enumerate(planted)]
    table = ChoiceTable(IDENTITY, tmp_path)
    found = measure(questions, table, budget(clock))
    assert clock.now <= SECONDS
    done = [name for name, answer in found.items() if answer.complete]
    assert 0 < len(done) < len(questions)
    left = found["question 19"]
    assert (left.chosen, left.reason) == ("float32", "not measured yet: no time was left at this start")

    for _ in range(20):  # each further start continues where the last one stopped
        start = clock.now
        found = measure(questions, table, budget(clock))
        assert clock.now - start <= SECONDS
    assert {answer.chosen for answer in found.values()} == {"native"}
    start, runs = clock.now, [both[0].runs.copy() for both in planted]
    measure(questions, table, budget(clock))
    assert [both[0].runs for both in planted] == runs
    assert clock.now == start


def test_a_busy_machine_compares_on_one_thread(clock: Clock) -> None:
    """Every split of work among several threads waits for the scheduler."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        busy = budget(clock, gauge=lambda: clock.wait(8e-3 if torch.get_num_threads() > 1 else 1e-5))
        planted = Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3)
        found = choose(ask(*planted), busy)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert (found.chosen, found.complete, found.one_thread) == ("native", True, True)
    assert found.reason == "time 0.50 of float32 (on one thread: the CPU was busy)"
    assert planted[0].threads == planted[1].threads == {1}


def test_a_machine_that_becomes_busy_drops_nothing_as_slow(clock: Clock) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        split = Planted(clock, "split", 1e-3)

        def gauge() -> None:
            clock.wait(8e-3 if split.runs and torch.get_num_threads() > 1 else 1e-5)

        prepare = split.prepare

        def delayed(size: int) -> Callable[[], torch.Tensor]:
            run = prepare(size)

            def wait_and_run() -> torch.Tensor:
                clock.wait(8e-3 if torch.get_num_threads() > 1 else 0)
                return run()

            return wait_and_run

        question = Question(
            "q", (Candidate("split", delayed, 0.01), Planted(clock, "whole", 2e-3).candidate), expect, SIZES
        )
        found = choose(question, budget(clock, gauge=gauge))
    finally:
        torch.set_num_threads(threads)
    assert (found.chosen, found.dropped) == ("split", {})


def answer_of(name: str = "int8 prompts", **changes: object) -> Measured:
    values: dict[str, object] = {"size": 1024, "seconds": {"a": 2e-3, "b": 1e-3}, "dropped": {"c": "is slow"}}
    return Measured(name, "b", True, **(values | changes))  # type: ignore[arg-type]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    first = answer_of(), answer_of("int4 prompts", one_thread=True)
    table = ChoiceTable(IDENTITY, tmp_path / "new")
    table.write({answer.question: answer for answer in first})
    assert table.fault is None
    assert ChoiceTable(IDENTITY, tmp_path / "new").read() == {answer.question: answer for answer in first}
    assert table.path.stat().st_mode & 0o077 == 0

    table.write({"int8 prompts": answer_of(size=64)})
    assert table.read() == {"int8 prompts": answer_of(size=64), "int4 prompts": first[1]}


@pytest.mark.parametrize("key", IDENTITY)
def test_another_machine_has_another_table(tmp_path: Path, key: str) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    table.write({"int8 prompts": answer_of()})
    other = ChoiceTable({**IDENTITY, key: "another"}, tmp_path)
    assert other.read() == {}
    other.path.write_bytes(table.path.read_bytes())  # a file copied under its name is not believed either
    assert other.read() == {}
    other.write({"int4 prompts": answer_of("int4 prompts")})
    assert [*other.read()] == ["int4 prompts"]
    assert [*table.read()] == ["int8 prompts"]


def row(seconds: str) -> str:
    fields = '"question": "int8 prompts", "chosen": "native", "complete": true, "size": 64, "dropped": {}'
    return f'{{{fields}, "one_thread": false, "seconds": {seconds}}}'


def page(rows: str) -> bytes:
    return f'{{"format": 1, "identity": {json.dumps(IDENTITY)}, "answers": {rows}}}'.encode()


def test_damage_is_what_makes_the_next_tables_unreadable(tmp_path: Path) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    table.path.write_bytes(page("[3, " + row('{"native": 0.5}') + "]"))
    assert table.read() == {"int8 prompts": Measured("int8 prompts", "native", True, 64, {"native": 0.5})}


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"\x00\xff", b"{", b"[]", b"3", b"[" * 100_000, b'{"format": 1}',
        page("[]").replace(b'"format": 1', b'"format": 99'), page("3"), page("[3]"), page("[{}]"),
        page('[{"question": 3}]'),
        *(page(f"[{row(seconds)}]") for seconds in (
            "[]", "{}", '{"native": "fast"}',
            '{"native": NaN}', '{"native": 0.0}', '{"native": -1.0}', '{"float32": 1.0}',
        )),
    ],
)  # fmt: skip
def test_a_damaged_table_is_measured_again(clock: Clock, tmp_path: Path, damage: bytes) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    table.path.write_bytes(damage)
    assert table.read() == {}
    question = ask(Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3))
    assert measure([question], table, budget(clock))["int8 prompts"].chosen == "native"
    assert table.read()["int8 prompts"].chosen == "native"


def test_a_folder_in_the_place_of_the_table_does_no_harm(clock: Clock, tmp_path: Path) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    table.path.mkdir()
    question = ask(Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3))
    assert measure([question], table, budget(clock))["int8 prompts"].chosen == "native"
    assert table.fault


def test_a_cache_folder_that_cannot_be_written_does_no_harm(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = ChoiceTable(IDENTITY, tmp_path / "file" / "cache")  # for root, too, nothing can be created there
    planted = Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3)
    for _ in range(2):
        assert measure([ask(*planted)], table, budget(clock))["int8 prompts"].chosen == "native"
    assert table.fault
    assert recall([ask(*planted)], table)["int8 prompts"].reason == "not measured yet"


@pytest.mark.parametrize("failing", ["write", "sync", "replace"])
def test_a_full_disk_does_no_harm(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    table.write({"other": answer_of("other")})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"dsvl_cli.engine.storage.files.system.{failing}", full)
    question = ask(Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3))
    assert measure([question], table, budget(clock))["int8 prompts"].chosen == "native"
    assert table.fault == "No space left on device"
    assert [*table.read()] == ["other"]
    assert [*tmp_path.iterdir()] == [table.path]


def test_other_candidates_are_measured_again(clock: Clock, tmp_path: Path) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    measure([ask(Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3))], table, budget(clock))
    changed = ask(Planted(clock, "float32", 2e-3), Planted(clock, "bfloat16", 1e-3))
    assert recall([changed], table)["int8 prompts"] == Measured("int8 prompts", "float32", False)
    assert measure([changed], table, budget(clock))["int8 prompts"].chosen == "bfloat16"


def test_renewing_measures_again(clock: Clock, tmp_path: Path) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    measure([ask(Planted(clock, "float32", 2e-3), Planted(clock, "native", 1e-3))], table, budget(clock))
    turned = ask(Planted(clock, "float32", 1e-3), Planted(clock, "native", 2e-3))
    assert measure([turned], table, budget(clock))["int8 prompts"].chosen == "native"
    assert measure([turned], table, budget(clock), renew=True)["int8 prompts"].chosen == "float32"
    assert recall([turned], table)["int8 prompts"].chosen == "float32"


def test_a_candidate_dropped_without_time_for_the_others_is_not_tried_again(clock: Clock, tmp_path: Path) -> None:
    table = ChoiceTable(IDENTITY, tmp_path)
    slow, others = Planted(clock, "slow", 900.0), (Planted(clock, "a", 2e-3), Planted(clock, "b", 1e-3))
    first = measure([ask(slow, *others)], table, budget(clock))["int8 prompts"]
    assert (first.chosen, first.complete) == ("a", False)
    second = measure([ask(slow, *others)], table, budget(clock))["int8 prompts"]
    assert (second.chosen, second.complete, [*second.dropped]) == ("b", True, ["slow"])
    assert slow.runs == [64]


def test_two_processes_at_once(clock: Clock, tmp_path: Path) -> None:
    """Another one writes its answers while this one measures: both are kept."""
    table = ChoiceTable(IDENTITY, tmp_path)

    def meanwhile(size: int) -> torch.Tensor:
        ChoiceTable(IDENTITY, tmp_path).write({"int4 prompts": answer_of("int4 prompts")})
        return expect(size)

    measure([ask(Planted(clock, "native"), reference=meanwhile)], table, budget(clock))
    assert {*table.read()} == {"int4 prompts", "int8 prompts"}


def test_the_identity_names_all_that_changes_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"

    def identity(flags: str = "avx2", kernels: str = "abc") -> Mapping[str, str]:
        cpuinfo.write_text(
            f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {flags}\nMHz\t: {clock_rate}\n\nflags: x\n"
        )
        return identify(kernels, cpuinfo)

    clock_rate = 2000
    first = identity()
    clock_rate = 3000
    assert identity() == first
    assert first["cpu"] == "A CPU"
    changed = [identity(flags="avx2 amx_int8"), identity(kernels="def")]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    changed.append(identity())
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    changed.append(identity())
    monkeypatch.setattr(torch, "__version__", "9.9")
    changed.append(identity())
    assert len({ChoiceTable(found, tmp_path).path for found in (first, *changed)}) == 6
    cpuinfo.unlink()
    assert identify("abc", cpuinfo)["torch"] == "9.9"
