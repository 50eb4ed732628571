"""What `dsvl doctor` does: the page, its JSON, its status, and what it must not show."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.app.doctor import run_doctor
from dsvl_cli.engine.diagnosis import Finding
from dsvl_cli.engine.machine.detect import Gpu, Machine
from dsvl_cli.errors import DsvlError
from dsvl_cli.settings import ALL_SETTINGS
from dsvl_cli.terminal.console import Console, Environment

SECTIONS = [
    "models", "dsvl", "packages", "computer", "terminal", "environment", "settings", "conversations", "embedded model",
    "hub cache", "cache folder", "choices", "quantization", "products",
]  # fmt: skip
MACHINE = Machine(memory_free=16 * 10**9, cuda=(Gpu("NVIDIA \x1b[31mH200", 140 * 10**9, (9, 0)),))
SECRET = "hf_QQQQQQQQQQQQQQQQ"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a GPU, and empty folders for everything."""
    monkeypatch.setattr("dsvl_cli.engine.diagnosis.find_machine", lambda: MACHINE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("DSVL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Examines this machine; gives the status and what was printed."""

    def run(profile: str | None = None, *, as_json: bool = False, measure: bool = False) -> tuple[int, str]:
        status = run_doctor(Console(Environment.system()), profile, as_json=as_json, measure=measure)
        captured = capsys.readouterr()
        assert captured.err == ""
        return status, captured.out

    return run


Page = Callable[..., tuple[int, str]]


def as_json(page: Page, profile: str | None = None) -> tuple[int, dict[str, Any]]:
    status, out = page(profile, as_json=True)
    assert out.count("\n") == 1
    return status, json.loads(out)


def test_a_sound_machine_has_a_whole_page(page: Page) -> None:
    status, out = page()
    assert status == 0
    titles = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert titles == ["fine: nothing keeps dsvl from working here", *SECTIONS]
    assert max(map(len, out.splitlines())) <= 120
    assert "cuda:0" in out
    assert "\x1b" not in out


def test_json_has_the_same_sections(page: Page) -> None:
    status, found = as_json(page)
    assert status == 0
    assert list(found) == ["verdict", *SECTIONS, "problems"]
    assert found["verdict"] == "fine"
    assert found["problems"] == []
    assert found["choices"]["device"]["value"] == "cuda:0"
    assert found["choices"]["device"]["reason"]
    assert found["terminal"]["terminal"] is False
    assert found["quantization"]["cuda bnb-nf4"]["bfloat16"]["verdict"]
    assert isinstance(found["hub cache"]["disk_free_bytes"], int)


def test_what_is_kept_is_listed(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache" / "prefixes").mkdir(parents=True)
    (tmp_path / "cache" / "prefixes" / "a.safetensors").write_bytes(bytes(2000))
    found = as_json(page)[1]["cache folder"]
    assert found["kept_prompts"] == {"path": str(tmp_path / "cache" / "prefixes"), "bytes": 2000, "files": 1}
    assert found["packed_weights"]["files"] == 0
    assert "delete" in found["to empty it"]


def test_products_are_measured_on_request_and_listed_from_then_on(
    page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DSVL_NATIVE", "0")
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path / "cache"))
    before = as_json(page)[1]["products"]
    assert before["int8 one row"]["reason"] == "not measured yet"
    assert not (tmp_path / "cache").exists()

    monkeypatch.setattr("dsvl_cli.engine.kernels.measured.RENEWAL_SECONDS", 600.0)  # enough on any machine
    status, out = page(as_json=True, measure=True)
    measured = json.loads(out)["products"]
    assert status == 0
    row = measured["int8 one row"]
    assert row["measured"]
    assert row["chosen"] in row["seconds"]
    assert {*row["seconds"], *row["dropped"]} == {"float32", "bfloat16"}

    after = as_json(page)[1]["products"]
    assert after["int8 one row"] == row
    assert Path(after["kept in"]["path"]).is_file()
    lines = [line.split() for line in page()[1].splitlines()]
    assert any(line[:4] == ["int8", "one", "row", f"{row['chosen']}:"] for line in lines)


def test_products_that_cannot_be_kept_are_no_problem(
    page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DSVL_NATIVE", "0")
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("dsvl_cli.engine.diagnosis.describe_cache_folder", Finding)
    status, out = page(measure=True)
    assert status == 0
    assert "(not written: " in " ".join(out.split())


def test_no_connection_is_opened(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert page()[0] == 0


@pytest.mark.parametrize(
    "part",
    ["check_packages", "describe_computer", "check_embedded_model", "describe_hub_cache", "find_machine", "check_disk"],
)
@pytest.mark.parametrize("error", [DsvlError("it is broken", "mend it"), RuntimeError("it is broken")])
def test_a_broken_part_hides_no_other(page: Page, monkeypatch: pytest.MonkeyPatch, part: str, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"dsvl_cli.engine.diagnosis.{part}", fail)
    status, found = as_json(page)
    assert status == 1
    assert list(found) == ["verdict", *SECTIONS, "problems"]
    assert found["verdict"] == "problems"
    assert "it is broken" in found["problems"][0]["message"]
    assert found["quantization"]


def test_a_problem_is_on_the_page_with_its_hint(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Machine:
        raise DsvlError("torch cannot be imported: OSError: no libtorch", "install it anew")

    monkeypatch.setattr("dsvl_cli.engine.diagnosis.find_machine", fail)
    status, out = page()
    assert status == 1
    words = " ".join(out.split("\n\n")[0].split())
    assert words == "1 problem 1 choices: torch cannot be imported: OSError: no libtorch; install it anew"
    assert "cpu bnb-nf4" in out


def test_a_broken_config_is_a_problem_with_its_line(page: Page, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[sampling]\ntop_p = 3\n")
    status, found = as_json(page)
    assert status == 1
    assert f"{tmp_path / 'config.toml'}:2: top_p is 3" in found["problems"][0]["message"]
    assert found["choices"]


def test_every_value_says_where_it_comes_from(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[sampling]\ntop_p = 0.5\ntop_k = 5\nseed = 5\n[profiles.fast]\ntop_k = 6\n")
    (tmp_path / ".dsvl.toml").write_text("[output]\nstats = true\n")
    monkeypatch.setenv("DSVL_SEED", "7")
    status, found = as_json(page, "fast")
    assert status == 0
    settings = found["settings"]
    user = tmp_path / "config.toml"
    assert settings["top_p"] == {"value": 0.5, "from": f"{user}:2"}
    assert settings["top_k"] == {"value": 6, "from": f"{user}:6 (profile fast)"}
    assert settings["seed"] == {"value": "7", "from": "DSVL_SEED in the environment"}
    assert settings["stats"] == {"value": True, "from": ".dsvl.toml:2"}
    assert settings[".dsvl.toml"] == str(tmp_path / ".dsvl.toml")
    assert set(settings) & set(ALL_SETTINGS) == {"top_p", "top_k", "seed", "stats"}


def test_the_models_say_whether_they_are_here_and_would_fit(
    page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dsvl_cli.engine.diagnosis.find_machine", lambda: Machine(memory_free=8 * 10**9))
    (tmp_path / "config.toml").write_text("[aliases]\nwork = 'org/name'\ngone = '/no/such'\n")
    models = as_json(page)[1]["models"]
    assert models["tiny"] == {"here": True, "fits": True, "problem": None}
    assert models["1.3b"] == {"here": False, "fits": True, "problem": None}
    assert models["7b"] == {"here": False, "fits": False, "problem": None}
    assert models["work"] == {"here": False, "fits": None, "problem": None}
    assert "/no/such" in models["gone"]["problem"]
    lines = page()[1].split("\nmodels\n")[1].splitlines()
    told = " ".join(" ".join(lines[: lines.index("")]).split())
    assert "7b deepseek-community/deepseek-vl-7b-chat: not on this machine, 14.7 GB to download; does not fit" in told
    assert "fits with --quantization 4bit" not in told


def test_settings_of_single_commands_are_listed_with_them(page: Page, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("top_k = 5\n[chat]\ntop_k = 6\n")
    settings = as_json(page)[1]["settings"]
    assert settings["top_k"]["value"] == 5
    assert settings["chat: top_k"] == {"value": 6, "from": f"{tmp_path / 'config.toml'}:3"}
    assert "describe: top_k" not in settings


def test_a_profile_that_is_not_there_is_a_problem(page: Page) -> None:
    status, found = as_json(page, "fats")
    assert status == 1
    assert "fats" in found["problems"][0]["message"]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("DSVL_DTYPE", "float8", False),
        ("DSVL_DTYPE", "float16", True),
        ("DSVL_TOP_P", "much", False),
        ("DSVL_TOP_P", "0.5", True),
        ("DSVL_MAX_NEW_TOKENS", "0", False),
        ("DSVL_OFFLINE", "perhaps", False),
        ("DSVL_OFFLINE", "1", True),
    ],
)
def test_a_variable_that_no_command_takes_is_a_problem(
    page: Page, monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: bool
) -> None:
    monkeypatch.setenv(name, value)
    status, found = as_json(page)
    assert (status == 0) == right
    assert all(name in problem["message"] for problem in found["problems"])


def test_an_unknown_variable_names_the_nearest(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSVL_TEMPRATURE", "1")
    status, out = page()
    assert status == 0
    assert "did you mean DSVL_TEMPERATURE?" in out


@pytest.mark.parametrize("json_lines", [False, True])
def test_no_secret_is_shown(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, json_lines: bool) -> None:
    secret = "correct-horse-battery"
    for name, value in {
        "HF_TOKEN": secret,
        "HUGGING_FACE_HUB_TOKEN": SECRET,
        "HF_ENDPOINT": f"https://me:{secret}@hub.example",
        "https_proxy": "http://me:swordfish@proxy:3128",
        "DSVL_SYSTEM": "x" * 290 + secret,
        "DSVL_TEMPERATURE": secret,
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "config.toml").write_text(f"[prompts]\nprompt = 'use {SECRET}'\n[sampling]\nseed = '{secret}'\n")
    status, out = page(as_json=json_lines)
    assert status == 1
    assert "HF_TOKEN" in out
    assert "hub.example" in out
    for part in (secret, secret[:10], SECRET, SECRET[:11], "swordfish"):
        assert part not in out


def test_what_is_foreign_moves_no_cursor(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/x\n\x1b]0;title\x07")
    _, out = page()
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "␛]0;title" in out
    assert as_json(page)[1]["environment"]["HF_HOME"] == "/x\n\x1b]0;title\x07"
