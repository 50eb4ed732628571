"""What does not go together, what is asked, and which pictures are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.batch.row import ONLY
from dsvl_cli.engine.options import DEFAULT_PROMPT, SamplingParams
from dsvl_cli.errors import DsvlError, UsageError
from tests.app.batch.jobs import job


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt": "a", "ask": Path("q.toml")}, "--prompt and --ask cannot be used together"),
        ({"prompt": "a", "prompt_file": Path("q")}, "--prompt and --prompt-file cannot be used together"),
        ({"format": "openai", "ask": Path("q.toml")}, "only one answer per picture"),
        ({"sources": ()}, "no pictures are given"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        job(**values)


@pytest.mark.parametrize("values", [{"files_from": "-"}, {"check": "out.jsonl"}])
def test_a_list_and_a_check_need_no_source(values: dict[str, Any]) -> None:
    job(sources=(), **values)


@pytest.mark.parametrize(("text", "size"), [("auto", None), ("1", 1), ("16", 16)])
def test_a_batch_size_is_automatic_or_a_number(text: str, size: int | None) -> None:
    assert job(batch_size=text).batch_size == size


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "none", "", "٣"])
def test_another_batch_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--batch-size"):
        _ = job(batch_size=text).batch_size


def test_a_seed_is_drawn_where_none_is_asked_for() -> None:
    assert job(SamplingParams(temperature=1.0, seed=7)).seed_drawn
    assert not job(SamplingParams(temperature=1.0, seed=7), seed=7).seed_drawn
    assert not job().seed_drawn


@pytest.mark.parametrize(("has_chat", "question"), [(True, DEFAULT_PROMPT), (False, "")])
def test_only_a_chat_model_gets_an_instruction_unasked(has_chat: bool, question: str) -> None:
    assert job().questions(has_chat=has_chat).prompts == {ONLY: question}


def test_questions_come_from_the_line_a_file_or_a_list(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text(" What? \n")
    (tmp_path / "q.toml").write_text('a = "One?"\nb = "Two?"\n')
    assert job(prompt="Which?").questions(has_chat=True).prompts == {ONLY: "Which?"}
    assert job(prompt_file=tmp_path / "q.txt").questions(has_chat=True).prompts == {ONLY: "What?"}
    assert job(ask=tmp_path / "q.toml").questions(has_chat=True).prompts == {"a": "One?", "b": "Two?"}
    with pytest.raises(DsvlError, match="nothing: cannot be read: No such file"):
        job(prompt_file=tmp_path / "nothing").questions(has_chat=True)
    with pytest.raises(UsageError, match="more than one <image>"):
        job(prompt="<image> or <image>?").questions(has_chat=True)
    with pytest.raises(UsageError, match="has its own questions"):
        job(ask=tmp_path / "q.toml", sources=("in.JSONL",)).questions(has_chat=True)


@pytest.mark.parametrize(("name", "text"), [("prompt_file", "What?"), ("ask", 'a = "What?"')])
def test_a_file_of_questions_is_read_once_for_it_may_be_a_pipe(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "q").write_text(text)
    given: dict[str, Any] = {name: tmp_path / "q"}
    asked = job(**given)
    before = asked.questions(has_chat=True)
    (tmp_path / "q").write_text("")  # as a pipe is from then on
    assert asked.questions(has_chat=False) == before
    assert list(before.prompts.values()) == ["What?"]


def test_pictures_are_those_of_the_folder_with_the_extensions_that_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "c.webp", "d.txt", "in/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def found(**values: Any) -> list[str]:
        items = job(sources=(str(tmp_path),), **values).items(lambda _: None)
        return [Path(item.path).relative_to(tmp_path).as_posix() for item in items]

    assert found() == ["a.png", "b.jpg", "c.webp"]
    assert found(extensions=("PNG,.webp",)) == ["a.png", "c.webp"]
    assert found(extensions=("png", "txt"), recursive=True) == ["a.png", "d.txt", "in/e.png"]


def test_a_list_of_paths_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "list").write_text(f"{tmp_path / 'a.png'}\n")
    items = job(sources=(), files_from=str(tmp_path / "list")).items(lambda _: None)
    assert [item.path for item in items] == [str(tmp_path / "a.png")]
    with pytest.raises(DsvlError, match="cannot be read"):
        job(sources=(), files_from=str(tmp_path / "nothing")).items(lambda _: None)
