"""Settings from files: what is right, what is refused and in which words, and which of several values counts."""

from __future__ import annotations

import json
import os
import re
import tomllib
import typing
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli import config
from dsvl_cli.cli import app
from dsvl_cli.commands import options
from dsvl_cli.config import read_config
from dsvl_cli.engine import options as engine_options
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.errors import DsvlError, ExitStatus, UsageError
from dsvl_cli.settings import ALL_SETTINGS, SETTINGS
from tests.platforms import pretend
from tests.test_imports import loaded_by

LOADING = list(SETTINGS["loading"])


class Files:
    """A user's configuration folder and a folder of pictures."""

    def __init__(self, root: Path) -> None:
        self.user = root / "config"
        self.pictures = root / "pictures"
        self.user.mkdir()
        self.pictures.mkdir()

    def write(self, user: str | None = None, folder: str | None = None) -> None:
        if user is not None:
            (self.user / "config.toml").write_text(user, encoding="utf-8", newline="")
        if folder is not None:
            (self.pictures / ".dsvl.toml").write_text(folder, encoding="utf-8", newline="")

    def read(self, profile: str | None = None, command: str | None = None) -> config.Config:
        return read_config({"DSVL_CONFIG_DIR": str(self.user)}, profile, self.pictures, command)

    def fail(self, profile: str | None = None) -> DsvlError:
        with pytest.raises(DsvlError) as caught:
            self.read(profile)
        assert "\n" not in caught.value.message
        return caught.value


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def values(found: config.Config) -> dict[str, Any]:
    return {name: value.value for name, value in found.values.items()}


def test_without_files_nothing_is_set(files: Files) -> None:
    assert files.read() == config.Config()


def test_the_example_of_the_module_is_right(files: Files) -> None:
    lines = (config.__doc__ or "").splitlines()
    files.write("\n".join(line.strip() for line in lines if line.startswith("    ")))
    found = files.read("fast")
    assert values(found) == {"model": "tiny", "temperature": 0.2, "max_new_tokens": 64}
    assert found.resolve_model("Work") == "~/models/deepseek-vl-7b"


def test_the_module_names_every_setting() -> None:
    words = set((config.__doc__ or "").replace(",", " ").split())
    assert set(ALL_SETTINGS) <= words


@pytest.mark.parametrize("layers", range(1, 8))
def test_the_strongest_layer_counts_and_says_where_it_stands(files: Files, layers: int) -> None:
    user = "[sampling]\ntop_k = 1\n" if layers & 1 else ""
    user += "[profiles.fast]\ntop_k = 2\n" if layers & 2 else "[profiles.fast]\n"
    files.write(user, "[sampling]\n# mine\ntop_k = 3\n" if layers & 4 else None)
    found = files.read("fast").values["top_k"]
    strongest = layers.bit_length()
    assert found.value == strongest
    path = files.pictures / ".dsvl.toml" if strongest == 3 else files.user / "config.toml"
    assert found.place.startswith(f"{path}:")
    line = path.read_text().splitlines().index(f"top_k = {strongest}") + 1
    assert found.place.removeprefix(f"{path}:").split(" ")[0] == str(line)
    assert found.place.endswith("(profile fast)") == (strongest == 2)


def test_a_profile_counts_only_where_it_is_asked_for(files: Files) -> None:
    files.write("[profiles.fast]\nseed = 7\n[profiles.slow]\nseed = 8\n")
    assert values(files.read()) == {}
    assert values(files.read("slow")) == {"seed": 8}
    assert files.read().profiles == ("fast", "slow")


