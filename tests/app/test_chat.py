from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dsvl_cli.app import chat as conversation
from dsvl_cli.app.chat import run_chat
from dsvl_cli.engine.checkpoint.catalogue import Catalogue
from dsvl_cli.engine.conversation import ChatModel, Conversation, Message
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.progress import Listener, Silence
from dsvl_cli.errors import DsvlError, ExitStatus, ImageError, UsageError
from dsvl_cli.sessions.store import SessionStore, default_store_path
from dsvl_cli.terminal.console import Console, Environment
from tests.terminal.fake_model import Desk, FakeModel, Kept, picture_bytes

Talk = Callable[..., tuple[ExitStatus, str, str]]


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Run a script in a folder with two pictures; returns the status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(picture_bytes())
    (tmp_path / "b.png").write_bytes(picture_bytes(colour="blue"))

    def talk(
        lines: str,
        *images: str,
        model: FakeModel | None = None,
        options: LoadOptions | None = None,
        sampling: SamplingParams | None = None,
        loaded: list[tuple[str, dict[str, Any]]] | None = None,
        **more: Any,
    ) -> tuple[ExitStatus, str, str]:
        stdout, stderr = io.StringIO(), io.StringIO()
        environment = Environment(io.StringIO(lines), stdout, stderr, {"DSVL_DATA_DIR": str(tmp_path / "data")})

        def load(name: str, listener: Listener, **others: Any) -> ChatModel:
            if loaded is not None:
                loaded.append((name, others))
            return model or FakeModel(name=name)

        options = options or LoadOptions("fake")
        status = run_chat(Console(environment), images, options, sampling or SamplingParams(), load=load, **more)
        return status, stdout.getvalue(), stderr.getvalue()

    return talk


def test_a_script_asks_about_pictures(talk: Talk) -> None:
    model = FakeModel()
    status, out, _ = talk("What differs?\n/undo\nAnd now?\n", "*.png", model=model)
    assert status == ExitStatus.OK
    assert out == "You said: What differs?\nYou said: And now?\n"
    for asked, _ in model.asked:
        assert [picture.name for picture in asked.messages[0].pictures] == ["a.png", "b.png"]


def test_the_next_script_continues(talk: Talk) -> None:
    talk("one\n/save first\n", "a.png")
    talk("another\n")
    model = FakeModel()
    talk("two\n", session="first", model=model)
    talk("three\n", go_on=True, model=model)
    assert [message.text for message in model.asked[1][0].messages] == [
        "one",
        "You said: one",
        "two",
        "You said: two",
        "three",
    ]
    assert [picture.name for picture in model.asked[1][0].pictures] == ["a.png"]


def test_a_system_text_wins_over_the_kept_one(talk: Talk) -> None:
    talk("one\n", system="old")
    model = FakeModel()
    talk("two\n", go_on=True, model=model)
    talk("three\n", go_on=True, system="new", model=model, given={"system"})
    assert [asked.system for asked, _ in model.asked] == ["old", "new"]


@pytest.mark.parametrize("way", ["continue", "session", "load"])
def test_a_conversation_comes_back_with_its_model_and_settings(talk: Talk, way: str) -> None:
    """Today's example: `--continue` began to download the default model after a chat with another one."""
    talk("one\n/save kept\n/set temperature 0.7\n/system be terse\n", options=LoadOptions("other", quantization="int8"))
    model, loaded = FakeModel(), list[tuple[str, dict[str, Any]]]()
    lines = "/load kept\ntwo\n" if way == "load" else "two\n"
    ways: dict[str, dict[str, Any]] = {"continue": {"go_on": True}, "session": {"session": "kept"}, "load": {}}
    status, _, _ = talk(lines, model=model, options=LoadOptions("1.3b"), loaded=loaded, **ways[way])
    assert status == ExitStatus.OK
    assert loaded[-1] == ("other", {"quantization": "int8"})
    assert len(loaded) == (2 if way == "load" else 1)  # nothing is loaded, or downloaded, in vain
    (asked, sampling), *_ = model.asked
    assert [message.text for message in asked.messages] == ["one", "You said: one", "two"]
    assert (asked.system, sampling.temperature) == ("be terse", 0.7)


def test_flags_of_the_command_line_win(talk: Talk) -> None:
    talk("one\n/set temperature 0.7\n/set top_k 5\n", options=LoadOptions("other"))
    model, loaded = FakeModel(), list[tuple[str, dict[str, Any]]]()
    talk(
        "two\n",
        model=model,
        options=LoadOptions("mine"),
        sampling=SamplingParams(temperature=0.1),
        loaded=loaded,
        go_on=True,
        given=frozenset({"model", "temperature"}),
    )
    assert loaded == [("mine", {})]
    assert (model.asked[0][1].temperature, model.asked[0][1].top_k) == (0.1, 5)


def test_a_setting_that_was_changed_after_the_last_answer_comes_back_too(talk: Talk) -> None:
    talk("one\n/set temperature 0.7\n")
    talk("/set temperature 0.2\n", go_on=True)
    model = FakeModel()
    talk("two\n", go_on=True, model=model)
    assert model.asked[0][1].temperature == 0.2


@pytest.mark.parametrize("model", ["gone", "org/never-downloaded"])
def test_a_conversation_whose_model_is_gone_loads_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = str(tmp_path / model) if model == "gone" else model
    data = {"DSVL_DATA_DIR": str(tmp_path / "data")}
    with SessionStore(default_store_path(data)) as store:
        kept = store.save(store.create(), Conversation([Message("user", ("hi",))]), name, {"model": name})
    loaded: list[object] = []
    monkeypatch.setattr(conversation, "_engine_loader", lambda *_: lambda *model, **_: loaded.append(model))
    console = Console(Environment(io.StringIO("on\n"), io.StringIO(), io.StringIO(), data))
    with pytest.raises(DsvlError, match="on this machine") as error:
        run_chat(console, [], LoadOptions("tiny"), SamplingParams(), go_on=True)
    assert name in error.value.message
    assert f"dsvl chat --session {kept} --model NAME" in (error.value.hint or "")
    assert loaded == []


