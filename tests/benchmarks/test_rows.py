"""What each benchmark makes of its runs, with figures whose ratios are known."""

from pathlib import Path

import pytest

from benchmarks import batch, chat_turns, context, decode, describe, memory, prefix_cache, startup
from benchmarks.__main__ import plan
from benchmarks.asking import Asked
from benchmarks.goals import Goals, goals_for
from benchmarks.limits import Limits, Shape
from benchmarks.results import Row

LIMITS = Limits(bandwidth=1e9, rates={"fp32": 1e9, "bf16": 1e9, "int8": 1e9})
SHAPE = Shape.read("tiny")
AVX2 = goals_for("AVX2")
VNNI = goals_for("AVX-512 VNNI")


def run(first: float, whole: float, tokens: int = 11, prompt: int = 100) -> dict[str, float]:
    return {"prompt_tokens": prompt, "new_tokens": tokens, "first_seconds": first, "seconds": whole}


def asked() -> Asked:
    found = Asked()
    for name, first, whole in (
        ("transformers bf16", 10.0, 40.0),
        ("dsvl bf16", 8.0, 18.0),
        ("dsvl bnb-int8", 4.0, 9.0),
        ("llama.cpp bf16", 9.0, 18.0),
        ("llama.cpp q8_0", 8.0, 14.0),
        ("llama.cpp q4_0", 6.0, 11.0),
    ):
        # A slow outlier: medians leave it out.
        found.add(name, {"runs": [run(first, whole), run(99.0, 999.0), run(first, whole)], "load_seconds": 1.0})
    found.picture_seconds = [1.0, 1.0, 50.0]
    return found


def find(rows: list[Row], what: str, beside: str = "") -> Row:
    (row,) = (row for row in rows if row.what.startswith(what) and row.beside.startswith(beside))
    return row


def test_decode_holds_each_format_against_the_peer_as_wide() -> None:
    rows = decode.make_rows(asked(), ("bf16", "bnb-int8"), LIMITS, SHAPE, 11, VNNI)
    assert find(rows, "first token, bf16", "transformers").ratio == pytest.approx(0.8)
    assert find(rows, "first token, bf16", "transformers").reached is False  # at most 0.75
    assert find(rows, "first token, bnb-int8", "transformers").reached is True
    assert find(rows, "first token, bnb-int8", "llama.cpp q8_0").reached is True
    step = find(rows, "decode step, bf16", "transformers")
    assert [step.value, step.reference, step.ratio] == pytest.approx([1000, 3000, 1 / 3])
    assert find(rows, "decode step, bf16", "llama.cpp bf16").reached is False  # 0.9, at least 1
    assert find(rows, "decode step, bnb-int8", "llama.cpp q8_0").ratio == pytest.approx(1.2)
    assert find(rows, "decode step, bnb-int8", "llama.cpp q8_0").reached is True


def test_openvino_stands_beside_quantized_formats() -> None:
    found = asked()
    found.add("OpenVINO int8", {"runs": [run(5.0, 8.0)], "load_seconds": 1.0})
    rows = decode.make_rows(found, ("bf16", "bnb-int8"), LIMITS, SHAPE, 11, VNNI)
    assert find(rows, "first token, bnb-int8", "OpenVINO int8").ratio == pytest.approx(0.8)
    assert find(rows, "decode step, bnb-int8", "OpenVINO int8").ratio == pytest.approx(500 / 300)
    assert not [row for row in rows if "bf16" in row.what and row.beside.startswith("OpenVINO")]


def test_decode_holds_the_slowest_format_against_the_fastest() -> None:
    rows = decode.make_rows(asked(), ("bf16", "bnb-int8"), LIMITS, SHAPE, 11, Goals())
    first = find(rows, "first token, bf16, the slowest", "dsvl bnb-int8")
    step = find(rows, "decode step, bf16, the slowest", "dsvl bnb-int8")
    assert [first.value, first.reference, first.reached] == [8.0, 4.0, False]
    assert [step.ratio, step.reached] == [pytest.approx(2.0), False]
    assert not [row for row in decode.make_rows(asked(), ("bf16",), LIMITS, SHAPE, 11, VNNI) if "slowest" in row.what]


