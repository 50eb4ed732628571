"""What README.md and the pages of docs/ show is what happens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dsvl_cli.engine.options import DEVICE_KINDS
from dsvl_cli.engine.quantization.formats import FORMATS, group_dtypes
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import ExitStatus
from dsvl_cli.settings import SETTINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")


def console_sessions() -> list[tuple[str, str]]:
    """Every command of the console blocks with the output that is shown under it."""
    blocks = re.findall(r"```console\n(.*?)```", "\n".join((README, *DOCS.values())), re.DOTALL)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for a Unix shell")
@pytest.mark.parametrize(("command", "output"), console_sessions(), ids=[command for command, _ in console_sessions()])
def test_a_command_prints_what_stands_under_it(command: str, output: str, tmp_path: Path) -> None:
    if "| jq " in command and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    # The console script may be installed elsewhere: this one runs the sources with this interpreter.
    script = tmp_path / "dsvl"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dsvl_cli "$@"\n')
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.stdout == output


def test_there_are_sessions_to_check() -> None:
    assert len(console_sessions()) >= 5


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    assert "red" in capsys.readouterr().out.lower()
    assert len([line for line in code.splitlines() if line]) <= 12
    assert code in DOCS["python.md"]


TEXT = {
    "1.3b": {"hidden": 2048, "layers": 24, "intermediate": 5632},
    "7b": {"hidden": 4096, "layers": 30, "intermediate": 11008},
}


@pytest.mark.parametrize("name", ["1.3b", "7b"])
def test_the_table_of_models_follows_from_their_shapes(name: str) -> None:
    """Cache: keys and values of 4,096 tokens in two bytes; weights: within 5 % of what the two towers add."""
    shape = TEXT[name]
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}`")]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[5] == format_bytes(2 * shape["layers"] * shape["hidden"] * 4096 * 2)
    hidden = shape["hidden"]
    layer = 4 * hidden**2 + 3 * hidden * shape["intermediate"]
    language = shape["layers"] * layer + 2 * 102400 * hidden
    vision = 24 * (4 * 1024**2 + 2 * 1024 * 4096)
    assert parse(cells[3]) == pytest.approx(2 * (language + vision), rel=0.05)
    assert parse(cells[4]) == pytest.approx(2 * parse(cells[3]), rel=0.02)


def parse(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"MB": 1e6, "GB": 1e9}[unit]


def test_the_table_of_formats_is_that_of_the_code() -> None:
    rows = ["| format | CPU | CUDA | Apple (mps) | Intel (xpu) |", "|---|---|---|---|---|"]
    for name in FORMATS:
        cells = []
        for kind in DEVICE_KINDS:
            groups = group_dtypes(name, kind)
            texts = [
                str(cell.verdict) if len(groups) == 1 else f"{', '.join(dtypes)}: {cell.verdict}"
                for cell, dtypes in groups.items()
            ]
            cells.append("; ".join(sorted(texts)))
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    assert "\n".join(rows) in DOCS["quantization.md"], "\n".join(rows)
    assert all(f"| `{name}` | {found.bits} |" in DOCS["quantization.md"] for name, found in FORMATS.items())


@pytest.mark.parametrize(
    ("figure", "digits", "row", "column"),
    [
        ("process start to first word of tiny", 1, "tiny", 6),
        ("first token, bf16", 1, "1.3b", 6),
        ("decode step, bf16", 2, "1.3b", 7),
    ],
)
def test_the_seconds_are_those_that_were_measured(figure: str, digits: int, row: str, column: int) -> None:
    found = re.search(rf"^\| {re.escape(figure)} +\| ([\d.]+) (m?s) ", RESULTS, re.MULTILINE)
    assert found is not None
    seconds = float(found[1]) / (1000 if found[2] == "ms" else 1)
    (line,) = [line for line in README.splitlines() if line.startswith(f"| `{row}`")]
    assert line.split("|")[column].strip().startswith(f"{seconds:.{digits}f} s")


def test_the_page_about_settings_names_every_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS["settings.md"], re.DOTALL)
    shown = re.findall(r"^\[(\w+)\] +# (.*(?:\n\w+ = .*# .*)?)", example, re.MULTILINE)
    tables = {table: set(re.findall(r"\w+", re.sub(r"\n.*#", "", text))) for table, text in shown if table in SETTINGS}
    assert tables == {table: set(settings) for table, settings in SETTINGS.items()}


def test_the_table_of_exit_statuses_is_complete() -> None:
    table = README.split("## Exit status")[1].split("##")[0]
    shown = {
        int(number) for cells in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for number in cells.split(",")
    }
    assert shown == {status.value for status in ExitStatus}


def test_every_folder_of_the_code_is_explained() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "dsvl_cli").rglob("__init__.py")}
    top = {"training", "benchmarks", "completions", "docs", "examples", "requirements", ".ci"}
    explained = set(re.findall(r"`([\w./]+)/`", page.split("## Where is what")[1].split("## Rules")[0]))
    assert (folders - {"dsvl_cli"}) | top <= explained
    for name in explained - {"commands", "app"}:  # short for two of dsvl_cli
        assert (ROOT / name).is_dir(), name


def test_the_recorded_session_is_a_picture_of_dsvl() -> None:
    text = "".join(ElementTree.parse(ROOT / "docs" / "session.svg").getroot().itertext()).replace("\xa0", " ")
    assert "$ dsvl describe examples/three-shapes.png --model tiny" in text
    assert "$ dsvl chat examples/two-shapes.jpg" in text
    assert "> What is on the right?" in text


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