@pytest.mark.parametrize(
    ("user", "profile", "hint"),
    [("[profiles.fast]\n", "fsat", "fast"), ("[profiles.fast]\n", "nothing", "fast"), (None, "fast", "config.toml")],
)
def test_a_profile_that_is_not_there_is_a_usage_error(files: Files, user: str | None, profile: str, hint: str) -> None:
    files.write(user)
    error = files.fail(profile)
    assert isinstance(error, UsageError)
    assert profile in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("[sampling]\ntempersture = 1", 2, "tempersture", "did you mean temperature?"),
        ("\n[samplign]\ntop_k = 1", 2, "[samplign]", "did you mean sampling?"),
        ("# x\ntop_q = 1", 2, "there is no setting top_q", "did you mean top_"),
        ("xyzzy = 1", 1, "there is no setting xyzzy", "dsvl config example"),
        ("[xyzzy]", 1, "there is no table [xyzzy]", "dsvl config example"),
        ("top_k = 1\n[sampling]\ntop_k = 2", 3, "set twice, here and in line 1", "remove one"),
        ("[chat]\nquiet = 1", 2, "quiet is 1", None),
        ("[describe]\noverflow = 'error'", 2, "no setting overflow in [describe]", "belongs in [chat]"),
        ("[chat.sampling]\ntop_k = 1", 1, "no setting sampling in [chat]", "right below"),
        ("[output]\ntop_k = 1", 2, "no setting top_k in [output]", "belongs in [sampling]"),
        ("[sampling]\nmax-new-tokens = 1", 2, "max-new-tokens", "max_new_tokens"),
        ("[loading]\ndtype = 'bf16'", 2, 'dtype is "bf16"', "bfloat16"),
        ("[loading]\ndevice = 'gpu'", 2, "cuda:N", None),
        ("[loading]\ndevice = 'cudo'", 2, "cuda:N", '"cuda"'),
        ("[loading]\noffline = 'True'", 2, "true or false", "offline = true"),
        ("[loading]\noffline = 1", 2, "true or false", None),
        ("[loading]\nthreads = true", 2, "whole number", None),
        ("[loading]\nthreads = 0", 2, "between 1 and the number of CPUs", "threads = 1"),
        ("[loading]\ngroup_size = 100", 2, "128", "group_size = 128"),
        ("[loading]\nmodel = ''", 2, "not empty", None),
        ("[sampling]\ntop_p = 3", 2, "above 0 and at most 1", "top_p = 1"),
        ("[sampling]\ntemperature = '0.5'", 2, "a number", "temperature = 0.5"),
        ("[sampling]\ntemperature = nan", 2, "between 0 and 100", None),
        ("[sampling]\nstop = ['a', 1]", 2, "list of texts", None),
        ("[sampling]\nseed = -1", 2, "2^63", "seed = 0"),
        ("sampling = 3", 1, "must be a table", "[sampling]"),
        ("[profiles]\nfast = 3", 2, "must be a table", "[profiles.fast]"),
        ("profiles = 3", 1, "must be a table", "[profiles]"),
        ("aliases = 3", 1, "must be a table", "[aliases]"),
        ("[profiles.fast]\ntop_k = 1\n[profiles.fast.sampling]\ntop_k = 1", 4, "set twice", None),
        ("[profiles.fast.output]\ntop_k = 1", 2, "top_k in [profiles.fast.output]", "in [profiles.fast.sampling]"),
        ("[profiles.fast.xyzzy]", 1, "there is no table [profiles.fast.xyzzy]", "dsvl config example"),
        ("[profiles.fast.profiles]", 1, "there is no table [profiles.fast.profiles]", None),
        ("[profiles.fast]\n\ntop_k = -1", 3, "at least 0", "top_k = 0"),
        ("[aliases]\nwork = './here'", 2, "full path", None),
        ("[aliases]\n1.3b = 'a/b'", 2, "alias 1", "quotes"),
        ("[chat]\noverflow = 'drop'", 2, "drop-oldest", None),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_the_nearest(
    files: Files, text: str, line: int, message: str, hint: str | None
) -> None:
    files.write(text)
    error = files.fail()
    assert isinstance(error, UsageError)
    assert error.message.startswith(f"{files.user / 'config.toml'}:{line}: ")
    assert message in error.message
    assert hint is None or hint in (error.hint or "")


PLACES = ["", "[{0}]\n", "[describe]\n", "[profiles.p]\n", "[profiles.p.{0}]\n", "[profiles.p.describe]\n"]


