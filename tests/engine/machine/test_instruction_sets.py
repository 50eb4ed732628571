"""What systems print about their CPUs."""

from __future__ import annotations

from pathlib import Path

from dsvl_cli.engine.machine.instruction_sets import detect_instruction_sets, parse_cpuinfo, parse_sysctl


def test_linux_lists_flags_or_features() -> None:
    assert parse_cpuinfo("model name\t: avx9\nflags\t\t: fpu avx2 fma\n\nflags\t\t: fpu avx2 fma\n") == {
        "fpu",
        "avx2",
        "fma",
    }
    assert parse_cpuinfo("CPU part\t: 0xd0c\nFeatures\t: fp asimd asimddp\n") == {"fp", "asimd", "asimddp"}
    assert parse_cpuinfo("") == set()


def test_apple_says_yes_and_no() -> None:
    text = (
        "hw.optional.arm.AdvSIMD: 1\nhw.optional.arm.FEAT_DotProd: 1\n"
        "hw.optional.arm.FEAT_FP16: 1\nhw.optional.arm.FEAT_I8MM: 0\n"
    )
    assert parse_sysctl(text) == {"asimd", "asimddp", "asimdhp", "fphp"}
    assert "i8mm" in parse_sysctl(text.replace("I8MM: 0", "I8MM: 1"))
    assert parse_sysctl("second level name 'arm' in 'hw.optional.arm' is invalid\n") == set()


def test_a_system_that_reports_nothing_has_nothing(tmp_path: Path) -> None:
    assert detect_instruction_sets(tmp_path / "missing") == set()
