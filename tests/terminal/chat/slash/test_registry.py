from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.engine.conversation import Message
from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.slash import guesses
from dsvl_cli.terminal.chat.slash.command import SlashCommand
from dsvl_cli.terminal.chat.slash.registry import COMMANDS, find_command, split_command
from tests.terminal.fake_model import Desk, FakeModel, picture_bytes

# For each command: arguments that are right, and arguments that are wrong with a word of what is told then.
GOOD = {
    "image": ["b.png", "*.png", "'a b.png'", "b.png 'a b.png'", "a\\ b.png"],
    "images": [""],
    "drop": ["1", "3", "1 3", "1,2", "2-3", "1-9", "all", "staged"],
    "paste": [""],
    "text": ["gone.png", "@nobody"],
    "copy": [""],
    "see": ["1 out.png", "3 'my out.jpg'"],
    "crop": ["1 0,0,2,2", "3 1,1,3,4", "1 0 0 2 2"],
    "continue": [""],
    "retry": [""],
    "undo": [""],
    "edit": [""],
    "editor": ["", "draft"],
    "set": ["", "temperature", "temperature 0.2", "top_p=0.5", "overflow drop-oldest", "stop 'a b' c", "seed none"],
    "system": ["", "You are terse.", "default", "none", "''"],
    "schema": ["", "colour, count int", '{"type": "object"}', "off"],
    "model": ["", "other", "fake"],
    "stats": [""],
    "new": [""],
    "save": ["my talk"],
    "load": ["", "id1"],
    "export": ["out.md", "'my out.html'", "out.json beside"],
    "clear": [""],
    "help": ["", "set", "/set", "quit"],
    "exit": [""],
}
BAD = {
    "image": [("", "needs"), ("gone.png", "cannot be read"), ("notes.txt", "cannot be read")],
    "images": [("1", "no argument")],
    "drop": [("", "needs"), ("9", "no picture 9"), ("a", "number"), ("-1", "number"), ("1 9", "no picture 9"),
             ("7-8", "no picture 7"), ("1-", "number"), ("²", "number")],
    "paste": [("x", "no argument")],
    "text": [("", "needs")],
    "copy": [("x", "no argument")],
    "see": [("", "needs"), ("9", "no picture"), ("1 b.png", "exists"), ("1 out.gif", "extension"),
            ("1 a b", "one file"), ("1 gone/out.png", "cannot be written")],
    "crop": [("", "needs"), ("1", "region"), ("1 1,2,3", "region"), ("9 0,0,1,1", "no picture"),
             ("1 a,b,c,d", "region"), ("1 0,0,999,1", "not within"), ("1 -1,0,1,1", "region")],
    "continue": [("x", "no argument")],
    "retry": [("x", "no argument")],
    "undo": [("x", "no argument")],
    "edit": [("x", "no argument")],
    "editor": [],
    "set": [("temprature 1", "did you mean temperature"), ("temperature hot", "between 0 and 100"),
            ("top_p 2", "top_p"), ("overflow sometimes", "drop-oldest")],
    "system": [],
    "schema": [("gone.json", "cannot be read"), ("count integ", "not a type"), ('{"not": {}}', "not supported")],
    "model": [("no-such", "no model")],
    "stats": [("x", "no argument")],
    "new": [("x", "no argument")],
    "save": [("", "needs")],
    "load": [("gone", "gone")],
    "export": [("", "needs"), ("a b", "one file")],
    "clear": [("x", "no argument")],
    "help": [("hlep", "did you mean /help")],
    "exit": [("x", "no argument")],
}  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A chat with picture 1 and 2 sent, 3 attached, a cut answer, and an editor that adds a word."""
    monkeypatch.chdir(tmp_path)
    for name in ("a b.png", "b.png"):
        (tmp_path / name).write_bytes(picture_bytes())
    (tmp_path / "notes.txt").write_text("no picture")
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "edited" >> "$1"\n')
    editor.chmod(0o755)
    copier = tmp_path / "wl-copy"
    copier.write_text("#!/bin/sh\ncat > copied\n")
    copier.chmod(0o755)
    variables = {"EDITOR": str(editor), "PATH": f"{tmp_path}:/usr/bin:/bin", "WAYLAND_DISPLAY": "wayland-0"}
    desk = Desk(FakeModel(["cut short"]), variables=variables)
    desk.do("/set max_new_tokens 1", "b.png 'a b.png' What?", "/set max_new_tokens default", "b.png")
    assert desk.texts() == ["What?", "cut"]
    assert desk.out == "cut\n"
    return desk


def test_every_command_has_good_and_bad_arguments_here() -> None:
    assert set(GOOD) == set(BAD) == {command.name for command in COMMANDS}
    assert all(BAD[c.name] for c in COMMANDS if not (c.arguments.startswith("[") and "TEXT" in c.arguments))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_and_is_found_by_its_names(command: SlashCommand) -> None:
    assert command.help
    assert not command.help.endswith(".")
    for name in (command.name, *command.aliases):
        assert find_command(name) is command
        assert split_command(f"/{name} x") == (name, "x")


@pytest.mark.parametrize(("name", "argument"), [(name, each) for name, all_ in GOOD.items() for each in all_])
def test_good_arguments_raise_nothing(desk: Desk, name: str, argument: str) -> None:
    assert "error: " not in desk.do(f"/{name} {argument}")


@pytest.mark.parametrize(("name", "argument", "told"), [(name, *each) for name, all_ in BAD.items() for each in all_])
def test_bad_arguments_are_explained_and_change_nothing(desk: Desk, name: str, argument: str, told: str) -> None:
    before = (list(desk.chat.dialogue.messages), list(desk.chat.dialogue.attached), desk.chat.settings)
    err = desk.do(f"/{name} {argument}")
    assert err.startswith("error: ")
    assert told in err
    assert (desk.chat.dialogue.messages, desk.chat.dialogue.attached, desk.chat.settings) == before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_no_command_breaks_an_empty_chat(command: SlashCommand) -> None:
    desk = Desk()
    desk.do(f"/{command.name} {'1' if command.arguments else ''}")
    desk.chat.leaving = False
    desk.do("hello")
    assert desk.texts()[-1].endswith("hello")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("imge", "image"), ("contnue", "continue"), ("quti", "quit"), ("stat", "stats"), ("sett", "set")],
)
def test_an_unknown_command_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as error:
        find_command(typed)
    assert error.value.hint == f"did you mean /{meant}?"


@pytest.mark.parametrize("typed", ["xyzzyx", "foo", "bar", "web", "think", "translate"])
def test_something_quite_unknown_points_to_help(typed: str) -> None:
    with pytest.raises(UsageError) as error:
        find_command(typed)
    assert error.value.hint == "/help lists all commands"


@pytest.mark.parametrize("line", ["/a/b.png", "/tmp/x", "hello /undo", "/", "//", "/a.png", "1/2"])
def test_paths_are_no_commands(line: str) -> None:
    assert split_command(line) is None


def test_help_names_every_command(desk: Desk) -> None:
    told = " ".join(desk.do("/help").split())
    assert all(command.usage in told and command.help in told for command in COMMANDS)


def test_images_are_listed_with_all_that_is_known(desk: Desk) -> None:
    header, first, _, third = desk.do("/images").splitlines()
    assert header.split() == ["no.", "size", "seen", "as", "tokens", "turn", "name"]
    assert first.split() == ["1", "8x6", "48x36", "10", "1", "b.png"]
    assert third.split()[4:] == ["next", "b.png"]


def test_dropping_a_sent_picture_changes_what_is_kept(desk: Desk) -> None:
    desk.do("/drop 1")
    kept = desk.store.kept["id1"].conversation
    assert [picture.name for picture in kept.pictures] == ["a b.png"]


def test_see_writes_what_the_model_sees(desk: Desk) -> None:
    desk.do("/see 1 out.png")
    with Image.open("out.png") as image:
        assert image.size == (48, 48)


def test_crop_stages_a_region(desk: Desk) -> None:
    desk.do("/crop 1 1,2,3,4")
    attached = desk.chat.dialogue.attached[-1]
    assert (attached.width, attached.height) == (3, 4)


def test_continue_undo_and_new(desk: Desk) -> None:
    desk.do("/continue")
    assert desk.texts() == ["What?", "cutYou said: cut"]
    desk.do("/undo")
    assert len(desk.chat.dialogue.attached) == 3
    desk.do("/new")
    assert desk.chat.dialogue.attached == []
    desk.do("again")
    assert sorted(desk.store.kept) == ["id1", "id2"]


def test_edit_asks_the_same_pictures_other_words(desk: Desk) -> None:
    desk.do("/edit")
    question = desk.chat.dialogue.messages[0]
    assert question.text == "What?edited"
    assert [picture.name for picture in question.pictures] == ["b.png", "a b.png"]
    assert len(desk.chat.dialogue.messages) == 2
    assert len(desk.chat.dialogue.attached) == 1


def test_editor_sends_what_was_written_with_the_attachments(desk: Desk) -> None:
    desk.do("/editor a long ")
    assert desk.texts()[-1] == "You said: a longedited"
    assert len(desk.chat.dialogue.messages[-2].pictures) == 1


def test_editors_need_a_terminal() -> None:
    assert "needs a terminal" in Desk(scripted=True).do("/editor")


def test_set_shows_and_changes(desk: Desk) -> None:
    assert "temperature is 0.2" in desk.do("/set temperature 0.2")
    assert "temperature is 0.2" in desk.do("/set temperature")
    assert "repetition_penalty" in desk.do("/set")


def test_the_system_text_is_replaced_left_out_and_given_back(desk: Desk) -> None:
    for argument, system in (("be terse", "be terse"), ("none", ""), ("default", None)):
        desk.do(f"/system {argument}")
        assert desk.chat.dialogue.conversation.system == system
        assert desk.store.kept["id1"].conversation.system == system


def test_another_model_takes_the_conversation_over(desk: Desk) -> None:
    desk.do("/model other", "and you?")
    assert [message.role for message in desk.chat.dialogue.messages] == ["user", "assistant"] * 2


def test_the_models_are_listed(desk: Desk) -> None:
    told = desk.do("/model")
    assert told.startswith("fake is in use")
    assert "/model NAME" in told


def test_a_model_that_does_not_exist_changes_nothing(desk: Desk) -> None:
    before = desk.loading.ready
    assert "error: there is no model 'no-such'" in desk.do("/model no-such")
    assert desk.loading.ready is before
    assert not desk.loading.loading
    desk.do("and now?")
    assert desk.texts()[-1] == "You said: and now?"


def test_stats_show_the_last_answer(desk: Desk) -> None:
    told = desk.do("/stats")
    for figure in ("21 tokens, 10 of them cached", "0.50 s", "1 tokens", "2.0 MB", "32 of 1,000"):
        assert figure in told


def test_a_conversation_is_named_left_and_found_again(desk: Desk) -> None:
    desk.do("/save my talk", "/new", "other")
    assert "my talk" in desk.do("/load")
    desk.do("/load my talk")
    assert desk.texts() == ["What?", "cut"]
    desk.do("on")
    assert len(desk.store.kept["id1"].conversation.messages) == 4
    assert desk.store.kept["id1"].name == "my talk"


def test_export_gets_the_conversation(desk: Desk) -> None:
    desk.do("/export 'my out.md'")
    first = desk.exports[0]
    assert first.conversation.messages[0] == Message("user", desk.chat.dialogue.messages[0].parts)
    assert (first.model, first.path, first.embed, first.overwrite) == ("fake", Path("my out.md"), True, False)
    assert (first.session_id, first.name) == ("id1", None)
    desk.do("/save my talk", "/export out.html beside", "/export --overwrite out.html")
    second, third = desk.exports[1:]
    assert (second.embed, second.overwrite, second.name) == (False, False, "my talk")
    assert (third.embed, third.overwrite, third.path) == (True, True, Path("out.html"))
    desk.do("/new")
    assert "takes one file" in desk.do("/export a.md b.md", "/export beside")
    assert len(desk.exports) == 3


@pytest.mark.parametrize("name", ["exit", "quit", "bye", "q"])
def test_leaving(desk: Desk, name: str) -> None:
    desk.do(f"/{name}")
    assert desk.chat.leaving


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("info", "/stats"),
        ("clip", "/paste"),
        ("temp", "/set temperature"),
        ("temperature", "/set temperature"),
        ("top-p", "/set top_p"),
        ("delete", "/drop"),
        ("regenerate", "/retry"),
        ("history", "/load"),
        ("config", "/set"),
        ("cont", "/continue"),
        ("temprature", "/set temperature"),
    ],
)
def test_words_of_other_chats_lead_to_ours(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as error:
        find_command(typed)
    assert error.value.hint == f"did you mean {meant}?"


def test_no_guess_leads_to_a_command_that_does_not_exist() -> None:
    names = [name for command in COMMANDS for name in (command.name, *command.aliases)]
    for word, command in guesses.COMMANDS_OF.items():
        assert command in names
        assert word not in names


@pytest.mark.parametrize("word", ["help", "exit", "quit", "Exit", " quit "])
def test_words_for_help_and_leaving_are_commands_alone_on_a_line(desk: Desk, word: str) -> None:
    told = desk.do(word)
    assert desk.chat.leaving or "/image" in told
    desk.chat.leaving = False
    desk.do(f"{word.strip()} me please", f"/text {word.strip()}")
    assert desk.texts()[2::2] == [f"{word.strip()} me please", word.strip()]
    assert not desk.chat.leaving


def test_an_argument_may_be_a_block(desk: Desk) -> None:
    desk.do('/system """\nBe terse.\nBe kind.\n"""', '/text """\nsee a.png\n@b\n"""')
    assert desk.chat.dialogue.conversation.system == "Be terse.\nBe kind."
    assert desk.texts()[-2] == "see a.png\n@b"


def test_numbers_stay_when_others_are_dropped(desk: Desk) -> None:
    desk.do("/drop 2")
    assert [row.split()[0] for row in desk.do("/images").splitlines()[1:]] == ["1", "3"]
    assert desk.do("b.png").startswith("[4] ")
    assert desk.store.kept["id1"].conversation.dropped == {2}
    desk.do("/drop staged")
    assert [row.split()[0] for row in desk.do("/images").splitlines()[1:]] == ["1"]
    assert "picture 3 was dropped" in desk.do("/see 3 out.png")
    assert desk.do("b.png").startswith("[5] ")
    desk.do("/drop all")
    assert desk.chat.dialogue.pictures() == []


def test_nothing_is_dropped_if_one_number_is_wrong(desk: Desk) -> None:
    assert "no picture 9" in desk.do("/drop 1 9")
    assert len(desk.chat.dialogue.pictures()) == 3


@pytest.mark.parametrize("argument", ["1 out.txt", "1 out", "9 out.png"])
def test_see_leaves_no_file_of_what_fails(desk: Desk, tmp_path: Path, argument: str) -> None:
    before = {*tmp_path.iterdir()}
    assert "error: " in desk.do(f"/see {argument}")
    assert {*tmp_path.iterdir()} == before


def test_no_system_text_is_written_as_for_the_option(desk: Desk) -> None:
    for argument in ("''", '""'):
        desk.do("/system be terse")
        assert "there is no system prompt" in desk.do(f"/system {argument}")
        assert desk.chat.dialogue.conversation.system == ""


def test_a_schema_holds_until_it_is_turned_off(desk: Desk) -> None:
    desk.do("/schema 'count int'", "How many?")
    _, sampling = desk.model.asked[-1]
    assert isinstance(sampling.constraint, JsonSchema)
    assert set(sampling.constraint.value["properties"]) == {"count"}
    assert "count" in desk.do("/schema")
    desk.do("/schema off", "How many?")
    assert desk.model.asked[-1][1].constraint is None
    assert "free text" in desk.do("/schema")


def test_copy_takes_the_last_answer(desk: Desk, tmp_path: Path) -> None:
    assert "copied to the clipboard" in desk.do("and?", "/copy")
    assert (tmp_path / "copied").read_text() == "You said: and?"


def test_an_edited_message_names_no_new_picture(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "editor.sh").write_text('#!/bin/sh\nprintf " and gone.png" >> "$1"\n')
    assert "gone.png" in desk.do("/edit")
    assert desk.texts() == ["What?", "cut"]