@pytest.mark.parametrize("name", [name for name in ALL_SETTINGS if name not in SETTINGS["chat"]])
@pytest.mark.parametrize("place", PLACES)
def test_a_setting_may_be_at_the_top_in_a_table_or_in_a_commands_own(files: Files, name: str, place: str) -> None:
    table = next(table for table in SETTINGS if name in SETTINGS[table])
    value = find_right_value(name)
    files.write(f"{place.format(table)}{name} = {json.dumps(value)}\n")
    profile = "p" if "profiles" in place else None
    counts_for = {command: files.read(profile, command).values for command in (None, "describe", "chat", "batch")}
    for command, found in counts_for.items():
        assert (name in found) == ("describe" not in place or command == "describe")
    assert counts_for["describe"][name].value == value


@pytest.mark.parametrize(
    "text",
    [
        "top_k = 1\n[describe]\ntop_k = 2",
        "[sampling]\ntop_k = 1\n[describe]\ntop_k = 2",
        "[describe]\ntop_k = 1\n[profiles.p]\ntop_k = 2",
        "[profiles.p]\ntop_k = 1\n[profiles.p.describe]\ntop_k = 2",
    ],
)
def test_a_commands_own_table_counts_before_the_others_and_a_profile_before_all(files: Files, text: str) -> None:
    files.write(f"{text}\n" + ("" if "profiles" in text else "[profiles.p]\n"))
    assert files.read("p", "describe").values["top_k"].value == 2
    files.write(folder="top_k = 3")
    assert files.read("p", "describe").values["top_k"].value == 3
    files.write(folder="top_k = 3\n[describe]\ntop_k = 4")
    assert files.read("p", "describe").values["top_k"].value == 4


@pytest.mark.parametrize("name", ALL_SETTINGS)
@pytest.mark.parametrize("place", ["", "[profiles.p]\n"])
@pytest.mark.parametrize("table", [*SETTINGS, "describe"])
def test_a_hint_shows_a_form_that_is_taken(files: Files, name: str, place: str, table: str) -> None:
    prefix = "profiles.p." if place else ""
    line = f"{name} = {json.dumps(find_right_value(name))}\n"
    files.write(f"{place}[{prefix}{table}]\n{line}")
    refused = None
    try:
        files.read()
    except UsageError as error:
        refused = error
    if refused is not None:
        header = re.search(r"belongs in (\[[\w.]+\])$", refused.hint or "")
        assert header, refused.hint
        files.write(f"{place}{header[1]}\n{line}")
        files.read()


def find_right_value(name: str) -> Any:
    setting = ALL_SETTINGS[name]
    if setting.offered:
        return setting.offered[-1]
    return {bool: True, str: "text", list: ["text"], int: 1, float: 1}[setting.kind]


# What may stand before a key, in any order: lookalikes of it.
PIECES = [
    "# top_k = 5",
    "",
    "[output]  # top_k",
    "[prompts]\nsystem = '''\n[sampling]\ntop_k = 5\n'''",
    "[profiles.a]\ntop_k = 5",
    '[profiles.b]\nstop = [\n  "top_k = 5",\n  "x",\n]',
    '[profiles.c]\nprompt = "top_k = 5"',
]


@given(
    pieces=st.permutations(PIECES),
    newline=st.sampled_from(["\n", "\r\n"]),
    written=st.sampled_from(["'top_k'", "top_k"]),
)
def test_the_line_is_that_of_the_key_whatever_stands_before(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], newline: str, written: str
) -> None:
    lines = "\n".join(pieces).split("\n")
    text = newline.join([*lines, "[sampling]", f"{written} = -1", "# top_k = 1", "top_p = 0.5"])
    files = Files(tmp_path_factory.mktemp("files"))
    files.write(text)
    assert files.fail().message.startswith(f"{files.user / 'config.toml'}:{len(lines) + 2}: top_k is -1;")