def test_goals_are_those_of_the_kind_of_cpu() -> None:
    bounds = []
    for goals in (VNNI, AVX2, goals_for("AMX"), goals_for("other")):
        rows = decode.make_rows(asked(), ("bf16", "bnb-int8"), LIMITS, SHAPE, 11, goals)
        goal = find(rows, "first token, bnb-int8", "transformers").goal
        bounds.append(goal.bound if goal else None)
    assert bounds == [0.6, 0.2, None, None]
    assert goals_for("AVX-512 VNNI BF16") == VNNI


def test_goals_are_beside_transformers_as_it_is_documented() -> None:
    found = asked()
    found.runs["transformers fp32"] = found.runs["transformers bf16"]
    rows = decode.make_rows(found, ("bf16",), LIMITS, SHAPE, 11, AVX2)
    assert find(rows, "first token, bf16", "transformers bf16").goal is not None
    assert find(rows, "first token, bf16", "transformers fp32").goal is None


def test_a_peer_that_is_not_there_has_no_rows() -> None:
    found = asked()
    found.runs = {name: runs for name, runs in found.runs.items() if not name.startswith("llama.cpp")}
    for make_rows in (decode.make_rows, describe.make_rows):
        rows = make_rows(found, ("bf16", "bnb-int8"), LIMITS, SHAPE, 11, AVX2)
        assert {row.beside for row in rows} - {"dsvl bnb-int8, the fastest"} == {"transformers bf16"}


def test_describe_compares_the_fastest_format_with_q4_0_too() -> None:
    found = asked()
    found.add("dsvl bnb-nf4", {"runs": [run(4.0, 8.4)], "load_seconds": 1.0})
    rows = describe.make_rows(found, ("bf16", "bnb-int8"), LIMITS, SHAPE, 11, AVX2)
    best = find(rows, "question to last word, bnb-int8 (the fastest)", "transformers")
    assert best.ratio == pytest.approx(9 / 40)
    llama = find(rows, "question to last word, bnb-int8", "llama.cpp q4_0")
    assert llama.reference == 12.0  # with our encoding of the picture
    assert llama.reached is None  # the goal is of 4 bits
    assert {row.beside for row in rows if "bf16" in row.what} == {"transformers bf16", "llama.cpp bf16 + our picture"}
    rows = describe.make_rows(found, ("bnb-int8", "bnb-nf4"), LIMITS, SHAPE, 11, AVX2)
    four = find(rows, "question to last word, bnb-nf4 (the fastest)", "llama.cpp q4_0")
    assert four.ratio == pytest.approx(0.7)
    assert four.reached is True


def test_describe_lists_the_parts_of_a_process() -> None:
    runs = {
        "transformers bf16": [{"seconds": 50.0, "imports": 5.0, "load": 2.0, "prefill": 10.0, "decode": 33.0}],
        "imports": [{"seconds": 4.0}],
        "bf16": [{"seconds": 15.0, "prefill": 6.0, "decode": 4.0, "prompt_tokens": 113, "new_tokens": 11}],
    }
    rows = describe.make_process_rows(runs, ("bf16",), LIMITS, SHAPE, VNNI)
    process = find(rows, "process start to end, bf16")
    assert process.ratio == pytest.approx(0.3)
    assert process.reached is False
    assert process.limit == SHAPE.answer_seconds(LIMITS, "bf16", 113, 11)
    parts = {row.what: (row.value, row.reference) for row in rows if row.what.startswith("of it")}
    assert parts["of it load, bf16"] == (1.0, 2.0)
    assert sum(value for value, _ in parts.values()) == 15.0


def test_chat_turns_holds_the_second_turn_against_theirs() -> None:
    runs = {
        "transformers bf16": [{"first_seconds": 7.0, "second_seconds": 8.0}],
        "dsvl bf16": [{"first_seconds": 6.0, "second_seconds": 0.2, "prompt_tokens": 113, "second_prompt_tokens": 161}],
    }
    rows = chat_turns.make_rows(runs, ("bf16",), VNNI, LIMITS, SHAPE)
    second = find(rows, "first token, second turn, bf16")
    assert second.limit == SHAPE.turn_seconds(LIMITS, "bf16", 113, 48)
    assert find(rows, "first token, first turn, bf16").limit == SHAPE.prefill_seconds(LIMITS, "bf16", 113)
    assert second.ratio == pytest.approx(0.025)
    assert second.reached is True


