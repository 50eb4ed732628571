import argparse
import sys
from pathlib import Path

import pytest

from benchmarks.setup import Setup, add_options, parse_figures, read_figures, step_seconds


def parse(*arguments: str) -> Setup:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return Setup.from_arguments(parser.parse_args(["tiny", *arguments]))


def test_a_format_that_dsvl_lacks_is_skipped_with_a_word() -> None:
    setup = parse("--formats", "bf16", "int3", "bnb-int8")
    assert setup.formats == ("bf16", "bnb-int8")
    assert [line for line in setup.skipped if "int3" in line]


def test_nothing_but_unknown_formats_is_refused() -> None:
    with pytest.raises(SystemExit, match="int3"):
        parse("--formats", "int3")


@pytest.mark.parametrize(("peer", "name"), [("llama", "llama.cpp"), ("openvino", "OpenVINO")])
def test_a_peer_needs_an_interpreter_and_a_folder(
    peer: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(f"DSVL_{peer.upper()}_PYTHON", raising=False)
    without = parse(f"--{peer}-models", str(tmp_path))
    assert getattr(without, peer) is None
    assert any(f"{name} is skipped" in line for line in without.skipped)
    monkeypatch.setenv(f"DSVL_{peer.upper()}_PYTHON", "/other/python")
    found = parse(f"--{peer}-models", str(tmp_path), "--formats", "bf16")
    assert getattr(found, peer).python == "/other/python"
    assert (Path("benchmarks/workers") / f"{getattr(found, peer).worker}.py").is_file()
    assert not any(f"{name} is skipped" in line for line in found.skipped)


def test_figures_are_read_from_among_chatter() -> None:
    assert parse_figures('warning\n{"load_seconds": 2}\ndone\n') == {"load_seconds": 2}
    with pytest.raises(SystemExit, match="no figures"):
        parse_figures("warning\n")


def test_a_worker_that_fails_says_why() -> None:
    with pytest.raises(SystemExit, match="no such model"):
        read_figures([sys.executable, "-c", "raise SystemExit('no such model')"], quiet=True)


def test_a_step_is_the_mean_of_those_after_the_first_token() -> None:
    assert step_seconds({"first_seconds": 3.0, "seconds": 5.0, "new_tokens": 5}) == 0.5
