"""Prompts that name the picture: what is filled in, what stays as it is, and what is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources import webdataset
from dsvl_cli.batch.sources.scan import scan
from dsvl_cli.batch.templates import VARIABLES, fill, fill_prompts, find_variables
from dsvl_cli.errors import DsvlError, ImageError, UsageError


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Item:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2019 Rome").mkdir()
    (tmp_path / "2019 Rome/st. peter.jpg").write_bytes(b"x")
    (item,) = scan(["2019 Rome"])
    return item


def filled(prompt: str, item: Item, extension: str = ".txt") -> str:
    return fill_prompts({"q": prompt}, item, extension)["q"]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Is {name} a good name?", "Is st. peter a good name?"),
        ("{folder}: {name}, {name}", "2019 Rome: st. peter, st. peter"),
        ("{{name}} is {name}", "{name} is st. peter"),
        ('Answer as {"name": "{name}"}.', 'Answer as {"name": "st. peter"}.'),
        ('Answer as {"a": {"b": 1}}.', 'Answer as {"a": {"b": 1}}.'),
        ('Answer as {{"a": {{"b": "{name}"}}}}.', 'Answer as {"a": {"b": "st. peter"}}.'),
        ("a } b { c {} {0} {a b} } }}", "a } b { c {} {0} {a b} } }}"),
        ("", ""),
    ],
)
def test_names_are_filled_in(photo: Item, prompt: str, text: str) -> None:
    assert filled(prompt, photo) == text


@pytest.mark.parametrize("text", ["St. Peter at dawn\n", "\ufeffSt. Peter at dawn\r\n", "  St. Peter at dawn"])
def test_a_caption_is_the_text_beside_the_picture(photo: Item, text: str) -> None:
    Path("2019 Rome/st. peter.caption").write_bytes(text.encode("utf-16" if text.startswith(" ") else "utf-8"))
    assert filled("Improve: {caption}", photo, ".caption") == "Improve: St. Peter at dawn"
    with pytest.raises(ImageError, match=r"has no \{caption\}: 2019 Rome/st\. peter\.txt does not exist"):
        filled("Improve: {caption}", photo)
    Path("2019 Rome/st. peter.jpg.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ImageError, match=r"st\. peter\.jpg\.txt:1:4: not UTF-8"):
        filled("Improve: {caption}", photo)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_caption_of_a_shard_is_the_text_of_its_sample(tmp_path: Path, ending: str) -> None:
    name = str(tmp_path / f"00000{ending}")
    members = {"000.jpg": b"x", "000.json": b"{}", "000.txt": b"A dog\n", "001.jpg": b"x", "z/001.txt": b"other",
               "0.02.txt": b"caf\xe9", "0.02.jpg": b"x", "003.txt": b" " * 70_000, "003.png": b"x"}  # fmt: skip
    with tarfile.open(name, "w:gz" if ending.endswith("gz") else "w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    first, second, third, fourth = scan([name])
    assert filled("{caption} in {folder}", first) == "A dog in 00000"
    for each, said in ((second, "has no .txt of it"), (third, ":1:4: not UTF-8"), (fourth, "has no .txt of it")):
        with pytest.raises(ImageError, match=said):
            filled("{caption}", each)


def test_a_damaged_shard_is_read_once_and_has_the_captions_before_the_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cut.tar"
    with tarfile.open(path, "w") as tar:
        for member in ("000.jpg", "000.txt", "001.jpg", "001.txt"):
            info = tarfile.TarInfo(member)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"one"))
    path.write_bytes(path.read_bytes()[: 6 * 512 + 100])
    opened: list[str] = []

    def note(name: str) -> bool:
        opened.append(name)
        return False

    monkeypatch.setattr(webdataset, "_is_compressed", note)
    first, second = (Item(name, name, list) for name in (f"{path}::000.jpg", f"{path}::001.jpg"))
    assert filled("{caption}", first) == "one"
    for _ in range(2):
        with pytest.raises(DsvlError, match=r"cut\.tar: not a tar archive, or damaged or cut off"):
            filled("{caption}", second)
    assert opened == [str(path)]


def test_a_link_is_no_caption(photo: Item, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    Path("2019 Rome/st. peter.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ImageError, match="has no"):
        filled("{caption}", photo)


def test_a_mark_in_a_name_stands_for_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("<image>.png").write_bytes(b"x")
    (item,) = scan(["<image>.png"])
    assert filled("<image> {name}", item) == "<image> (image)"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("https://example.org/a/b/c.png", "c in b"),
        ("photo.png", f"photo in {os.path.basename(os.getcwd())}"),
        ("noname", f"noname in {os.path.basename(os.getcwd())}"),
    ],
)
def test_every_place_has_a_name(path: str, expected: str) -> None:
    assert filled("{name} in {folder}", Item(path, path, list)) == expected


def test_a_member_of_an_archive_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(b"")
    for member, expected in (("x/000001.jpg", "000001 in x"), ("000001.jpg", "000001 in 00000")):
        path = f"{tmp_path}/00000.tar::{member}"
        assert filled("{name} in {folder}", Item(path, path, list)) == expected


@pytest.mark.parametrize(("prompt", "name"), [("{nmae}", "nmae"), ("a {Name} {folder}", "Name"), ("{image}", "image")])
def test_an_unknown_variable_is_refused_with_the_known_ones(prompt: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"no variable \{{{name}\}}") as caught:
        find_variables(prompt)
    assert caught.value.hint == f"use {{name}}, {{folder}}, {{caption}}, or {{{{{name}}}}} for the text itself"
    assert find_variables(f"{{{{{name}}}}}") == set()


@given(st.text(st.sampled_from("{}ab \"'\n<")))
def test_a_prompt_without_variables_and_doubled_braces_stays_as_it_is(prompt: str) -> None:
    names = {f"{{{name}}}" for name in ("a", "b", "aa", "ab", "ba", "bb")}
    if "{{" not in prompt and not any(name in prompt for name in names) and not find(prompt):
        assert fill(prompt, str.upper) == prompt


def find(prompt: str) -> set[str]:
    try:
        return find_variables(prompt)
    except UsageError:
        return {"unknown"}


@given(
    st.recursive(
        st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=2)
    )
)
def test_json_may_be_written_plainly_or_with_doubled_braces(value: object) -> None:
    plain = json.dumps(value)
    if not find(plain) and "{{" not in plain:
        assert fill(plain, str) == plain
    doubled = plain.replace("{", "{{").replace("}", "}}")
    if plain.count("{") == plain.count("}") and '"{' not in plain and '}"' not in plain:
        assert fill(doubled, str) == plain


def test_values_are_not_filled_in_again() -> None:
    assert fill("{name}", lambda _: "{folder} {{") == "{folder} {{"
    assert set(VARIABLES) == find_variables("{name}{folder}{caption}")