def test_memory_counts_the_higher_of_loading_and_answering_beyond_the_imports() -> None:
    answer = {"runs": [run(1.0, 2.0)], "before_bytes": 100, "load_seconds": 0.5}
    assert memory.answering_bytes({**answer, "load_peak_bytes": 70, "answer_peak_bytes": 150}) == 70
    found = {**answer, "load_peak_bytes": 70, "answer_peak_bytes": 100 + 2 * int(SHAPE.weight_bytes("bf16"))}
    row = find(memory.make_rows({"dsvl bf16": [found]}, ("bf16",), SHAPE), "most anonymous memory, bf16")
    assert row.ratio is not None
    assert 1.5 < row.ratio < 2.0  # the cache counts too
    assert row.reached is False


def test_batch_compares_pictures_per_minute() -> None:
    runs = {
        "transformers bf16": [{"pictures": 3, "seconds": 90.0}],
        "dsvl bf16": [{"pictures": 16, "seconds": 120.0, "prompt_tokens": 113}],
    }
    (row,) = batch.make_rows(runs, ("bf16",), LIMITS, SHAPE, 64, VNNI)
    assert row.limit == SHAPE.batch_rate(LIMITS, "bf16", 113, 64, 16)
    assert (row.value, row.reference, row.ratio, row.reached) == (8.0, 2.0, 4.0, True)


def test_context_takes_off_what_reading_the_longer_cache_costs() -> None:
    extra = 1e3 * (SHAPE.cache_bytes("bf16", 8010 - 605)) / LIMITS.bandwidth
    steps = {605: 0.1, 8010: (130 + extra) / 1e3}
    runs = {"dsvl bf16": [{"prompt_tokens": n, "median_step_seconds": step} for n, step in steps.items()]}
    rows = context.make_rows(runs, [600, 8000], LIMITS, SHAPE)
    row = find(rows, "the same behind 8,010")
    assert row.ratio == pytest.approx(1.3)
    assert row.reached is True


def test_prefix_cache_compares_the_second_process_with_the_first() -> None:
    runs = {"first bf16": [{"prompt_seconds": 5.0}], "again bf16": [{"prompt_seconds": 0.25}]}
    (row,) = prefix_cache.make_rows(runs, ("bf16",))
    assert (row.ratio, row.reached) == (0.05, True)


def test_startup_takes_the_import_off_the_first_word() -> None:
    light = {"dsvl --help": [0.2], "dsvl describe --help": [0.2], "dsvl --version": [0.1], "completion of dsvl": [0.1]}
    peers = {"a Typer app of four commands": [0.16], "its completion": [0.1], "bare imports": [3.0, 3.0, 9.0]}
    rows = startup.make_rows({**light, **peers, "first word of tiny": [3.5, 3.5, 9.0]})
    assert find(rows, "dsvl --help").ratio == pytest.approx(1.25)
    beyond = find(rows, "the same beyond that import")
    assert (beyond.value, beyond.reached) == (0.5, True)


def test_everything_gets_the_options_that_it_knows(tmp_path: Path) -> None:
    commands = plan(["startup", "quantize", "decode"], tmp_path / "full", tmp_path / "R.md", ["--rounds", "1"])
    assert commands == [
        ["benchmarks.startup", "--results", str(tmp_path / "R.md")],
        ["benchmarks.quantize", "cost", str(tmp_path / "full"), "--results", str(tmp_path / "R.md")],
        ["benchmarks.quantize", "skills", "--results", str(tmp_path / "R.md")],
        ["benchmarks.decode", str(tmp_path / "full"), "--results", str(tmp_path / "R.md"), "--rounds", "1"],
    ]


def test_prefix_cache_knows_the_flags_of_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "FLAG", "--json")
    assert prefix_cache.has_flag()
    monkeypatch.setattr(prefix_cache, "FLAG", "--no-such-flag")
    assert not prefix_cache.has_flag()