def test_a_loaded_conversation_whose_model_is_gone_is_answered_by_the_one_in_use() -> None:
    desk = Desk()
    desk.store.kept["id7"] = Kept("id7", "far", Conversation([Message("user", ("hi",))]), "far-model")
    told = desk.do("/load far", "and now?")
    assert "far-model is not on this machine: fake answers" in told
    assert desk.texts()[-1] == "You said: and now?"


def test_a_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models")
    catalogue = Catalogue({"work": str(tmp_path / "models" / "mine")})
    everywhere = str(tmp_path / "models" / "mine")
    assert [catalogue.refer(name) for name in ("./mine", "mine", "work", "TINY")] == [*[everywhere] * 3, "tiny"]
    assert catalogue.find_obstacle("tiny", {}) is None
    assert "complete" in str(catalogue.find_obstacle("./mine", {}))


@pytest.mark.parametrize(
    ("name", "told"), [("tinny", "no model 'tinny'"), ("./gone", "no folder"), ("./empty", "config.json"),
                       ("1.3b-base", "base model")],
)  # fmt: skip
def test_names_that_cannot_work_are_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DsvlError, match=told) as error:
        Catalogue({}).check(name)
    assert error.value.hint


def test_the_catalogue_says_what_is_here() -> None:
    names = dict(Catalogue({"mine": "org/my-model"}).names())
    assert names["mine"] == "org/my-model"
    assert "built in" in names["tiny"]
    assert names["1.3b"] == "to be downloaded"
    assert "1.3b-base" not in names


def test_what_is_not_to_be_saved_leaves_no_file(talk: Talk, tmp_path: Path) -> None:
    talk("one\n", save=False)
    assert not (tmp_path / "data").exists()


def test_conversations_that_are_not_there_are_told(talk: Talk) -> None:
    with pytest.raises(DsvlError, match="no conversation to continue"):
        talk("one\n", go_on=True)
    with pytest.raises(DsvlError, match="gone"):
        talk("one\n", session="gone")
    with pytest.raises(UsageError, match="--session"):
        talk("one\n", session="x", go_on=True)


def test_json_is_one_object_a_turn(talk: Talk) -> None:
    _, out, _ = talk("one\n/stats\ntwo\n", "a.png", as_json=True)
    first, second = map(json.loads, out.splitlines())
    assert (first["question"], first["pictures"], first["text"]) == ("one", ["a.png"], "You said: one")
    assert second["question"] == "two"


@pytest.mark.parametrize("way", ["", " beside"])
def test_export_writes_the_conversation_with_its_pictures(talk: Talk, tmp_path: Path, way: str) -> None:
    status, _, err = talk(f"one\n/export out.md{way}\n/export out.md\n/export out.xyz\n", "a.png")
    assert status == ExitStatus.ERROR
    assert err.count("error: ") == 2
    assert "You said: one" in (tmp_path / "out.md").read_text(encoding="utf-8")
    assert (tmp_path / "out_pictures").exists() == bool(way)


def test_stdin_is_for_messages(talk: Talk) -> None:
    status, out, err = talk("one\n", "-")
    assert status == ExitStatus.ERROR
    assert "stdin" in err
    assert out == ""


def test_addresses_are_refused_offline(talk: Talk) -> None:
    sources = conversation._picture_sources(offline=True)
    with pytest.raises(ImageError, match="offline"):
        sources.read("https://example.org/a.png")


def test_a_base_model_is_refused_with_the_name_of_the_one_that_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dsvl_cli.engine.model", ModuleType("dsvl_cli.engine.model"))
    monkeypatch.setattr(sys.modules["dsvl_cli.engine.model"], "load_model", None, raising=False)
    monkeypatch.setattr(conversation, "_open_torch_libraries", lambda: None)
    monkeypatch.setattr(conversation, "find_checkpoint", lambda *_: SimpleNamespace(has_chat=False))
    with pytest.raises(DsvlError, match="cannot chat") as error:
        conversation._engine_loader(LoadOptions(), {})("1.3b-base", Silence())
    assert error.value.hint == "use 1.3b"


@pytest.mark.parametrize("save", [True, False])
def test_no_save_keeps_no_prompts_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: bool) -> None:
    wanted = []

    def make_loader(options: LoadOptions, aliases: object) -> object:
        wanted.append(options.cache)
        return lambda name, listener: FakeModel(name=name)

    monkeypatch.setattr(conversation, "_engine_loader", make_loader)
    environment = Environment(io.StringIO(), io.StringIO(), io.StringIO(), {"DSVL_DATA_DIR": str(tmp_path)})
    run_chat(Console(environment), [], LoadOptions("fake", cache=True), SamplingParams(), save=save)
    assert wanted == [save]


def test_a_script_loads_neither_torch_nor_prompt_toolkit(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.terminal.fake_chat import main; status = main({});"
        "print([name for name in ('torch', 'transformers', 'prompt_toolkit', 'rich') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = run(
        [sys.executable, "-c", code],
        input=b"hello\n/images\n",
        capture_output=True,
        env={"PYTHONPATH": str(root), "DSVL_DATA_DIR": str(tmp_path)},
        check=True,
        timeout=120,
    )
    assert done.stdout == b"You said: hello\n[]\n"