@pytest.mark.parametrize(
    "text", ["sampling.top_k = -1", "sampling = { seed = 1, top_k = -1 }", "[sampling]\r\ntop_k = -1"]
)
def test_every_way_to_write_a_key_has_its_line(files: Files, text: str) -> None:
    files.write("# one\n\n" + text)
    assert f":{3 + text.count(chr(10))}: top_k" in files.fail().message


@pytest.mark.parametrize("name", LOADING)
@pytest.mark.parametrize(
    "form", ["{}", "[sampling]\n{}", "[output]\n{}", "[loading]\n{}", "[profiles.x]\n{}", "[describe]\n{}"]
)
def test_a_folder_chooses_neither_the_model_nor_the_code(files: Files, name: str, form: str) -> None:
    files.write(folder=form.format(f"{name} = 'auto'"))
    error = files.fail()
    assert error.message.startswith(f"{files.pictures / '.dsvl.toml'}:")
    assert "must not choose the model" in error.message


@pytest.mark.parametrize(
    "text", ["[aliases]\n'1.3b' = '/evil'", "[chat]\nno_save = true", "no_save = true", "loading = 1"]
)
def test_a_folder_has_no_aliases_and_no_chat(files: Files, text: str) -> None:
    files.write(folder=text)
    assert "must not be set here" in files.fail().message


def test_a_folder_sets_prompts_sampling_and_output(files: Files) -> None:
    files.write(folder="[prompts]\nprompt = 'What?'\nsystem = ''\n[sampling]\nseed = 1\n[output]\nquiet = true")
    assert values(files.read()) == {"prompt": "What?", "system": "", "seed": 1, "quiet": True}


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"[sampling]\ntop_k = = 1", ":2:9: "),
        (b"[sampling]\ntop_k = ", ":2: not TOML"),
        (b"[sampling]\n# \xff\n", ":2:3: not UTF-8"),
        (b"x = 1\nx = 2", ":2:"),
        (b"x = " + b"[" * 5000, "nested"),
        (b"x = " + b"9" * 9000, "not TOML"),
        (b"#" * 30_000, "20,000 bytes"),
        (b"[sampling]\x00", ":1:11: "),
    ],
)
def test_a_broken_file_is_told_with_its_place(files: Files, data: bytes, place: str) -> None:
    (files.user / "config.toml").write_bytes(data)
    error = files.fail()
    assert str(files.user / "config.toml") in error.message
    assert place in error.message
    if "UTF-8" in place:
        assert error.status == ExitStatus.USAGE  # as for any other wrong setting


def test_a_byte_order_mark_is_no_part_of_a_file(files: Files) -> None:
    (files.user / "config.toml").write_bytes(b"\xef\xbb\xbf[sampling]\r\nseed = 3\r\n")
    assert values(files.read()) == {"seed": 3}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_what_is_no_file_is_not_opened(files: Files) -> None:
    os.mkfifo(files.pictures / ".dsvl.toml")  # opening it would wait for ever
    (files.user / "config.toml").mkdir()
    assert files.read() == config.Config()


