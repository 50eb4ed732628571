import json
from pathlib import Path

import pytest

from benchmarks.cpu import name_kind
from benchmarks.results import Goal, Result, Row, publish, replace_section


def test_at_most_bounds_our_time_over_theirs() -> None:
    row = Row("a", 2.0, "s", "peer", 8.0, Goal("at most", 0.3))
    assert row.ratio == 0.25
    assert row.reached is True
    assert Row("a", 4.0, "s", "peer", 8.0, Goal("at most", 0.3)).reached is False


def test_at_least_counts_how_many_times_as_fast_a_time_is() -> None:
    row = Row("a", 100.0, "ms", "peer", 250.0, Goal("at least", 2.5))
    assert row.ratio == 2.5
    assert row.reached is True
    assert Row("a", 101.0, "ms", "peer", 250.0, Goal("at least", 2.5)).reached is False


def test_at_least_divides_a_rate_by_theirs() -> None:
    row = Row("a", 6.0, "/min", "peer", 2.0, Goal("at least", 3.0))
    assert row.ratio == 3.0
    assert row.reached is True


def test_under_bounds_the_value_alone() -> None:
    assert Row("a", 0.9, "s", goal=Goal("under", 1.0)).reached is True
    assert Row("a", 1.0, "s", goal=Goal("under", 1.0)).reached is False


@pytest.mark.parametrize(
    "row", [Row("a", 1.0, "s", "peer", 2.0), Row("a", 1.0, "s", "peer", None, Goal("at most", 1.0))]
)
def test_without_goal_or_peer_nothing_is_said_to_be_reached(row: Row) -> None:
    assert row.reached is None
    assert row.cells()[6] == ""


def test_the_table_has_a_line_for_each_row_and_lines_up() -> None:
    table = Result("decode", "Decode", [Row("a step", 80.04, "ms", "peer", 160.0, Goal("at least", 1.0), 40.0)]).table()
    lines = table.splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["a step", "80.0 ms", "peer", "160.0 ms", "2.00", "at least 1", "yes", "40.0 ms"]


def test_a_goal_is_shown_with_all_its_digits() -> None:
    assert Row("a", 1.0, "s", "peer", 2.0, Goal("at least", 1.05)).cells()[5] == "at least 1.05"


def test_a_section_replaces_its_own_and_leaves_the_rest() -> None:
    text = replace_section("# Results\n\n## Quantizing\n\nby hand \\1\n", "decode", "AVX2", "old")
    text = replace_section(text, "batch", "AVX2", "many")
    changed = replace_section(text, "decode", "AVX2", "new \\1 figures")
    assert "old" not in changed
    assert changed == text.replace("old", "new \\1 figures")
    assert "by hand \\1" in changed
    assert changed.index("new") < changed.index("many")


def test_two_kinds_of_cpu_stand_side_by_side() -> None:
    text = replace_section("# Results\n", "decode", "AVX-512", "wide")
    text = replace_section(text, "batch", "AVX-512", "many")
    text = replace_section(text, "decode", "AVX-512 VNNI", "wider")
    text = replace_section(text, "decode", "AVX2", "narrow")
    positions = [text.index(word) for word in ("wide\n", "wider\n", "narrow\n", "many\n")]
    assert positions == sorted(positions)
    for kind, word in (("AVX-512", "wide\n"), ("AVX-512 VNNI", "wider\n"), ("AVX2", "narrow\n")):
        assert replace_section(text, "decode", kind, "new") == text.replace(f"\n{word}", "\nnew\n")


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        ({"avx2", "fma"}, "AVX2"),
        ({"avx2", "avx_vnni"}, "AVX-VNNI"),
        ({"avx2", "avx512f"}, "AVX-512"),
        ({"avx2", "avx512f", "avx512_vnni"}, "AVX-512 VNNI"),
        ({"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16"}, "AVX-512 VNNI BF16"),
        ({"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8"}, "AMX"),
        ({"asimd", "asimddp"}, "Arm DotProd"),
        ({"asimd", "asimddp", "i8mm", "bf16"}, "Arm I8MM"),
        (set(), "other"),
    ],
)
def test_the_best_instructions_name_the_kind_of_cpu(features: set[str], kind: str) -> None:
    assert name_kind(features) == kind


def test_publish_prints_and_writes_the_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "RESULTS.md"
    result = Result("decode", "Decode", [Row("a step", 1.5, "ms")], ["a note"], {"runs": [1, 2]})
    for kind in ("AVX2", "AMX"):
        monkeypatch.setattr("benchmarks.results.detect_kind", lambda kind=kind: kind)
        publish(result, path)
    *_, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["benchmark"] == "decode"
    assert found["cpu"] == "AMX"
    assert found["rows"][0]["value"] == 1.5
    assert found["raw"] == {"runs": [1, 2]}
    text = path.read_text()
    assert text.startswith("# Results")
    for kind in ("AVX2", "AMX"):
        assert text.count(f"<!-- decode, {kind}: begin -->") == text.count(f"<!-- decode, {kind}: end -->") == 1
        assert f"({kind}), " in text
    assert "- a note" in text
    assert "torch " in text