@given(data=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_a_config_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    files = Files(tmp_path_factory.mktemp("files"))
    (files.user / "config.toml").write_bytes(data)
    with suppress(DsvlError):  # and nothing else
        assert set(values(files.read())) <= set(ALL_SETTINGS)


NUMBERS = st.sampled_from([0, -1, 1, 2, 1e-9, 0.5, 1.5, 100, 100.5, float("nan"), float("inf"), 2**63 - 1, 2**63])
SAMPLED = [name for name in SETTINGS["sampling"] if name not in ("stop", "samples")]


@given(name=st.sampled_from(SAMPLED), value=NUMBERS | st.floats() | st.integers())
def test_bounds_are_those_of_the_engine(name: str, value: float) -> None:
    setting = ALL_SETTINGS[name]
    if type(value) is float and setting.kind is int:
        assert not setting.accepts(value)
        return
    arguments: dict[str, Any] = {name: value}
    try:
        SamplingParams(**arguments)
        right = True
    except UsageError:
        right = False
    assert setting.accepts(value) == right
    near = setting.nearest(value)
    assert near is None or setting.accepts(near)


@pytest.mark.parametrize(
    ("name", "literal"),
    [
        ("dtype", engine_options.Dtype),
        ("attn_implementation", engine_options.Attention),
        ("quantization", engine_options.Quantization),
    ],
)
def test_choices_are_those_of_the_engine(name: str, literal: Any) -> None:
    assert ALL_SETTINGS[name].offered == typing.get_args(literal)


def commands() -> Iterator[Any]:
    return iter(typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ALL_SETTINGS)
def test_every_setting_is_an_option_with_a_variable(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    found = [param for command in commands() for param in command.params if flag in param.opts]
    if name == "prompt":
        # A chat's is one question, not a setting: nothing in a file or the environment may ask it.
        (question,) = [param for param in found if param.name == "question"]
        assert question.envvar is None
        found.remove(question)
    assert found
    for param in found:
        assert param.name == name
        assert param.envvar == f"DSVL_{name.upper()}" or name == "stop"


def test_every_option_with_a_variable_is_a_setting() -> None:
    found = {param.name for command in commands() for param in command.params if getattr(param, "envvar", None)}
    assert found - {"profile"} <= set(ALL_SETTINGS)


def test_every_command_with_a_model_option_has_profiles() -> None:
    for command in commands():
        flags = {flag for param in command.params for flag in param.opts}
        assert "--profile" in flags or "--model" not in flags, command.name


def parse(monkeypatch: pytest.MonkeyPatch, files: Files, *arguments: str) -> dict[str, Any]:
    """Run a command line of a small command as in the folder of pictures; returns what the command got."""
    got: dict[str, Any] = {}
    small = typer.Typer()

    @small.command()
    def run(
        ctx: typer.Context,
        model: options.Model = "1.3b",
        temperature: options.Temperature = 0.0,
        top_k: options.TopK = 0,
        stop: options.Stop = None,
        offline: options.Offline = False,
        profile: options.Profile = None,
    ) -> None:
        got.update(ctx.params)

    monkeypatch.setenv("DSVL_CONFIG_DIR", str(files.user))
    monkeypatch.chdir(files.pictures)
    typer.main.get_command(small).main(args=list(arguments), standalone_mode=False)
    return got


@pytest.mark.parametrize("layers", range(32))
def test_option_before_environment_before_files_before_default(
    files: Files, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    user = "[sampling]\ntop_k = 1\n" if layers & 1 else ""
    user += "[profiles.p]\n" + ("top_k = 2\n" if layers & 2 else "")
    files.write(user, "[sampling]\ntop_k = 3\n" if layers & 4 else None)
    if layers & 8:
        monkeypatch.setenv("DSVL_TOP_K", "4")
    arguments = ["--top-k", "5"] if layers & 16 else []
    # The place of --profile makes no difference.
    assert parse(monkeypatch, files, *arguments, "--profile", "p")["top_k"] == layers.bit_length()
    assert parse(monkeypatch, files, "--profile", "p", *arguments)["top_k"] == layers.bit_length()
    monkeypatch.setenv("DSVL_PROFILE", "p")
    assert parse(monkeypatch, files, *arguments)["top_k"] == layers.bit_length()


def test_values_of_every_type_arrive(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("[sampling]\ntemperature = 1\nstop = ['a', 'b']\n[loading]\noffline = true\n[output]\nquiet = true\n")
    got = parse(monkeypatch, files)
    assert got["temperature"] == 1.0
    assert got["stop"] == ["a", "b"]
    assert got["offline"] is True
    monkeypatch.setenv("DSVL_OFFLINE", "0")
    assert parse(monkeypatch, files)["offline"] is False


@pytest.mark.parametrize("way", ["option", "environment", "file", "profile"])
def test_an_alias_stands_for_a_model_wherever_it_is_named(
    files: Files, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    files.write(
        "[aliases]\nwork = '/data/model'\n"
        + ("[loading]\nmodel = 'work'\n" if way == "file" else "")
        + ("[profiles.p]\nmodel = 'work'\n" if way == "profile" else "[profiles.p]\n")
    )
    if way == "environment":
        monkeypatch.setenv("DSVL_MODEL", "WORK")
    arguments = ["--model", "work"] if way == "option" else []
    assert parse(monkeypatch, files, *arguments, "--profile", "p")["model"] == "/data/model"


def test_other_models_stay_as_they_are(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("[aliases]\nwork = '/data/model'\n")
    assert parse(monkeypatch, files, "-m", "tiny")["model"] == "tiny"


def test_help_and_completion_need_no_right_file(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("broken")
    parse(monkeypatch, files, "--help")
    assert options.complete_profile("") == []
    assert ("tiny", "the model embedded in dsvl") in list(options.complete_model("t"))
    with pytest.raises(DsvlError):
        parse(monkeypatch, files)


def test_completion_offers_profiles_and_aliases(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("[profiles.fast]\n[profiles.slow]\n[aliases]\ntiniest = 'a/b'\n")
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(files.user))
    assert options.complete_profile("f") == ["fast"]
    assert [name for name, _ in options.complete_model("tin")] == ["tiniest", "tiny"]


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "/home/x/.config/dsvl"),
        ("darwin", {}, "/home/x/Library/Application Support/dsvl"),
        ("win32", {"APPDATA": "/app"}, "/app/dsvl"),
        ("win32", {}, "/home/x/AppData/Roaming/dsvl"),
        ("linux", {"XDG_CONFIG_HOME": "/xdg"}, "/xdg/dsvl"),
        ("darwin", {"XDG_CONFIG_HOME": "/xdg"}, "/xdg/dsvl"),
        ("win32", {"XDG_CONFIG_HOME": "/xdg", "APPDATA": "/app"}, "/xdg/dsvl"),
        ("linux", {"XDG_CONFIG_HOME": "relative"}, "/home/x/.config/dsvl"),
        ("darwin", {"XDG_CONFIG_HOME": "relative"}, "/home/x/Library/Application Support/dsvl"),
        ("win32", {"XDG_CONFIG_HOME": "relative", "APPDATA": "/app"}, "/app/dsvl"),
        ("linux", {"XDG_CONFIG_HOME": "/xdg", "DSVL_CONFIG_DIR": "/own"}, "/own"),
    ],
)
def test_the_folder_is_where_the_platform_has_it(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], folder: str
) -> None:
    pretend(monkeypatch, platform, {"DSVL_CONFIG_DIR": "", "HOME": "/home/x", **variables})
    assert config.config_folder(os.environ) == Path(folder)


def test_help_reads_no_file() -> None:
    loaded = loaded_by("from dsvl_cli.cli import main\nassert main(['describe', '--help']) == 0")
    assert loaded.isdisjoint({"tomllib", "platformdirs"})


@pytest.mark.fault("settings that cost time")
@pytest.mark.parametrize(
    "text",
    [
        '[prompts]\nsystem = """\n' + "system nosuch\n" * 1000 + '"""\nnosuch = 1\n',
        "[prompts]\nsystem = [\n" + '"system",\n' * 1500 + "]\n",
        "[prompts]\n" + "# nosuch\n" * 1700 + "nosuch = 1\n",
        "a" + ".a" * 7400 + " = 1\n",
        "[prompts]\nprompt = {a" + ".a" * 7000 + " = 1}\n",
        "[" * 7000,
    ],
    ids=["text", "list", "comments", "key", "key in a table", "brackets"],
)
def test_a_hostile_folder_costs_little(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0
    loads = tomllib.loads

    def count(text: str) -> dict[str, Any]:
        nonlocal parsed
        parsed += text.count("\n") + 200 * (text.count(".a") > 100)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", count)
    (tmp_path / ".dsvl.toml").write_text(text)
    with pytest.raises(DsvlError) as caught:
        read_config({"DSVL_CONFIG_DIR": str(tmp_path)}, None, tmp_path)
    assert "\n" not in caught.value.message
    assert parsed < 60_000
    assert parsed == 0 or ".a.a" not in text
